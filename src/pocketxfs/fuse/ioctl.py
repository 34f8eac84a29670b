"""ioctls on files and directories of the mount: the inode flags.

Source: linux/fs.h for the numbers, the kernel's xfs_fill_fsxattr for the values.  Limits: FUSE hands on ioctls of a
fixed size only, so those that return arrays (XFS_IOC_GETBMAPX) cannot be answered, and FIEMAP is not handed on at all;
the attribute `pocketxfs.extents` (`live.py`) tells what they would.
"""

from __future__ import annotations

import errno
import sys
from struct import Struct
from typing import TYPE_CHECKING

from ..errors import posix
from ..format import inode as fmt

if TYPE_CHECKING:
    from ..inode import Inode

FS_IOC_GETFLAGS = 0x80086601
FS_IOC32_GETFLAGS = 0x80046601
FS_IOC_FSGETXATTR = 0x801C581F

#: struct fsxattr: fsx_xflags fsx_extsize fsx_nextents fsx_projid fsx_cowextsize, eight bytes unused
FSXATTR = Struct("=IIIII8x")

FS_XFLAG_DAX = 0x8000
FS_XFLAG_COWEXTSIZE = 0x10000
FS_XFLAG_HASATTR = 0x80000000
#: XFS's di_flags have the bits of the FS_XFLAGs but for NEWRTBM, which users do not see.
_XFLAGS_FROM_DIFLAGS = 0x7FFF & ~fmt.DIFLAG_NEWRTBM

#: FS_XFLAG -> FS_*_FL, the flags of chattr that have both
_FL_OF_XFLAG = (
    (fmt.DIFLAG_SYNC, 0x8),
    (fmt.DIFLAG_IMMUTABLE, 0x10),
    (fmt.DIFLAG_APPEND, 0x20),
    (fmt.DIFLAG_NODUMP, 0x40),
    (fmt.DIFLAG_NOATIME, 0x80),
    (FS_XFLAG_DAX, 0x2000000),
    (fmt.DIFLAG_PROJINHERIT, 0x20000000),
)


def xflags(inode: Inode) -> int:
    """FS_XFLAG_* of an inode (xfs_ip2xflags)."""
    flags = inode.flags & _XFLAGS_FROM_DIFLAGS
    if inode.flags2 & fmt.DIFLAG2_DAX:
        flags |= FS_XFLAG_DAX
    if inode.flags2 & fmt.DIFLAG2_COWEXTSIZE:
        flags |= FS_XFLAG_COWEXTSIZE
    if inode.forkoff:
        flags |= FS_XFLAG_HASATTR
    return flags


def answer(inode: Inode, command: int) -> bytes:
    """What an ioctl gives back.  ENOTTY for one that is not known here."""
    if command in (FS_IOC_GETFLAGS, FS_IOC32_GETFLAGS):
        flags = xflags(inode)
        found = 0
        for xflag, flag in _FL_OF_XFLAG:
            if flags & xflag:
                found |= flag
        return found.to_bytes(4, sys.byteorder)
    if command == FS_IOC_FSGETXATTR:
        block_bytes = inode.geo.block_bytes
        hinted = inode.flags & (fmt.DIFLAG_EXTSIZE | fmt.DIFLAG_EXTSZINHERIT)
        return FSXATTR.pack(
            xflags(inode),
            inode.extsize * block_bytes & 0xFFFFFFFF if hinted else 0,
            inode.nextents & 0xFFFFFFFF,
            inode.projid,
            inode.cowextsize * block_bytes & 0xFFFFFFFF if inode.flags2 & fmt.DIFLAG2_COWEXTSIZE else 0,
        )
    raise posix(errno.ENOTTY)
