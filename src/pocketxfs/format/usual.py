"""Shortcuts past `format.inode.decode_core` for what most inodes are, for walks that meet them by the ten thousand.

The usual inode: V3, a regular file or directory with its extents in the inode, bigtime, not realtime, no attributes or
short-form ones, and nothing that `decode_core` would refuse.  For any other each shortcut gives None, and the inode
must go the long way, which also finds the words for what is wrong.  `tests/api` holds the two ways against each other.

The functions are made for one filesystem, its constants bound as defaults: each global or attribute would cost a
hundredth of the whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import Any

from .crc import crc32c, with_own_field
from .geometry import Geometry
from .inode import BIGTIME_EPOCH_NS, CORE3, CRC_OFFSET, DINODE_MAGIC, EXTENT, FMT_EXTENTS, FMT_LOCAL, LINUX_STAT, NS

#: CORE3 without what neither shortcut needs, version and format as one, the checksum as four bytes: magic mode
#: version|format [uid gid nlink] big_nextents [atime mtime ctime] size nblocks nextents anextents forkoff aformat flags
#: crc flags2 ino uuid
_STAT = Struct(">HHH2xIII4xQQQQQQ4xIHBB6xH8xBBBB16xQ24xQ16s")
#: the same without what is in brackets, and the first extent record behind it
_FILE = Struct(">HHH18xQ24xQQ4xIHBB6xH8xBBBB16xQ24xQ16sQQ")
assert CORE3.size == _STAT.size == _FILE.size - EXTENT.size

_V3_EXTENTS = 3 << 8 | FMT_EXTENTS
_BLOCKCOUNT_MASK = (1 << 21) - 1

StatReader = Callable[[int, memoryview, int], "os.stat_result | None"]
FileReader = Callable[[int, memoryview, int], "tuple[int, int] | None"]


def stat_reader(geo: Geometry) -> StatReader | None:
    """(ino, data, at) -> `os.stat_result` of the inode at byte `at` of `data`; None where this system's is another."""
    if not LINUX_STAT or not geo.has_crc:
        return None
    t0, t1, t2, t3 = with_own_field(geo.inode_bytes, CRC_OFFSET)
    second = 0  # the last one met, as a bigtime: most files have company that was made in the same

    def read(
        ino: int, data: memoryview, at: int, unpack: Any = _STAT.unpack_from, crc32c: Any = crc32c,
        result: Any = os.stat_result, inode_bytes: int = geo.inode_bytes, meta_uuid: bytes = geo.meta_uuid,
        literal_bytes: int = geo.literal_bytes, blksize: int = geo.stat_blksize, log: int = geo.block_sectors_log,
    ) -> os.stat_result | None:  # fmt: skip
        nonlocal second
        (
            magic, mode, form, uid, gid, nlink, big, atime, mtime, ctime, size, nblocks, nextents, anextents, forkoff,
            aformat, flags, c0, c1, c2, c3, flags2, own, uuid,
        ) = unpack(data, at)  # fmt: skip
        if flags2 & 16:
            anextents, nextents = nextents, big
        room = literal_bytes
        if forkoff:
            room = forkoff << 3
            if room >= literal_bytes or (aformat != FMT_LOCAL and aformat != FMT_EXTENTS):
                return None
        kind = mode >> 12
        if (
            form != _V3_EXTENTS or anextents or nextents > nblocks or nextents << 4 > room or own != ino
            or uuid != meta_uuid or magic != DINODE_MAGIC or flags & 1 or not flags2 & 8
            or size >> 63 or (kind != 8 and (kind != 4 or size == 0))
        ):  # fmt: skip
            return None
        if crc32c(data[at : at + inode_bytes]) != t0[c0] ^ t1[c1] ^ t2[c2] ^ t3[c3]:
            return None
        part = mtime - second
        if not 0 <= part < NS:
            part = mtime % NS
            second = mtime - part
        m_s = (second - BIGTIME_EPOCH_NS) // NS
        m_f = m_s + 1e-9 * part
        if ctime == mtime:
            c_s, c_f = m_s, m_f
        else:
            c_s, part = divmod(ctime - BIGTIME_EPOCH_NS, NS)
            c_f = c_s + 1e-9 * part
        if atime == mtime:
            a_s, a_f = m_s, m_f
        else:
            a_s, part = divmod(atime - BIGTIME_EPOCH_NS, NS)
            a_f = a_s + 1e-9 * part
        return result((  # type: ignore[no-any-return]
            mode, ino, 0, nlink, uid, gid, size, a_s, m_s, c_s, a_f, m_f, c_f, atime - BIGTIME_EPOCH_NS,
            mtime - BIGTIME_EPOCH_NS, ctime - BIGTIME_EPOCH_NS, blksize, nblocks << log, 0,
        ))  # fmt: skip

    return read


def file_reader(geo: Geometry) -> FileReader | None:
    """(ino, data, at) -> (size, byte on the device) of a regular file that is one written extent from its start."""
    if not geo.has_crc:
        return None
    t0, t1, t2, t3 = with_own_field(geo.inode_bytes, CRC_OFFSET)

    def read(
        ino: int, data: memoryview, at: int, unpack: Any = _FILE.unpack_from, crc32c: Any = crc32c,
        inode_bytes: int = geo.inode_bytes, meta_uuid: bytes = geo.meta_uuid, literal_bytes: int = geo.literal_bytes,
        block_log: int = geo.block_log, ag_block_log: int = geo.ag_block_log, ag_block_mask: int = geo.ag_block_mask,
        ag_blocks: int = geo.ag_blocks, fsb_valid: Any = geo.fsb_valid,
    ) -> tuple[int, int] | None:  # fmt: skip
        (
            magic, mode, form, big, size, nblocks, nextents, anextents, forkoff, aformat, flags, c0, c1, c2, c3, flags2,
            own, uuid, high, low,
        ) = unpack(data, at)  # fmt: skip
        if flags2 & 16:
            anextents, nextents = nextents, big
        if forkoff and (
            forkoff << 3 >= literal_bytes or forkoff < 2 or (aformat != FMT_LOCAL and aformat != FMT_EXTENTS)
        ):
            return None
        count = low & _BLOCKCOUNT_MASK
        if (
            nextents != 1 or mode >> 12 != 8 or form != _V3_EXTENTS or anextents or high >> 9 or not nblocks
            or size > count << block_log or own != ino or uuid != meta_uuid or magic != DINODE_MAGIC or flags & 1
        ):  # fmt: skip
            return None
        if crc32c(data[at : at + inode_bytes]) != t0[c0] ^ t1[c1] ^ t2[c2] ^ t3[c3]:
            return None
        start = (high & 0x1FF) << 43 | low >> 21
        if not fsb_valid(start, count):
            return None
        return size, (start >> ag_block_log) * ag_blocks + (start & ag_block_mask) << block_log

    return read
