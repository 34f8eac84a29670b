"""AG headers read and verified through the cache, and the trees rooted in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..buffer import BufferOps
from ..buffer.ops import AGF_REF, AGFL_REF, AGI_REF, ALLOCBT_REF, INOBT_REF, REFCOUNTBT_REF, RMAPBT_REF
from ..errors import Unsupported
from ..format import ag
from ..format.btree import BNOBT, CNTBT, FINOBT, INOBT, INODES_PER_CHUNK, REFCOUNTBT, RMAPBT
from .engine import AgBtree

if TYPE_CHECKING:
    from ..buffer import Buffer, BufferCache

AGF_OPS = BufferOps("AGF", "agf", AGF_REF, ag.verify_agf)
AGI_OPS = BufferOps("AGI", "agi", AGI_REF, ag.verify_agi)
AGFL_OPS = BufferOps("AGFL", "agfl", AGFL_REF, ag.verify_agfl)
BNOBT_OPS = BufferOps("bnobt block", "bnobt", ALLOCBT_REF, BNOBT.verify)
CNTBT_OPS = BufferOps("cntbt block", "cntbt", ALLOCBT_REF, CNTBT.verify)
INOBT_OPS = BufferOps("inobt block", "inobt", INOBT_REF, INOBT.verify)
FINOBT_OPS = BufferOps("finobt block", "finobt", INOBT_REF, FINOBT.verify)
RMAPBT_OPS = BufferOps("rmapbt block", "rmapbt", RMAPBT_REF, RMAPBT.verify)
REFCOUNTBT_OPS = BufferOps("refcountbt block", "refcountbt", REFCOUNTBT_REF, REFCOUNTBT.verify)

#: (startblock, blockcount)
FreeExtent = tuple[int, int]
#: (startino, holemask, count, freecount, free): bits of `free` are free inodes, bits of `holemask` four absent ones
Chunk = tuple[int, int, int, int, int]
#: (startblock, blockcount, owner, offset, flags); see `format.btree.RMAP_*`
Rmap = tuple[int, int, int, int, int]
#: (startblock, blockcount, refcount, staging)
Refcount = tuple[int, int, int, bool]


def _header(cache: BufferCache, agno: int, sector: int, ops: BufferOps) -> Buffer:
    geo = cache.geo
    if not 0 <= agno < geo.ag_count:
        raise ValueError(f"AG {agno} of {geo.ag_count}")
    return cache.read(ag.header_daddr(geo, agno, sector), geo.sector_bytes, ops)


def read_agf(cache: BufferCache, agno: int) -> ag.Agf:
    """The free-space header of an AG.  Raises `Corrupt`."""
    with _header(cache, agno, ag.AGF_SECTOR, AGF_OPS) as buf:
        return ag.AGF.decode(buf)


def read_agi(cache: BufferCache, agno: int) -> tuple[ag.Agi, ag.AgiTail, tuple[int, ...]]:
    """The inode header of an AG: its two halves, and the heads of its 64 unlinked lists.  Raises `Corrupt`."""
    with _header(cache, agno, ag.AGI_SECTOR, AGI_OPS) as buf:
        return ag.AGI.decode(buf), ag.AGI_TAIL.decode(buf, ag.AGI_TAIL_OFFSET), ag.unlinked_buckets(buf)


def read_agfl(cache: BufferCache, agno: int) -> list[int]:
    """The blocks that an AG keeps for its free-space trees.  Raises `Corrupt`."""
    agf = read_agf(cache, agno)
    with _header(cache, agno, ag.AGFL_SECTOR, AGFL_OPS) as buf:
        return ag.agfl_active(agf, ag.agfl_slots(buf, cache.geo))


# -- trees -----------------------------------------------------------------------------------------------------


def bnobt(cache: BufferCache, agno: int) -> AgBtree:
    """Free space by place; keys are blocks of the AG."""
    agf = read_agf(cache, agno)
    return AgBtree(cache, BNOBT, BNOBT_OPS, agno, agf.agf_bno_root, agf.agf_bno_level)


def cntbt(cache: BufferCache, agno: int) -> AgBtree:
    """Free space by size; keys are (blocks, place)."""
    agf = read_agf(cache, agno)
    return AgBtree(cache, CNTBT, CNTBT_OPS, agno, agf.agf_cnt_root, agf.agf_cnt_level)


def inobt(cache: BufferCache, agno: int) -> AgBtree:
    """Inode chunks; keys are inodes of the AG."""
    with _header(cache, agno, ag.AGI_SECTOR, AGI_OPS) as buf:
        agi = ag.AGI.decode(buf)
    return AgBtree(cache, INOBT, INOBT_OPS, agno, agi.agi_root, agi.agi_level)


def finobt(cache: BufferCache, agno: int) -> AgBtree:
    """Inode chunks that have free inodes.  Raises `Unsupported` where there is no such tree."""
    _need(cache.geo.has_finobt, "free inode B+tree (finobt)")
    with _header(cache, agno, ag.AGI_SECTOR, AGI_OPS) as buf:
        tail = ag.AGI_TAIL.decode(buf, ag.AGI_TAIL_OFFSET)
    return AgBtree(cache, FINOBT, FINOBT_OPS, agno, tail.agi_free_root, tail.agi_free_level)


def rmapbt(cache: BufferCache, agno: int) -> AgBtree:
    """Who owns each block; keys are (block, owner, raw offset).  Raises `Unsupported` where there is no such tree."""
    _need(cache.geo.has_rmapbt, "reverse map (rmapbt)")
    agf = read_agf(cache, agno)
    return AgBtree(cache, RMAPBT, RMAPBT_OPS, agno, agf.agf_rmap_root, agf.agf_rmap_level)


def refcountbt(cache: BufferCache, agno: int) -> AgBtree:
    """Blocks that are shared, then copy-on-write staging.  Raises `Unsupported` where there is no such tree."""
    _need(cache.geo.has_reflink, "reference count B+tree (reflink)")
    agf = read_agf(cache, agno)
    return AgBtree(cache, REFCOUNTBT, REFCOUNTBT_OPS, agno, agf.agf_refcount_root, agf.agf_refcount_level)


def _need(there: bool, what: str) -> None:
    if not there:
        raise Unsupported(f"this filesystem has no {what}")


# -- questions -------------------------------------------------------------------------------------------------


def inode_chunk(cache: BufferCache, agno: int, agino: int) -> tuple[int, int, int] | None:
    """(startino, holemask, free) of the chunk that holds an inode of an AG, or None where no chunk does."""
    found = inobt(cache, agno).lookup_le(agino)
    if found is None or agino >= found[0] + INODES_PER_CHUNK:
        return None
    return found[0], found[1], found[4]


def refcount_shared(cache: BufferCache, agno: int, agb: int, count: int) -> Iterator[tuple[int, int]]:
    """(startblock, blockcount) of each record of shared blocks that touches the range, in order, not clipped."""
    if not cache.geo.has_reflink:
        return
    end = agb + count
    for start, length, _, staging in refcountbt(cache, agno).records(agb):
        if staging or start >= end:
            return
        if start + length > agb:
            yield start, length
