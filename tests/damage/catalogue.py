"""Where everything is in an undamaged image: every block of metadata, and the fields in it that damage goes for.

Blocks are found by their magic numbers where the image has data (and, on V5, by the address they carry), so also those
that nothing reads yet; V4's blocks without a magic by who reads them.  Offsets are from the format document, written
down anew here: the code under test must not choose what it is tested with.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c


class Field(NamedTuple):
    """An integer in a block: what damage is done to."""

    name: str
    offset: int
    nbytes: int


class Kind(NamedTuple):
    """A kind of block: its fixed fields ("name offset bytes"), and where its checksum is (None: there is none)."""

    name: str
    crc: int | None
    fields: tuple[Field, ...]


class Found(NamedTuple):
    """One block of metadata in the image."""

    kind: str
    offset: int
    nbytes: int
    #: its number in the AG, the whole filesystem (AG in the high bits); 512-byte address
    agb: int
    fsb: int
    level: int


def _kind(name: str, crc: int | None, text: str) -> Kind:
    words = text.split()
    fields = tuple(Field(words[at], int(words[at + 1]), int(words[at + 2])) for at in range(0, len(words), 3))
    return Kind(name, crc, fields)


_SB = """magicnum 0 4 blocksize 4 4 dblocks 8 8 rblocks 16 8 rextents 24 8 uuid 32 8 logstart 48 8 rootino 56 8
rbmino 64 8 rsumino 72 8 rextsize 80 4 agblocks 84 4 agcount 88 4 rbmblocks 92 4 logblocks 96 4 versionnum 100 2
sectsize 102 2 inodesize 104 2 inopblock 106 2 fname 108 4 blocklog 120 1 sectlog 121 1 inodelog 122 1 inopblog 123 1
agblklog 124 1 rextslog 125 1 inprogress 126 1 imax_pct 127 1 icount 128 8 ifree 136 8 fdblocks 144 8 frextents 152 8
uquotino 160 8 gquotino 168 8 qflags 176 2 flags 178 1 shared_vn 179 1 inoalignmt 180 4 unit 184 4 width 188 4
dirblklog 192 1 logsectlog 193 1 logsectsize 194 2 logsunit 196 4 features2 200 4 bad_features2 204 4"""
_SB5 = """ features_compat 208 4 features_ro_compat 212 4 features_incompat 216 4 features_log_incompat 220 4
spino_align 228 4 pquotino 232 8 lsn 240 8 meta_uuid 248 8 metadirino 264 8 rgcount 272 4 rgextents 276 4 rgblklog 280 1
rtstart 288 8 rtreserved 296 8"""
_AGF = """magicnum 0 4 versionnum 4 4 seqno 8 4 length 12 4 bno_root 16 4 cnt_root 20 4 rmap_root 24 4 bno_level 28 4
cnt_level 32 4 rmap_level 36 4 flfirst 40 4 fllast 44 4 flcount 48 4 freeblks 52 4 longest 56 4 btreeblks 60 4"""
_AGF5 = """ uuid 64 8 rmap_blocks 80 4 refcount_blocks 84 4 refcount_root 88 4 refcount_level 92 4 lsn 208 8"""
_AGI = """magicnum 0 4 versionnum 4 4 seqno 8 4 length 12 4 count 16 4 root 20 4 level 24 4 freecount 28 4 newino 32 4
dirino 36 4 unlinked_0 40 4 unlinked_63 292 4"""
_AGI5 = """ uuid 296 8 lsn 320 8 free_root 328 4 free_level 332 4 iblocks 336 4 fblocks 340 4"""
_SHORT = "magic 0 4 level 4 2 numrecs 6 2 leftsib 8 4 rightsib 12 4"
_SHORT5 = " blkno 16 8 uuid 32 8 owner 48 4"
_LONG = "magic 0 4 level 4 2 numrecs 6 2 leftsib 8 8 rightsib 16 8"
_LONG5 = " blkno 24 8 uuid 40 8 owner 56 8"
_DA = "forw 0 4 back 4 4 magic 8 2"
_DA5 = " blkno 16 8 uuid 32 8 owner 48 8 count 56 2 second 58 2"
_DIR5 = "magic 0 4 blkno 8 8 uuid 24 8 owner 40 8"
_BEST5 = " best0_offset 48 2 best0_length 50 2 best1_offset 52 2 best1_length 54 2"
_BEST4 = " best0_offset 4 2 best0_length 6 2"
_REMOTE = "magic 0 4 offset 4 4 bytes 8 4 uuid 16 8 owner 32 8 blkno 40 8"
_INODE = """magic 0 2 mode 2 2 version 4 1 format 5 1 onlink 6 2 uid 8 4 gid 12 4 nlink 16 4 projid_lo 20 2
projid_hi 22 2 big_nextents 24 8 atime 32 8 mtime 40 8 ctime 48 8 size 56 8 nblocks 64 8 extsize 72 4 nextents 76 4
anextents 80 2 forkoff 82 1 aformat 83 1 flags 90 2 gen 92 4 next_unlinked 96 4"""
_INODE5 = " changecount 104 8 lsn 112 8 flags2 120 8 cowextsize 128 4 crtime 144 8 ino 152 8 uuid 160 8"

_ATTR_LEAF4 = " usedbytes 14 2 firstused 16 2 holes 18 1 free0_base 20 2 free0_size 22 2"

#: A record of the log: header and data together; its checksum is of both.
_LOG = _kind(
    "log",
    32,
    """magic 0 4 cycle 4 4 version 8 4 len 12 4 lsn 16 8 tail_lsn 24 8 prev_block 36 4 num_logops 40 4 word0 44 4
    fmt 300 4 uuid 304 8 size 320 4 data0 512 4 op_len 516 4 op_client 520 1 op_flags 521 1""",
)

KINDS5 = {
    kind.name: kind
    for kind in (
        _kind("superblock", 224, _SB + _SB5),
        _kind("AGF", 216, _AGF + _AGF5),
        _kind("AGI", 312, _AGI + _AGI5),
        _kind("AGFL", 32, "magic 0 4 seqno 4 4 uuid 8 8 bno_0 36 4 bno_1 40 4 bno_5 56 4"),
        *(_kind(name, 52, _SHORT + _SHORT5) for name in ("bnobt", "cntbt", "inobt", "finobt", "rmapbt", "refcountbt")),
        _kind("bmbt", 64, _LONG + _LONG5),
        _kind("dir-block", 4, _DIR5 + _BEST5),
        _kind("dir-data", 4, _DIR5 + _BEST5),
        _kind("dir-free", 4, _DIR5 + " firstdb 48 4 nvalid 52 4 nused 56 4"),
        *(_kind(name, 12, _DA + _DA5) for name in ("dir-leaf1", "dir-leafn", "da-node")),
        _kind("attr-leaf", 12, _DA + _DA5.replace("second 58 2", "usedbytes 58 2 firstused 60 2 holes 62 1")
              + " free0_base 64 2 free0_size 66 2"),
        _kind("attr-remote", 12, _REMOTE),
        _kind("symlink", 12, _REMOTE),
        _kind("inode", 100, _INODE + _INODE5),
    )
}  # fmt: skip
KINDS4 = {
    kind.name: kind
    for kind in (
        _kind("superblock", None, _SB),
        _kind("AGF", None, _AGF),
        _kind("AGI", None, _AGI),
        _kind("AGFL", None, "bno_0 0 4 bno_1 4 4 bno_5 20 4"),
        *(_kind(name, None, _SHORT) for name in ("bnobt", "cntbt", "inobt")),
        _kind("bmbt", None, _LONG),
        _kind("dir-block", None, "magic 0 4" + _BEST4),
        _kind("dir-data", None, "magic 0 4" + _BEST4),
        _kind("dir-free", None, "magic 0 4 firstdb 4 4 nvalid 8 4 nused 12 4"),
        *(_kind(name, None, _DA + " count 12 2 second 14 2") for name in ("dir-leaf1", "dir-leafn", "da-node")),
        _kind("attr-leaf", None, _DA + " count 12 2" + _ATTR_LEAF4),
        _kind("inode", None, _INODE),
    )
}

_MAGIC4 = {
    b"AB3B": "bnobt", b"AB3C": "cntbt", b"IAB3": "inobt", b"FIB3": "finobt", b"RMB3": "rmapbt", b"R3FC": "refcountbt",
    b"BMA3": "bmbt", b"XDB3": "dir-block", b"XDD3": "dir-data", b"XDF3": "dir-free", b"XARM": "attr-remote",
    b"XSLM": "symlink", b"ABTB": "bnobt", b"ABTC": "cntbt", b"IABT": "inobt", b"BMAP": "bmbt", b"XD2B": "dir-block",
    b"XD2D": "dir-data", b"XD2F": "dir-free",
}  # fmt: skip
_MAGIC2 = {
    0x3DF1: "dir-leaf1", 0x3DFF: "dir-leafn", 0x3EBE: "da-node", 0x3BEE: "attr-leaf",
    0xD2F1: "dir-leaf1", 0xD2FF: "dir-leafn", 0xFEBE: "da-node", 0xFBEE: "attr-leaf",
}  # fmt: skip
#: Where V5 blocks keep their own 512-byte address.
_BLKNO5 = {"bmbt": 24, "dir-block": 8, "dir-data": 8, "dir-free": 8, "attr-remote": 40, "symlink": 40}
_AG_TREES = ("bnobt", "cntbt", "inobt", "finobt", "rmapbt", "refcountbt")
#: (bytes of a record, of a node's key) of each B+tree.
RECORDS = {
    "bnobt": (8, 8), "cntbt": (8, 8), "inobt": (16, 4), "finobt": (16, 4), "rmapbt": (24, 40), "refcountbt": (12, 4),
    "bmbt": (16, 8),
}  # fmt: skip
_RECORD_FIELDS = {
    "bnobt": "start 0 4 count 4 4", "cntbt": "start 0 4 count 4 4",
    "inobt": "start 0 4 holemask 4 2 count 6 1 freecount 7 1 free 8 8",
    "finobt": "start 0 4 holemask 4 2 count 6 1 freecount 7 1 free 8 8",
    "rmapbt": "start 0 4 count 4 4 owner 8 8 offset 16 8",
    "refcountbt": "start 0 4 count 4 4 refcount 8 4", "bmbt": "high 0 8 low 8 8",
}  # fmt: skip


class Image:
    """An undamaged image, mapped, with its geometry and its blocks."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as source:
            self.data = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            self.extents = list(_data_ranges(source.fileno(), len(self.data)))
        sb = self.data[:304]
        (self.block_bytes,) = struct.unpack_from(">I", sb, 4)
        self.ag_blocks, self.ag_count = struct.unpack_from(">II", sb, 84)
        self.dblocks, self.root_ino = struct.unpack_from(">Q", sb, 8)[0], struct.unpack_from(">Q", sb, 56)[0]
        self.version = struct.unpack_from(">H", sb, 100)[0] & 15
        self.sector_bytes, self.inode_bytes = struct.unpack_from(">HH", sb, 102)
        self.inode_log, self.inopblog, self.agblklog = sb[122], sb[123], sb[124]
        self.dir_bytes = self.block_bytes << sb[192]
        self.log_offset = self.fsb_offset(struct.unpack_from(">Q", sb, 48)[0])
        self.log_bytes = struct.unpack_from(">I", sb, 96)[0] * self.block_bytes
        self.v5 = self.version == 5
        self.kinds = {**(KINDS5 if self.v5 else KINDS4), "log": _LOG}
        self.uuid = sb[32:48]
        self._classes: list[list[Found]] = []
        self._inode_blocks: set[int] = set()
        self.blocks = list(self._scan())

    def fsb_offset(self, fsb: int) -> int:
        """Byte offset of a filesystem block number."""
        return ((fsb >> self.agblklog) * self.ag_blocks + (fsb & ((1 << self.agblklog) - 1))) * self.block_bytes

    def ino_of(self, offset: int) -> int:
        """The number of the inode at a byte offset."""
        agno, agb = divmod(offset // self.block_bytes, self.ag_blocks)
        index = offset % self.block_bytes >> self.inode_log
        return (agno << self.agblklog | agb) << self.inopblog | index

    def _found(self, kind: str, offset: int, nbytes: int, level: int = 0) -> Found:
        agno, agb = divmod(offset // self.block_bytes, self.ag_blocks)
        return Found(kind, offset, nbytes, agb, agno << self.agblklog | agb, level)

    def _scan(self) -> Iterator[Found]:
        sector, block = self.sector_bytes, self.block_bytes
        for agno in range(self.ag_count):
            start = agno * self.ag_blocks * block
            for index, kind in enumerate(("superblock", "AGF", "AGI", "AGFL")):
                yield self._found(kind, start + index * sector, sector)
        yield from self._log_records()
        for start, end in self.extents:
            for offset in range(start // block * block, end, block):
                if self.log_offset <= offset < self.log_offset + self.log_bytes:
                    continue
                yield from self._at(offset)

    def _log_records(self) -> Iterator[Found]:
        """The first two records of the log, and the last three by their sequence number: where it ends."""
        records = []
        for start, end in self.extents:
            for offset in range(max(start, self.log_offset), min(end, self.log_offset + self.log_bytes), 512):
                if self.data[offset : offset + 4] == b"\xfe\xed\xba\xbe":
                    length, lsn = struct.unpack_from(">IQ", self.data, offset + 12)
                    headers = max(1, -(-struct.unpack_from(">I", self.data, offset + 320)[0] // 32768))
                    records.append((lsn, offset, 512 * headers + -(-length // 512) * 512))
        records.sort()
        for _, offset, nbytes in [*records[:2], *records[2:][-3:]]:
            yield self._found("log", offset, min(nbytes, self.log_offset + self.log_bytes - offset))

    def _at(self, offset: int) -> Iterator[Found]:
        data, block = self.data, self.block_bytes
        head = data[offset : offset + 64]
        if head[:2] == b"IN":
            self._inode_blocks.add(offset)
            for at in range(offset, offset + block, self.inode_bytes):
                if data[at : at + 2] == b"IN" and data[at + 2 : at + 4] != b"\0\0":
                    yield self._found("inode", at, self.inode_bytes)
            return
        kind = _MAGIC4.get(head[:4])
        if kind is None:
            kind = _MAGIC2.get(head[8] << 8 | head[9])
        if kind is None:
            return
        if self.v5:
            place = 16 if kind in _AG_TREES else _BLKNO5.get(kind, 16)
            if int.from_bytes(head[place : place + 8], "big") != offset >> 9:
                return
        nbytes = self.dir_bytes if kind.startswith("dir-") else block
        if kind == "da-node" and self.dir_bytes != block and self._crc_holds(kind, offset, self.dir_bytes):
            nbytes = self.dir_bytes
        level = 0
        if kind in RECORDS:
            level = head[4] << 8 | head[5]
        elif kind == "da-node":
            level = struct.unpack_from(">H", head, 58 if self.v5 else 14)[0]
        yield self._found(kind, offset, nbytes, level)

    def _crc_holds(self, kind: str, offset: int, nbytes: int) -> bool:
        crc = self.kinds[kind].crc
        if crc is None:
            return True
        raw = self.data[offset : offset + nbytes]
        if kind == "log":
            return log_checksum(raw) in (0, int.from_bytes(raw[crc : crc + 4], "little"))
        return checksum(raw, crc) == int.from_bytes(raw[crc : crc + 4], "little")

    def inodes_in(self, start: int, end: int) -> list[int]:
        """Byte offsets of the inodes (in use or not) that a range touches; none where it does not hold inodes."""
        block = self.block_bytes
        found = []
        for base in range(start // block * block, end, block):
            if base in self._inode_blocks:
                found += [
                    at
                    for at in range(base, base + block, self.inode_bytes)
                    if at < end and at + self.inode_bytes > start
                ]
        return found

    def bytes_of(self, found: Found) -> bytes:
        """A block as it is on disk."""
        return self.data[found.offset : found.offset + found.nbytes]

    def sound(self, found: Found) -> bool:
        """Whether its checksum holds: else it is stale, or lies in pieces."""
        return self._crc_holds(found.kind, found.offset, found.nbytes)

    def by_class(self) -> list[list[Found]]:
        """The blocks, a list for each kind: so that a rare kind is hit as often as a common one."""
        if not self._classes:
            kinds: dict[str, list[Found]] = {}
            for found in self.blocks:
                kinds.setdefault(f"{found.kind} {found.level}", []).append(found)
            self._classes = [*kinds.values(), *[kinds["inode 0"]] * 4]
        return self._classes

    # -- fields ------------------------------------------------------------------------------------------------

    def fields(self, found: Found) -> list[Field]:
        """The integers of a block: its header's, and those of its first, middle and last records."""
        kind = self.kinds[found.kind]
        fields = list(kind.fields)
        raw = self.bytes_of(found)
        more = _MORE.get(found.kind)
        if more is not None:
            fields += more(self, found, raw)
        return [field for field in fields if field.offset + field.nbytes <= found.nbytes]


def _data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def checksum(raw: bytes, at: int) -> int:
    """CRC32C with the four bytes at `at` taken as zero."""
    return int(crc32c(raw[at + 4 :], crc32c(b"\0\0\0\0", crc32c(raw[:at]))))


def log_checksum(raw: bytes) -> int:
    """CRC32C of a log record as a 64-bit kernel writes it: the header, and what it says is the data's length."""
    length, size = struct.unpack_from(">I", raw, 12)[0], struct.unpack_from(">I", raw, 320)[0]
    headers = min(16, max(1, -(-size // 32768)))
    crc = crc32c(raw[36:328], crc32c(b"\0\0\0\0", crc32c(raw[:32])))
    for index in range(1, min(headers, -(-length // 32768))):
        crc = crc32c(raw[512 * index : 512 * index + 260], crc)
    return int(crc32c(raw[512 * headers : 512 * headers + length], crc))


def _some(count: int) -> list[int]:
    return sorted({0, 1, count // 2, count - 2, count - 1} & set(range(count)))


def _repeat(text: str, starts: list[int], label: str) -> list[Field]:
    words = text.split()
    return [
        Field(f"{label}{index}.{words[at]}", start + int(words[at + 1]), int(words[at + 2]))
        for index, start in enumerate(starts)
        for at in range(0, len(words), 3)
    ]


def _btree_fields(image: Image, found: Found, raw: bytes) -> list[Field]:
    header = (72 if image.v5 else 24) if found.kind == "bmbt" else (56 if image.v5 else 16)
    record, key = RECORDS[found.kind]
    pointer = 8 if found.kind == "bmbt" else 4
    count = struct.unpack_from(">H", raw, 6)[0]
    if found.level == 0:
        return _repeat(_RECORD_FIELDS[found.kind], [header + index * record for index in _some(count)], "rec")
    most = (found.nbytes - header) // (key + pointer)
    keys = [header + index * key for index in _some(count)]
    pointers = [header + most * key + index * pointer for index in _some(count)]
    word = "key 0 8" if key >= 8 else "key 0 4"
    return _repeat(word, keys, "key") + _repeat(f"block 0 {pointer}", pointers, "ptr")


def _da_fields(image: Image, found: Found, raw: bytes) -> list[Field]:
    start = 64 if image.v5 else 16
    count = struct.unpack_from(">H", raw, 56 if image.v5 else 12)[0]
    fields = _repeat("hash 0 4 value 4 4", [start + 8 * index for index in _some(count)], "entry")
    if found.kind == "dir-leaf1":
        (bests,) = struct.unpack_from(">I", raw, found.nbytes - 4)
        fields.append(Field("bestcount", found.nbytes - 4, 4))
        fields.append(Field("best0", found.nbytes - 4 - 2 * bests, 2))
    return fields


def dir_entries(image: Image, raw: bytes, ftype: bool) -> list[tuple[int, int]]:
    """(offset, length of the name) of each entry of a data block."""
    at = 64 if image.v5 else 16
    end = len(raw)
    if raw[:4] in (b"XDB3", b"XD2B"):
        end -= 8 + 8 * struct.unpack_from(">I", raw, end - 8)[0]
    found = []
    while at + 16 <= end:
        if raw[at : at + 2] == b"\xff\xff":
            at += max(8, struct.unpack_from(">H", raw, at + 2)[0])
            continue
        found.append((at, raw[at + 8]))
        at += (8 + 1 + raw[at + 8] + ftype + 2 + 7) & ~7
    return found


def _dir_fields(image: Image, found: Found, raw: bytes) -> list[Field]:
    ftype = image.v5 or bool(struct.unpack_from(">I", image.data, 200)[0] & 0x200)
    entries = dir_entries(image, raw, ftype)
    fields = []
    for index in _some(len(entries)):
        at, length = entries[index]
        end = at + ((8 + 1 + length + ftype + 2 + 7) & ~7)
        fields += _repeat(f"ino 0 8 namelen 8 1 name 9 1 tag {end - at - 2} 2", [at], f"entry{index}-")
        if ftype:
            fields.append(Field(f"entry{index}.ftype", at + 9 + length, 1))
    at = 64 if image.v5 else 16
    for index in range(2):  # the first two free pieces
        at = raw.find(b"\xff\xff", at)
        if at < 0:
            break
        if at % 8 == 0:
            fields += _repeat("length 2 2", [at], f"free{index}-")
        at += 8
    if found.kind == "dir-block":
        end = found.nbytes
        (count,) = struct.unpack_from(">I", raw, end - 8)
        fields += _repeat("count 0 4 stale 4 4", [end - 8], "tail")
        fields += _repeat("hash 0 4 address 4 4", [end - 8 - 8 * (count - index) for index in _some(count)], "leaf")
    return fields


def _free_fields(image: Image, found: Found, raw: bytes) -> list[Field]:
    return _repeat("best 0 2", [64 if image.v5 else 16], "free")


def _attr_fields(image: Image, found: Found, raw: bytes) -> list[Field]:
    start = 80 if image.v5 else 32
    count = struct.unpack_from(">H", raw, 56 if image.v5 else 12)[0]
    fields = []
    for index in _some(count):
        at = start + 8 * index
        nameidx, flags = struct.unpack_from(">HB", raw, at + 4)
        fields += _repeat("hash 0 4 nameidx 4 2 flags 6 1", [at], f"entry{index}-")
        if flags & 1:
            fields += _repeat("valuelen 0 2 namelen 2 1", [nameidx], f"local{index}-")
        else:
            fields += _repeat("valueblk 0 4 valuelen 4 4 namelen 8 1", [nameidx], f"remote{index}-")
    return fields


def _inode_fields(image: Image, found: Found, raw: bytes) -> list[Field]:
    core = 176 if image.v5 else 100
    forkoff, form, aform = raw[82] << 3, raw[5], raw[83]
    fields = _fork_fields(
        image, raw, core, forkoff or len(raw) - core, form, struct.unpack_from(">I", raw, 76)[0], "data"
    )
    if forkoff:
        start = core + forkoff
        if aform == 1:
            fields += _repeat("totsize 0 2 count 2 1", [start], "attr-")
            at = start + 4
            for index in range(min(3, raw[start + 2])):
                fields += _repeat("namelen 0 1 valuelen 1 1 flags 2 1 name 3 1", [at], f"attr-entry{index}-")
                at += 3 + raw[at] + raw[at + 1]
        else:
            fields += _fork_fields(
                image, raw, start, len(raw) - start, aform, struct.unpack_from(">H", raw, 80)[0], "attr"
            )
    return fields


def _fork_fields(image: Image, raw: bytes, start: int, room: int, form: int, nextents: int, label: str) -> list[Field]:
    if form == 0:
        return [Field("rdev", start, 4)]
    if form == 2:
        most = min(room // 16, max(nextents, struct.unpack_from(">I", raw, 28)[0] if image.v5 else 0, 1))
        return _repeat("high 0 8 low 8 8", [start + 16 * index for index in _some(most)], f"{label}-extent")
    if form == 3:
        most = (room - 4) // 16
        (count,) = struct.unpack_from(">H", raw, start + 2)
        fields = _repeat("level 0 2 numrecs 2 2", [start], f"{label}-root-")
        fields += _repeat("key 0 8", [start + 4 + 8 * index for index in _some(count)], f"{label}-key")
        return fields + _repeat("block 0 8", [start + 4 + 8 * (most + index) for index in _some(count)], f"{label}-ptr")
    if form == 1 and raw[2] >> 4 == 4:
        wide = 8 if raw[start + 1] else 4
        fields = _repeat(f"count 0 1 i8count 1 1 parent 2 {wide}", [start], "sf-")
        ftype = image.v5 or bool(struct.unpack_from(">I", image.data, 200)[0] & 0x200)
        at = start + 2 + wide
        for index in range(min(4, raw[start])):
            length = raw[at]
            ino = 3 + length + ftype
            fields += _repeat(f"namelen 0 1 offset 1 2 name 3 1 ino {ino} {wide}", [at], f"sf-entry{index}-")
            if ftype:
                fields.append(Field(f"sf-entry{index}.ftype", at + 3 + length, 1))
            at += ino + wide
        return fields
    return [Field(f"{label}-local", start, 8)]


_MORE = {
    **dict.fromkeys(RECORDS, _btree_fields),
    **dict.fromkeys(("dir-leaf1", "dir-leafn", "da-node"), _da_fields),
    **dict.fromkeys(("dir-block", "dir-data"), _dir_fields),
    "dir-free": _free_fields, "attr-leaf": _attr_fields, "inode": _inode_fields,
}  # fmt: skip
