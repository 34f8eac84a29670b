"""B+trees: one engine (`engine`), a description of each tree (`format.btree`), and where their roots are.

for startblock, blockcount in bnobt(cache, agno).records(): ...
bnobt(cache, agno).lookup_le(agblock)
for offset, start, count, unwritten in bmbt_extents(cache, inode.data_fork, inode.ino): ...
"""

from .ags import (
    bnobt,
    cntbt,
    finobt,
    inobt,
    inode_chunk,
    read_agf,
    read_agfl,
    read_agi,
    refcount_shared,
    refcountbt,
    rmapbt,
)
from .engine import AgBtree, Btree, InodeBtree
from .inodes import bmbt, bmbt_extents, rtrefcountbt, rtrmapbt

__all__ = [
    "AgBtree",
    "Btree",
    "InodeBtree",
    "bmbt",
    "bmbt_extents",
    "bnobt",
    "cntbt",
    "finobt",
    "inobt",
    "inode_chunk",
    "read_agf",
    "read_agfl",
    "read_agi",
    "refcount_shared",
    "refcountbt",
    "rmapbt",
    "rtrefcountbt",
    "rtrmapbt",
]
