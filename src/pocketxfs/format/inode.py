"""The inode: core, forks, times, extent records (format document: "On-disk Inode"; kernel: struct xfs_dinode).

Hot: a walk with a stat of each entry decodes one of these an entry, so one struct takes a whole core, `decode_core`
judges it, and `stat_result` needs no more than its tuple; `inode/incore.py` spreads it over an in-core inode's slots.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Any, NoReturn

from ..errors import Corrupt
from .crc import crc32c
from .geometry import Geometry

DINODE_MAGIC = 0x494E  # "IN"

# di_format
FMT_DEV, FMT_LOCAL, FMT_EXTENTS, FMT_BTREE, FMT_UUID, FMT_META_BTREE = range(6)
FMT_NAMES = ("dev", "local", "extents", "btree", "uuid", "meta-btree")

# di_flags
DIFLAG_REALTIME = 1 << 0
DIFLAG_PREALLOC = 1 << 1
DIFLAG_NEWRTBM = 1 << 2
DIFLAG_IMMUTABLE = 1 << 3
DIFLAG_APPEND = 1 << 4
DIFLAG_SYNC = 1 << 5
DIFLAG_NOATIME = 1 << 6
DIFLAG_NODUMP = 1 << 7
DIFLAG_RTINHERIT = 1 << 8
DIFLAG_PROJINHERIT = 1 << 9
DIFLAG_NOSYMLINKS = 1 << 10
DIFLAG_EXTSIZE = 1 << 11
DIFLAG_EXTSZINHERIT = 1 << 12
DIFLAG_NODEFRAG = 1 << 13
DIFLAG_FILESTREAM = 1 << 14

# di_flags2
DIFLAG2_DAX = 1 << 0
DIFLAG2_REFLINK = 1 << 1
DIFLAG2_COWEXTSIZE = 1 << 2
DIFLAG2_BIGTIME = 1 << 3
DIFLAG2_NREXT64 = 1 << 4
DIFLAG2_METADATA = 1 << 5

FLAG_NAMES = {
    DIFLAG_REALTIME: "realtime", DIFLAG_PREALLOC: "prealloc", DIFLAG_NEWRTBM: "newrtbm",
    DIFLAG_IMMUTABLE: "immutable", DIFLAG_APPEND: "append-only", DIFLAG_SYNC: "sync", DIFLAG_NOATIME: "no-atime",
    DIFLAG_NODUMP: "no-dump", DIFLAG_RTINHERIT: "rt-inherit", DIFLAG_PROJINHERIT: "proj-inherit",
    DIFLAG_NOSYMLINKS: "nosymlinks", DIFLAG_EXTSIZE: "extsize", DIFLAG_EXTSZINHERIT: "extsz-inherit",
    DIFLAG_NODEFRAG: "no-defrag", DIFLAG_FILESTREAM: "filestream",
}  # fmt: skip
FLAG2_NAMES = {
    DIFLAG2_DAX: "dax", DIFLAG2_REFLINK: "reflink", DIFLAG2_COWEXTSIZE: "cowextsize", DIFLAG2_BIGTIME: "bigtime",
    DIFLAG2_NREXT64: "nrext64", DIFLAG2_METADATA: "metadata",
}  # fmt: skip

#: magic mode version format onlink uid gid nlink projid_lo projid_hi big_nextents(v3) atime mtime ctime size nblocks
#: extsize nextents anextents forkoff aformat dmevmask dmstate flags gen next_unlinked
#: [v3:] crc changecount lsn flags2 cowextsize pad crtime ino uuid
CORE2 = Struct(">HHBBHIIIHHQQQQQQIIHBBIHHII")
CORE3 = Struct(">HHBBHIIIHHQQQQQQIIHBBIHHIIIQQQI12xQQ16s")
assert (CORE2.size, CORE3.size) == (100, 176)
CRC_OFFSET = 100
NEXT_UNLINKED_OFFSET = 96
LSN_OFFSET = 112

#: One bmbt record, as in a fork of extents and in a leaf of its B+tree.
EXTENT = Struct(">QQ")
EXTENT_BYTES = 16
_BLOCKCOUNT_MASK = (1 << 21) - 1

#: Seconds between the epoch of bigtime and 1970, in ns.
BIGTIME_EPOCH_NS = (1 << 31) * 1_000_000_000
NS = 1_000_000_000

#: (file block, start block, blocks, unwritten)
Extent = tuple[int, int, int, bool]


def time_ns(raw: int, bigtime: bool) -> int:
    """Nanoseconds since 1970 of a 64-bit on-disk timestamp."""
    if bigtime:
        return raw - BIGTIME_EPOCH_NS
    seconds = raw >> 32
    if seconds & 0x80000000:
        seconds -= 1 << 32
    return seconds * NS + (raw & 0xFFFFFFFF)


def decode_extents(data: bytes | memoryview) -> list[Extent]:
    """Bulk decode of packed bmbt records."""
    return [
        (hi >> 9 & 0x3FFFFFFFFFFFFF, (hi & 0x1FF) << 43 | lo >> 21, lo & _BLOCKCOUNT_MASK, hi >> 63 == 1)
        for hi, lo in EXTENT.iter_unpack(data)
    ]


def check_extents(extents: list[Extent], geo: Geometry, realtime: bool, where: str) -> None:
    """Every extent on the device, none empty, in order and not overlapping; `Corrupt` otherwise."""
    end = -1
    valid = geo.rtb_valid if realtime else geo.fsb_valid
    for offset, start, count, _ in extents:
        if offset < end:
            raise Corrupt("extent", where, "order", f"file block at least {end}", offset)
        if not valid(start, count):
            raise Corrupt("extent", where, "place", "blocks on the device", f"{start:#x}+{count}")
        end = offset + count


# -- judgement: xfs_dinode_verify ------------------------------------------------------------------------------

S_IFMT = 0o170000
S_IFREG, S_IFDIR, S_IFLNK = 0o100000, 0o040000, 0o120000
S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK = 0o020000, 0o060000, 0o010000, 0o140000
TYPES = frozenset((S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK))
_FORMATS = {
    S_IFREG: (FMT_EXTENTS, FMT_BTREE, FMT_META_BTREE),
    S_IFDIR: (FMT_LOCAL, FMT_EXTENTS, FMT_BTREE),
    S_IFLNK: (FMT_LOCAL, FMT_EXTENTS, FMT_BTREE),
    S_IFCHR: (FMT_DEV,),
    S_IFBLK: (FMT_DEV,),
    S_IFIFO: (FMT_DEV,),
    S_IFSOCK: (FMT_DEV,),
}
#: type << 8 | format of every pair that may be
_TYPE_FORMATS = frozenset(kind >> 12 << 8 | form for kind, forms in _FORMATS.items() for form in forms)
_NEEDS_SIZE = frozenset((S_IFDIR >> 12, S_IFLNK >> 12))
_ZERO4 = b"\0\0\0\0"
#: More blocks than the largest filesystem has; in 512-byte sectors they still fit 63 bits.
MAX_NBLOCKS = 1 << 55

#: What `decode_core` gives: the fields of CORE3 (of CORE2 padded with zeros), in their order.
Core = tuple[Any, ...]
_V2_TAIL = (0, 0, 0, 0, 0, 0, 0, b"")


def decode_core(geo: Geometry, ino: int, raw: memoryview | bytes) -> Core:
    """Unpack an inode's core and judge it: magic, version, CRC, own number, UUID, type, sizes, forks.

    Raises `Corrupt`.  The usual file passes in a handful of comparisons; names are found only for what fails.
    """
    if geo.has_crc:
        core = CORE3.unpack_from(raw)
        (
            magic, mode, version, form, _, _, _, _, _, _, big, _, _, _, size, nblocks, _, nextents, anextents, forkoff,
            aformat, _, _, _, _, _, crc, _, _, flags2, _, _, own, uuid,
        ) = core  # fmt: skip
        if magic != DINODE_MAGIC or version != 3:
            _refuse_magic(ino, mode, magic, version, "3")
        found = crc32c(raw[104:], crc32c(_ZERO4, crc32c(raw[:100])))
        if found != (crc >> 24 | crc >> 8 & 0xFF00 | (crc & 0xFF00) << 8 | (crc & 0xFF) << 24):
            raise Corrupt("inode", f"inode {ino}", "di_crc", int.from_bytes(crc.to_bytes(4, "little"), "big"), found)
        if own != ino:
            raise Corrupt("inode", f"inode {ino}", "di_ino", ino, own)
        if uuid != geo.meta_uuid:
            raise Corrupt("inode", f"inode {ino}", "di_uuid", geo.meta_uuid.hex(), uuid.hex())
        if flags2 & 16:
            anextents, nextents = nextents, big
    else:
        core = CORE2.unpack_from(raw) + _V2_TAIL
        magic, mode, version, form = core[:4]
        size, nblocks, _, nextents, anextents, forkoff, aformat = core[14:21]
        if magic != DINODE_MAGIC or version not in (1, 2):
            _refuse_magic(ino, mode, magic, version, "1 or 2")
    kind = mode >> 12
    if (kind << 8 | form) not in _TYPE_FORMATS:
        _refuse_format(ino, mode, form)
    if size >> 63 or (size == 0 and kind in _NEEDS_SIZE):
        raise Corrupt("inode", f"inode {ino}", "di_size", "1 to 2^63 - 1", size)
    if not nextents + anextents <= nblocks < MAX_NBLOCKS:
        if nblocks >= MAX_NBLOCKS:
            raise Corrupt("inode", f"inode {ino}", "di_nblocks", f"below {MAX_NBLOCKS:#x}", nblocks)
        if form != FMT_META_BTREE:
            raise Corrupt("inode", f"inode {ino}", "di_nextents", f"at most {nblocks}", nextents + anextents)
    room = geo.literal_bytes
    if forkoff:
        attr_bytes = room - (forkoff << 3)
        if attr_bytes <= 0:
            raise Corrupt("inode", f"inode {ino}", "di_forkoff", f"below {room >> 3}", forkoff)
        if aformat == FMT_EXTENTS:
            if anextents << 4 > attr_bytes:
                raise Corrupt("inode", f"inode {ino}", "di_anextents", f"at most {attr_bytes >> 4}", anextents)
        elif aformat != FMT_LOCAL and aformat != FMT_BTREE:
            raise Corrupt("inode", f"inode {ino}", "di_aformat", "local, extents or btree", aformat)
        room = forkoff << 3
    elif anextents:
        raise Corrupt("inode", f"inode {ino}", "di_anextents", 0, anextents)
    if form == FMT_EXTENTS:
        if nextents << 4 > room:
            raise Corrupt("inode", f"inode {ino}", "di_nextents", f"at most {room >> 4}", nextents)
    elif form == FMT_LOCAL and size > room:
        raise Corrupt("inode", f"inode {ino}", "di_size", f"at most {room} in the inode", size)
    return core


def _refuse_magic(ino: int, mode: int, magic: int, version: int, wanted: str) -> NoReturn:
    raise Corrupt("inode", f"inode {ino}", "magic and version", f"IN, {wanted}", f"{magic:#x}, {version}")


def _refuse_format(ino: int, mode: int, form: int) -> NoReturn:
    kind = mode & S_IFMT
    if mode == 0:
        raise Corrupt("inode", f"inode {ino}", "di_mode", "an inode in use", "a free one")
    if kind not in TYPES:
        raise Corrupt("inode", f"inode {ino}", "di_mode", "a known file type", oct(mode))
    raise Corrupt("inode", f"inode {ino}", "di_format", f"one for {oct(kind)}", form)


# -- stat ------------------------------------------------------------------------------------------------------

LINUX_STAT = getattr(os.stat_result, "n_fields", 0) == 19
_STAT_NAMES = ("st_atime", "st_mtime", "st_ctime", "st_atime_ns", "st_mtime_ns", "st_ctime_ns")


def stat_result(geo: Geometry, ino: int, core: Core, device: bytes) -> os.stat_result:
    """What `os.lstat` says of an inode under Linux; `st_dev` is 0.  `device`: the data fork of a device node."""
    (
        _, mode, version, _, onlink, uid, gid, nlink, _, _, _, atime, mtime, ctime, size, nblocks, extsize,
        _, _, _, _, _, _, flags, _, _, _, _, _, flags2, _, _, _, _,
    ) = core  # fmt: skip
    if flags2 & 8:
        mtime -= BIGTIME_EPOCH_NS
        m_s = mtime // 1000000000
        m_f = m_s + 1e-9 * (mtime - m_s * 1000000000)
        ctime -= BIGTIME_EPOCH_NS
        if ctime == mtime:
            c_s, c_f = m_s, m_f
        else:
            c_s = ctime // 1000000000
            c_f = c_s + 1e-9 * (ctime - c_s * 1000000000)
        atime -= BIGTIME_EPOCH_NS
        if atime == mtime:
            a_s, a_f = m_s, m_f
        else:
            a_s = atime // 1000000000
            a_f = a_s + 1e-9 * (atime - a_s * 1000000000)
    else:
        atime, mtime, ctime = time_ns(atime, False), time_ns(mtime, False), time_ns(ctime, False)
        a_s, m_s, c_s = atime // NS, mtime // NS, ctime // NS
        a_f, m_f, c_f = a_s + 1e-9 * (atime % NS), m_s + 1e-9 * (mtime % NS), c_s + 1e-9 * (ctime % NS)
    rdev = 0
    kind = mode & S_IFMT
    blksize = geo.stat_blksize
    if kind == S_IFREG:
        if flags & DIFLAG_REALTIME:
            hint = extsize if flags & DIFLAG_EXTSIZE and extsize else geo.rext_blocks
            blksize = max(1, hint) << geo.block_log
    elif kind in (S_IFCHR, S_IFBLK):
        raw = int.from_bytes(device[:4], "big")
        rdev = os.makedev(raw >> 18 & 0x3FFF, raw & 0x3FFFF)
    if version == 1:
        nlink = onlink
    fields = (
        mode, ino, 0, nlink, uid, gid, size, a_s, m_s, c_s, a_f, m_f, c_f, atime, mtime, ctime, blksize,
        nblocks << geo.block_sectors_log, rdev,
    )  # fmt: skip
    if LINUX_STAT:
        return os.stat_result(fields)
    more: dict[str, Any] = dict(zip(_STAT_NAMES, fields[10:16], strict=True))
    more.update(st_blksize=blksize, st_blocks=fields[17], st_rdev=rdev)
    return os.stat_result(fields[:10], more)
