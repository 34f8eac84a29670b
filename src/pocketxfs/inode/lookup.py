"""Whether an inode number is one of a file in use: the judgement on numbers that come from outside."""

from __future__ import annotations

from ..btree import inode_chunk
from .mount import Mount

INODES_PER_CHUNK = 64


def is_allocated(mount: Mount, ino: int) -> bool:
    """Look an inode up in its AG's inode B+tree: in a chunk, not in a sparse hole, not free."""
    agno, agino = mount.geo.split_ino(ino)
    chunk = inode_chunk(mount.cache, agno, agino)
    if chunk is None:
        return False
    start, holemask, free = chunk
    index = agino - start
    if not 0 <= index < INODES_PER_CHUNK:
        return False
    return not holemask >> (index >> 2) & 1 and not free >> index & 1
