"""Symbolic link targets, in the inode or in blocks of their own (kernel: xfs_symlink_remote.c)."""

from __future__ import annotations

from ..buffer import BufferOps
from ..errors import Corrupt
from ..format import symlink as fmt
from ..format.inode import FMT_LOCAL
from ..inode import Inode, Mount, block_pieces

SYMLINK_OPS = BufferOps("symlink block", "symlink", 1, fmt.verify)


def readlink(mount: Mount, inode: Inode) -> bytes:
    """The target.  Raises `Corrupt`."""
    where = f"symlink inode {inode.ino}"
    size = inode.size
    if size > fmt.MAX_TARGET_BYTES:
        raise Corrupt("symlink", where, "size", f"at most {fmt.MAX_TARGET_BYTES}", size)
    if inode.format == FMT_LOCAL:
        target = inode.data_fork[:size]
    else:
        geo = mount.geo
        room = geo.block_bytes - (fmt.HDR.size if geo.has_crc else 0)
        found = b""
        for daddr, nbytes in block_pieces(mount, inode, 0, -(-size // room)):
            with mount.cache.read(daddr, nbytes, SYMLINK_OPS) as block:
                found += fmt.piece(block, inode.ino, len(found), geo)
        if len(found) < size:
            raise Corrupt("symlink", where, "size", size, len(found))
        target = found[:size]
    if b"\0" in target:
        raise Corrupt("symlink", where, "target", "no NUL", repr(target[:32]))
    return target
