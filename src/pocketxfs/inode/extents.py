"""Extents as a user sees them: in bytes, holes included, shared ones found in the refcount B+tree."""

from __future__ import annotations

from collections.abc import Iterator

from ..btree import refcount_shared
from ..format import inode as fmt
from .data import STATE_NAMES, UNWRITTEN
from .fork import ATTR_FORK, DATA_FORK, extents_from
from .incore import Inode
from .mount import Mount


def extents_of(
    mount: Mount, inode: Inode, attr_fork: bool = False
) -> Iterator[tuple[int, int, int | None, str, bool, bool]]:
    """(file offset, bytes, device offset or None, state, shared, realtime), split where sharing changes."""
    geo = mount.geo
    log = geo.block_log
    which = ATTR_FORK if attr_fork else DATA_FORK
    form = inode.aformat if attr_fork else inode.format
    if form in (fmt.FMT_LOCAL, fmt.FMT_DEV) or (attr_fork and not inode.forkoff):
        return
    realtime = inode.is_realtime and not attr_fork
    may_share = geo.has_reflink and not realtime and not attr_fork and inode.flags2 & fmt.DIFLAG2_REFLINK
    end = 0 if attr_fork else -(-inode.size >> log)
    at = 0
    for offset, start, count, unwritten in extents_from(mount, inode, 0, which):
        if offset > at:
            yield at << log, (offset - at) << log, None, STATE_NAMES[0], False, realtime
        at = offset + count
        state = STATE_NAMES[UNWRITTEN if unwritten else 1]
        place = (geo.rtb_to_daddr(start) if realtime else geo.fsb_to_daddr(start)) << 9
        if not may_share:
            yield offset << log, count << log, place, state, False, realtime
            continue
        for skip, length, shared in _shared_runs(mount, start, count):
            yield (offset + skip) << log, length << log, place + (skip << log), state, shared, False
    if at < end:
        yield at << log, (end - at) << log, None, STATE_NAMES[0], False, realtime


def _shared_runs(mount: Mount, start: int, count: int) -> Iterator[tuple[int, int, bool]]:
    """(blocks to skip, blocks, shared) that an extent falls into."""
    agno, agb = mount.geo.split_fsb(start)
    done = 0
    for first, nblocks in refcount_shared(mount.cache, agno, agb, count):
        begin = max(first - agb, 0)
        if begin > done:
            yield done, begin - done, False
        stop = min(first + nblocks - agb, count)
        yield begin, stop - begin, True
        done = stop
    if done < count:
        yield done, count - done, False
