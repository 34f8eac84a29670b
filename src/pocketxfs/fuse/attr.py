"""From an inode to the protocol's fuse_attr and fuse_statx.  Pure: no I/O.

Source: the kernel's xfs_vn_getattr for the values.  Limits: a preferred I/O size that is no power of two (realtime
extents) reaches the user rounded down to one, because the kernel keeps its logarithm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..format import inode as fmt
from . import abi

if TYPE_CHECKING:
    from ..format.geometry import Geometry
    from ..inode import Inode

#: Nobody else changes the image: what the kernel knows stays true.  (Seconds; the kernel caps them.)
FOREVER = 1 << 31
_NS = 1_000_000_000
_EPOCH = fmt.BIGTIME_EPOCH_NS // _NS
_U32 = 0xFFFFFFFF

#: di_flags -> statx attributes
_STATX_ATTRIBUTES = (
    (fmt.DIFLAG_IMMUTABLE, abi.STATX_ATTR_IMMUTABLE),
    (fmt.DIFLAG_APPEND, abi.STATX_ATTR_APPEND),
    (fmt.DIFLAG_NODUMP, abi.STATX_ATTR_NODUMP),
)
_STATX_MASK = abi.STATX_ATTR_IMMUTABLE | abi.STATX_ATTR_APPEND | abi.STATX_ATTR_NODUMP


def encode_dev(raw: int) -> int:
    """A device number as XFS keeps it (14 bits of major, 18 of minor) in the kernel's 32-bit form (new_encode_dev)."""
    major, minor = raw >> 18 & 0x3FFF, raw & 0x3FFFF
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def attr_fields(geo: Geometry, ino: int, core: tuple[Any, ...], literal: bytes) -> tuple[int, ...]:
    """The sixteen fields of fuse_attr.  `core` as `format.inode.decode_core` gives it; `literal`: the fork area."""
    (
        _, mode, version, _, onlink, uid, gid, nlink, _, _, _, atime, mtime, ctime, size, nblocks, extsize,
        _, _, _, _, _, _, flags, _, _, _, _, _, flags2, _, _, _, _,
    ) = core  # fmt: skip
    if flags2 & 8:
        m_s, m_ns = divmod(mtime, _NS)
        m_s -= _EPOCH
        if ctime == mtime:
            c_s, c_ns = m_s, m_ns
        else:
            c_s, c_ns = divmod(ctime, _NS)
            c_s -= _EPOCH
        if atime == mtime:
            a_s, a_ns = m_s, m_ns
        else:
            a_s, a_ns = divmod(atime, _NS)
            a_s -= _EPOCH
    else:
        a_s, a_ns = (atime >> 32 ^ 0x80000000) - 0x80000000, atime & _U32
        m_s, m_ns = (mtime >> 32 ^ 0x80000000) - 0x80000000, mtime & _U32
        c_s, c_ns = (ctime >> 32 ^ 0x80000000) - 0x80000000, ctime & _U32
    rdev = 0
    blksize = geo.stat_blksize
    kind = mode >> 12
    if kind == 8:
        if flags & 1:
            hint = extsize if flags & fmt.DIFLAG_EXTSIZE and extsize else geo.rext_blocks
            blksize = min(max(1, hint) << geo.block_log, 1 << 31)
    elif kind == 2 or kind == 6:
        rdev = encode_dev(int.from_bytes(literal[:4], "big"))
    if version == 1:
        nlink = onlink
    return (
        ino, size, nblocks << geo.block_sectors_log, a_s, m_s, c_s, a_ns, m_ns, c_ns, mode, nlink, uid, gid, rdev,
        blksize, 0,
    )  # fmt: skip


def statx_reply(inode: Inode) -> tuple[int, ...]:
    """The fields of fuse_statx_out.  Birth time is what this request exists for; V4 keeps none."""
    (
        ino, size, blocks, a_s, m_s, c_s, a_ns, m_ns, c_ns, mode, nlink, uid, gid, rdev, blksize, _,
    ) = attr_fields(inode.geo, inode.ino, inode.core, inode.literal)  # fmt: skip
    born = inode.btime_ns
    mask = abi.STATX_BASIC_STATS
    b_s = b_ns = 0
    if born is not None:
        mask |= abi.STATX_BTIME
        b_s, b_ns = divmod(born, _NS)
    attributes = 0
    for flag, attribute in _STATX_ATTRIBUTES:
        if inode.flags & flag:
            attributes |= attribute
    major, minor = rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00
    return (
        FOREVER, 0, 0, mask, blksize, attributes, nlink, uid, gid, mode, 0, ino, size, blocks, _STATX_MASK,
        a_s, a_ns, 0, b_s, b_ns, 0, c_s, c_ns, 0, m_s, m_ns, 0, major, minor, 0, 0,
    )  # fmt: skip
