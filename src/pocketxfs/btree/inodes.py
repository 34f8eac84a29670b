"""The trees rooted in an inode: a fork's extent map (bmbt), and the realtime groups' trees in metadata inodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..buffer import BufferOps
from ..buffer.ops import BMBT_REF, REFCOUNTBT_REF, RMAPBT_REF
from ..errors import Corrupt
from ..format.btree import BLOCKCOUNT_MASK, BMBT, RTREFCOUNTBT, RTRMAPBT, STARTOFF_MASK
from .engine import InodeBtree

if TYPE_CHECKING:
    from ..buffer import BufferCache

BMBT_OPS = BufferOps("bmbt block", "bmbt", BMBT_REF, BMBT.verify)
RTRMAPBT_OPS = BufferOps("rtrmapbt block", "rtrmapbt", RMAPBT_REF, RTRMAPBT.verify)
RTREFCOUNTBT_OPS = BufferOps("rtrefcountbt block", "rtrefcountbt", REFCOUNTBT_REF, RTREFCOUNTBT.verify)

#: (startoff, startblock, blockcount, unwritten)
Extent = tuple[int, int, int, bool]


def bmbt(cache: BufferCache, fork: bytes | memoryview, ino: int) -> InodeBtree:
    """The extent map of a fork; keys are file blocks."""
    return InodeBtree(cache, BMBT, BMBT_OPS, ino, fork)


def rtrmapbt(cache: BufferCache, fork: bytes | memoryview, ino: int) -> InodeBtree:
    """The reverse map of a realtime group, rooted in its metadata inode; keys as the rmapbt's."""
    return InodeBtree(cache, RTRMAPBT, RTRMAPBT_OPS, ino, fork)


def rtrefcountbt(cache: BufferCache, fork: bytes | memoryview, ino: int) -> InodeBtree:
    """The reference counts of a realtime group, rooted in its metadata inode; keys as the refcountbt's."""
    return InodeBtree(cache, RTREFCOUNTBT, RTREFCOUNTBT_OPS, ino, fork)


def bmbt_extents(
    cache: BufferCache, fork: bytes | memoryview, ino: int, first: int = 0, *, realtime: bool = False,
    attr_fork: bool = False,
) -> Iterator[Extent]:  # fmt: skip
    """The extents of a fork that end after file block `first`, in order, each judged.  Raises `Corrupt`."""
    geo = cache.geo
    valid = geo.rtb_valid if realtime else geo.fsb_valid
    rec = BMBT.rec
    size = BMBT.rec_bytes
    for node in bmbt(cache, fork, ino).leaves(first):
        data = node.block.view(node.base + node.index * size, (node.numrecs - node.index) * size)
        for hi, lo in rec.iter_unpack(data):
            offset = hi >> 9 & STARTOFF_MASK
            count = lo & BLOCKCOUNT_MASK
            if offset + count <= first:
                continue
            start = (hi & 0x1FF) << 43 | lo >> 21
            if not valid(start, count):
                raise Corrupt(
                    BMBT.name, f"inode {ino}", f"extent at {offset}", "blocks on the device", f"{start:#x}+{count}"
                )
            if hi >> 63 and attr_fork:
                raise Corrupt(BMBT.name, f"inode {ino}", f"extent at {offset}", "written", "unwritten")
            yield offset, start, count, hi >> 63 == 1
