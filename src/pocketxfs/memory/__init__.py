"""The machine's memory: page frames, the page allocator, the slab, scopes and reclaim.

    from pocketxfs.memory import Machine, profile

    with Machine(profile("nommu-16m")) as machine:
        offset = machine.alloc_pages(2, "buf:dir")      # 16 KiB, naturally aligned, a byte offset into machine.map
        data = machine.map[offset : offset + 16384]
        ...
        machine.free_pages(offset, 2)
        print(machine.buddyinfo())

One `Machine` is all the memory that a mounted filesystem has.  Its page frames really exist, in one memfd mapped
once (`frames`); what the filesystem keeps either lives in them (buffers, log and staging buffers) or is charged to
them (`Machine.charge`: in-core inodes, extent maps, journal items).  When they run out, caches are asked to shrink;
when that does not help, the operation fails with `NoMemory`, which says who holds what.

    profile    what machine it is: RAM, page size, MMU, vmalloc area, CPUs
    frames     the RAM itself
    buddy      runs of 2^n pages, watermarks, /proc/buddyinfo and the two fragmentation indexes
    slab       what is smaller than a page
    scope      nofs() and noio()
    context    regions that reclaim must not re-enter, and the report on who would let it
    reclaim    shrinkers, registered from above
    machine    all of it behind one object
    vmalloc    addresses at which pages lie side by side (`Machine.vmalloc_area`); its `pagetable`, on a `hostmap`
    vmap       vm_map_ram: small mappings from blocks of that
    large      large temporary memory: contiguous first, mapped after

Offset 0 is a page like any other: an offset must never be tested for truth.  One thread uses a machine at a time.

The last four are imported when they are first used.

Source: the project's MEMORY.md; Linux's documentation of its allocators.  Limits: one zone, no per-CPU lists, no
migration types, no compaction, no swap.
"""

from __future__ import annotations

from .buddy import (
    MAX_ORDER,
    NR_ORDERS,
    Buddy,
    Watermarks,
    fragmentation_index,
    unusable_index,
    watermarks,
)
from .frames import Frames
from .machine import Machine
from .profile import PROFILES, Profile, parse_size, profile
from .reclaim import Shrinker
from .scope import NOFS, NOIO, NORMAL, current_scope, nofs, noio

__all__ = [
    "MAX_ORDER",
    "NOFS",
    "NOIO",
    "NORMAL",
    "NR_ORDERS",
    "PROFILES",
    "Buddy",
    "Frames",
    "Machine",
    "Profile",
    "Shrinker",
    "Watermarks",
    "current_scope",
    "fragmentation_index",
    "nofs",
    "noio",
    "parse_size",
    "profile",
    "unusable_index",
    "watermarks",
]
