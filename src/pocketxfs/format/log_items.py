"""What log records carry: transactions of items, each a format structure and regions (kernel: xfs_log_format.h).

All of it stands in the byte order of the machine that wrote it, and some in the padding of 32-bit x86: `abi(fmt)` gives
the structs for a record's `h_fmt`, and lengths tell the paddings apart.  Inodes are logged as the kernel holds them,
in fields of the same names and lengths as on the disk.  Buffers, dquots and forks are logged as they are there.
"""

from __future__ import annotations

from struct import Struct, error
from typing import Any, Literal, NamedTuple

from ..errors import Corrupt
from .log import FMT_LINUX_BE

TRANS_HEADER_MAGIC = 0x5452414E  # "TRAN"
TRANS_HEADER_BYTES = 16
#: More regions than this cannot make up an item (XLOG_MAX_REGIONS_IN_ITEM).
MAX_REGIONS = 65536 // 128 // 2 + 1
#: Nor more bytes: the largest buffer, or the largest attribute with its name, and some.
MAX_ITEM_BYTES = 1 << 20
#: Extents of one intent; the kernel puts 16 at most into one.
MAX_EXTENTS = 4096

LI_EFI, LI_EFD, LI_IUNLINK = 0x1236, 0x1237, 0x1238
LI_INODE, LI_BUF, LI_DQUOT, LI_QUOTAOFF, LI_ICREATE = 0x123B, 0x123C, 0x123D, 0x123E, 0x123F
LI_RUI, LI_RUD, LI_CUI, LI_CUD, LI_BUI, LI_BUD = 0x1240, 0x1241, 0x1242, 0x1243, 0x1244, 0x1245
LI_ATTRI, LI_ATTRD, LI_XMI, LI_XMD = 0x1246, 0x1247, 0x1248, 0x1249
LI_EFI_RT, LI_EFD_RT, LI_RUI_RT, LI_RUD_RT, LI_CUI_RT, LI_CUD_RT = 0x124A, 0x124B, 0x124C, 0x124D, 0x124E, 0x124F

ITEM_NAMES = {
    LI_EFI: "EFI", LI_EFD: "EFD", LI_IUNLINK: "IUNLINK", LI_INODE: "INODE", LI_BUF: "BUF", LI_DQUOT: "DQUOT",
    LI_QUOTAOFF: "QUOTAOFF", LI_ICREATE: "ICREATE", LI_RUI: "RUI", LI_RUD: "RUD", LI_CUI: "CUI", LI_CUD: "CUD",
    LI_BUI: "BUI", LI_BUD: "BUD", LI_ATTRI: "ATTRI", LI_ATTRD: "ATTRD", LI_XMI: "XMI", LI_XMD: "XMD",
    LI_EFI_RT: "EFI_RT", LI_EFD_RT: "EFD_RT", LI_RUI_RT: "RUI_RT", LI_RUD_RT: "RUD_RT", LI_CUI_RT: "CUI_RT",
    LI_CUD_RT: "CUD_RT",
}  # fmt: skip
#: intent -> its done item
DONE_OF = {
    LI_EFI: LI_EFD, LI_RUI: LI_RUD, LI_CUI: LI_CUD, LI_BUI: LI_BUD, LI_ATTRI: LI_ATTRD, LI_XMI: LI_XMD,
    LI_EFI_RT: LI_EFD_RT, LI_RUI_RT: LI_RUD_RT, LI_CUI_RT: LI_CUD_RT,
}  # fmt: skip
INTENT_OF = {done: intent for intent, done in DONE_OF.items()}

# blf_flags
BLF_INODE_BUF = 1 << 0
BLF_CANCEL = 1 << 1
BLF_UDQUOT_BUF = 1 << 2
BLF_PDQUOT_BUF = 1 << 3
BLF_GDQUOT_BUF = 1 << 4
BLF_DQUOT_BUF = BLF_UDQUOT_BUF | BLF_PDQUOT_BUF | BLF_GDQUOT_BUF
BLF_CHUNK = 128
BLF_SHIFT = 7
BLFT_SHIFT = 11
(
    BLFT_UNKNOWN, BLFT_UDQUOT, BLFT_PDQUOT, BLFT_GDQUOT, BLFT_BTREE, BLFT_AGF, BLFT_AGFL, BLFT_AGI, BLFT_DINO,
    BLFT_SYMLINK, BLFT_DIR_BLOCK, BLFT_DIR_DATA, BLFT_DIR_FREE, BLFT_DIR_LEAF1, BLFT_DIR_LEAFN, BLFT_DA_NODE,
    BLFT_ATTR_LEAF, BLFT_ATTR_RMT, BLFT_SB, BLFT_RTBITMAP, BLFT_RTSUMMARY,
) = range(21)  # fmt: skip
BLFT_NAMES = (
    "unknown", "user dquots", "project dquots", "group dquots", "btree", "AGF", "AGFL", "AGI", "inodes", "symlink",
    "directory block", "directory data", "directory free index", "directory leaf", "directory leafn", "da node",
    "attribute leaf", "attribute value", "superblock", "realtime bitmap", "realtime summary",
)  # fmt: skip

# ilf_fields
ILOG_CORE = 0x001
ILOG_DDATA, ILOG_DEXT, ILOG_DBROOT = 0x002, 0x004, 0x008
ILOG_DEV, ILOG_UUID = 0x010, 0x020
ILOG_ADATA, ILOG_AEXT, ILOG_ABROOT = 0x040, 0x080, 0x100
ILOG_DOWNER, ILOG_AOWNER = 0x200, 0x400
ILOG_DFORK = ILOG_DDATA | ILOG_DEXT | ILOG_DBROOT
ILOG_AFORK = ILOG_ADATA | ILOG_AEXT | ILOG_ABROOT
#: What nearly no item has: more than the core and forks that lie in the inode.
ILOG_UNUSUAL = ILOG_DBROOT | ILOG_DEV | ILOG_UUID | ILOG_ABROOT | ILOG_DOWNER | ILOG_AOWNER

# qf_flags
UQUOTA_ACCT, PQUOTA_ACCT, GQUOTA_ACCT = 0x1, 0x8, 0x40
# d_flags
DQ_USER, DQ_PROJ, DQ_GROUP = 1, 2, 4
DQUOT_MAGIC = 0x4451  # "DQ"
DISK_DQUOT_BYTES = 104
DQBLK_BYTES = 136
DQBLK_CRC_OFFSET, DQBLK_LSN_OFFSET = 108, 112

#: Operations of attribute intents from this one on are on parent pointers.
ATTRI_PARENT = 4

#: The largest flush counter of a V4 inode before it starts again.
DI_MAX_FLUSH = 0xFFFF

#: icl_ag icl_agbno icl_count icl_isize icl_length icl_gen: big-endian on every machine
ICREATE = Struct(">4xIIIIII")
ICREATE_BYTES = 28
assert ICREATE.size == ICREATE_BYTES


class BufFormat(NamedTuple):
    """struct xfs_buf_log_format; `bits` is its map of 128-byte chunks as one number, chunk 0 lowest."""

    flags: int
    nblocks: int
    daddr: int
    bits: int


#: struct xfs_inode_log_format: size fields asize dsize ino rdev daddr nblocks boffset
InodeFormat = tuple[int, int, int, int, int, int, int, int, int]


class DquotFormat(NamedTuple):
    """struct xfs_dq_logformat.  `nblocks` in filesystem blocks."""

    id: int
    daddr: int
    nblocks: int
    boffset: int


class Abi:
    """The structs of log items in one byte order, and what is decoded with them."""

    __slots__ = (
        "_dquot", "_efi", "_extent32", "_extent64", "_ilf", "_ilf32", "_map", "_phys", "_xmi", "_attri", "big",
        "buf_head", "dinodes", "done", "flags2_at", "order", "pair", "quotaoff", "trans_header",
        "usual_inode", "word",
    )  # fmt: skip

    def __init__(self, order: str) -> None:
        self.order: Literal["little", "big"] = "little" if order == "<" else "big"
        self.big = order == ">"
        #: type and number of regions: what every item begins with
        self.pair = Struct(order + "HH")
        self.word = Struct(order + "I")
        #: th_magic th_type th_tid th_num_items
        self.trans_header = Struct(order + "IIII")
        #: blf_flags blf_len blf_blkno blf_map_size
        self.buf_head = Struct(order + "4xHHqI")
        ilf, ilf32 = Struct(order + "2xHIHH4xQI12xqii"), Struct(order + "2xHIHHQI12xqii")
        self._ilf = ilf.unpack_from
        self._ilf32 = ilf32.unpack_from
        self._dquot = Struct(order + "4xIqiI")
        self.quotaoff = Struct(order + "4xI")
        self._efi = Struct(order + "4xIQ")
        self._extent32 = Struct(order + "QI")
        self._extent64 = Struct(order + "QI4x")
        self._map = Struct(order + "QQQII")
        self._phys = Struct(order + "QII")
        self._xmi = Struct(order + "8xQQQIIQQQQQQ")
        self._attri = Struct(order + "4xIQQIIII")
        #: what done items say: the intent's id
        self.done = Struct(order + "8xQ")
        #: where the byte of flags2 stands in a logged core that has bigtime and nrext64 in it
        self.flags2_at = 127 if self.big else 120
        #: without bigtime, with it
        self.dinodes = (_dinode(order, False), _dinode(order, True))
        self.usual_inode = _usual_inode(order)
        assert (ilf.size, ilf32.size, self.buf_head.size) == (56, 52, 20)
        assert (self._xmi.size, self._attri.size) == (88, 40)

    def buf(self, region: bytes | bytearray | memoryview, where: str) -> BufFormat:
        """Decode the first region of a buffer item."""
        try:
            flags, nblocks, daddr, words = self.buf_head.unpack_from(region)
        except error:
            raise Corrupt("buffer log item", where, "length", "at least 20", len(region)) from None
        raw = region[20 : 20 + 4 * words]
        if len(raw) != 4 * words:
            raise Corrupt("buffer log item", where, "blf_map_size", f"at most {(len(region) - 20) // 4}", words)
        if self.big:
            bits = 0
            for index in range(words - 1, -1, -1):
                bits = bits << 32 | int.from_bytes(raw[4 * index : 4 * index + 4], "big")
        else:
            bits = int.from_bytes(raw, "little")
        return BufFormat(flags, nblocks, daddr, bits)

    def inode(self, region: bytes | bytearray | memoryview, where: str) -> InodeFormat:
        """Decode the first region of an inode item, in a 64-bit or an i386 kernel's padding."""
        if len(region) >= 56:
            return self._ilf(region)
        if len(region) >= 52:
            return self._ilf32(region)
        raise Corrupt("inode log item", where, "length", "56, or 52 from a 32-bit kernel", len(region))

    def dquot(self, region: bytes | bytearray | memoryview, where: str) -> DquotFormat:
        """Decode the first region of a dquot item."""
        if len(region) < 24:
            raise Corrupt("dquot log item", where, "length", 24, len(region))
        return DquotFormat(*self._dquot.unpack_from(region))

    def intent_id(self, region: bytes | bytearray | memoryview, where: str) -> int:
        """The id of an intent, or the id that a done item names: both stand at 8."""
        if len(region) < 16:
            raise Corrupt("intent log item", where, "length", "at least 16", len(region))
        ident: int = self.done.unpack_from(region)[0]
        return ident

    def extents(self, region: bytes | bytearray | memoryview, where: str) -> list[tuple[int, int]]:
        """(start block, blocks) of an extent-free intent, in a 64-bit or an i386 kernel's padding."""
        count, _ = self._efi.unpack_from(region)
        if count > MAX_EXTENTS:
            raise Corrupt("extent free log item", where, "extents", f"at most {MAX_EXTENTS}", count)
        rest = memoryview(region)[16:]
        for layout in (self._extent64, self._extent32):
            if len(rest) == count * layout.size:
                return [layout.unpack_from(rest, index * layout.size) for index in range(count)]
        raise Corrupt("extent free log item", where, "length", f"that of {count} extents", len(region))

    def maps(self, region: bytes | bytearray | memoryview, where: str) -> list[tuple[int, int, int, int, int]]:
        """(owner, start block, file offset, blocks, flags) of an rmap or bmap intent."""
        return self._array(self._map, region, where)  # type: ignore[return-value]

    def phys(self, region: bytes | bytearray | memoryview, where: str) -> list[tuple[int, int, int]]:
        """(start block, blocks, flags) of a refcount intent."""
        return self._array(self._phys, region, where)  # type: ignore[return-value]

    def _array(self, layout: Struct, region: bytes | bytearray | memoryview, where: str) -> list[tuple[int, ...]]:
        count, _ = self._efi.unpack_from(region)
        if count > MAX_EXTENTS:
            raise Corrupt("intent log item", where, "extents", f"at most {MAX_EXTENTS}", count)
        if len(region) != 16 + count * layout.size:
            raise Corrupt("intent log item", where, "length", f"that of {count} extents", len(region))
        return [layout.unpack_from(region, 16 + index * layout.size) for index in range(count)]

    def xmi(self, region: bytes | bytearray | memoryview, where: str) -> tuple[int, ...]:
        """(id, inode 1, inode 2, gen 1, gen 2, offset 1, offset 2, blocks, flags, size 1, size 2)."""
        if len(region) < self._xmi.size:
            raise Corrupt("exchange log item", where, "length", self._xmi.size, len(region))
        return self._xmi.unpack_from(region)

    def attri(self, region: bytes | bytearray | memoryview, where: str) -> tuple[int, ...]:
        """(generation, id, inode, operation, name length, new name length, value length, filter).

        The two lengths are one 32-bit number, but for parent pointers, which change one name into another.
        """
        if len(region) < self._attri.size:
            raise Corrupt("attribute log item", where, "length", self._attri.size, len(region))
        generation, ident, ino, operation, length, value, within = self._attri.unpack_from(region)
        length, new = self.pair.unpack_from(region, 28) if operation & 0xFF >= ATTRI_PARENT else (length, 0)
        return generation, ident, ino, operation, length, new, value, within


# magic mode version format metatype uid gid nlink projid_lo projid_hi big_nextents(v2: pad, flushiter)
# | three times | size nblocks extsize nextents(big_anextents) anextents(pad) forkoff aformat dmevmask dmstate flags gen
_CORE_1, _CORE_2 = "HHBBHIIIHHQ", "QQIIHBBIHHI"
_OLD_TIMES, _BIG_TIMES = "IIIIII", "QQQ"
# [next_unlinked crc] changecount [lsn] flags2 cowextsize pad | crtime | ino uuid
_TAIL_1, _TAIL_2 = "8xQ8xQI12x", "Q16s"
DINODE2_BYTES, DINODE3_BYTES = 96, 176


class Dinode(NamedTuple):
    """One shape of an inode's core in one byte order: V4's; and V5's, without unlinked pointer, CRC and LSN."""

    core: Struct
    whole: Struct
    #: place among the values of what comes behind the times
    size_at: int


def _dinode(order: str, bigtime: bool) -> Dinode:
    times = _BIG_TIMES if bigtime else _OLD_TIMES
    core = Struct(order + _CORE_1 + times + _CORE_2)
    whole = Struct(order + _CORE_1 + times + _CORE_2 + _TAIL_1 + ("Q" if bigtime else "II") + _TAIL_2)
    assert (core.size, whole.size) == (DINODE2_BYTES, DINODE3_BYTES)
    return Dinode(core, whole, len(_CORE_1) + len(times))


#: An inode as it is on the disk, without bigtime and with it.
DISK = (_dinode(">", False), _dinode(">", True))


class UsualInode(NamedTuple):
    """An inode item as nearly all are, taken up to its forks as one piece of 256 bytes.

    From a 64-bit kernel, on V5, region after region: operation header, format, operation header, core.  The headers,
    always big-endian, are read in the same order as the rest: they are asked for equality only.  Bytes change places
    with `bytes.translate`, which takes the piece as its table.
    """

    #: oh_tid ilf_size ilf_fields ilf_blkno ilf_len ilf_boffset | oh_tid mode format | big_nextents nblocks
    #: nextents(big_anextents) anextents(pad) forkoff flags2
    values: Any
    #: what `USUAL_MARKS.translate(piece)` must give
    marks: bytes
    #: the core as it is on the disk is `cores[bigtime].translate(piece)`, with zeros for what stands on the disk only
    cores: tuple[bytes, bytes]


USUAL_INODE_BYTES = 256
_CORE_AT = USUAL_INODE_BYTES - DINODE3_BYTES
#: oh_len and oh_len, magic, version
USUAL_MARKS = bytes((*range(4, 8), *range(72, 76), _CORE_AT, _CORE_AT + 1, _CORE_AT + 4))
#: a byte that the marks make zero
_ZERO_AT = 4


def _usual_inode(order: str) -> UsualInode:
    values = Struct(order + "I10xHI32xqiiI10xHxB18xQ32xQ4xIHB37xQ")
    cores = []
    for logged, disk in zip((_dinode(order, False), _dinode(order, True)), DISK, strict=True):
        # numbered bytes, from 1 on, put where they go: those that stay 0 come from nowhere
        places = disk.whole.pack(*logged.whole.unpack(bytes(range(1, DINODE3_BYTES + 1))))
        cores.append(bytes(_CORE_AT + place - 1 if place else _ZERO_AT for place in places))
    marks = (56).to_bytes(4, "big") + DINODE3_BYTES.to_bytes(4, "big") + (b"IN" if order == ">" else b"NI") + b"\3"
    return UsualInode(values.unpack_from, marks, (cores[0], cores[1]))


_abis: dict[bool, Abi] = {}


def abi(fmt: int) -> Abi:
    """The structs for a record's `h_fmt`."""
    big = fmt == FMT_LINUX_BE
    found = _abis.get(big)
    if found is None:
        found = _abis[big] = Abi(">" if big else "<")
    return found


#: The fields of a logged core.  Times are one or two fields each: what follows stands from `Dinode.size_at` on.
Core = tuple[Any, ...]
