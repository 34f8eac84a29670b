"""`vm-map-ram`: the kernel's backing from 2011 to 6.14, single pages mapped side by side by vm_map_ram.

Above a page: pages from anywhere, then one mapping; inode clusters get none (XBF_UNMAPPED, since 3.5) and are read
piecewise.  `vm-map-ram:mapped` maps those too, as in the first year.  Where mapping fails up to three tries are made,
`vm_unmap_aliases` between them, inside a NOFS scope (NOIO until 4.12) because vm_map_ram allocates page tables
GFP_KERNEL whatever its caller is in the middle of; with the profile's `flags_per_call` the scope is missing, as it was
at first.  Nothing shrinks the cache when addresses run out: the kernel's shrinkers are not asked for addresses.  A bio
takes the pages, one a segment.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..errors import NoMemory
from ..memory.scope import nofs
from ..memory.vmalloc import refusal
from .backing import Backing, Mapped, Place

if TYPE_CHECKING:
    from ..memory import Machine

TRIES = 3


#: Buffers that are given no address (kernel: XBF_UNMAPPED).
UNMAPPED_OWNERS = frozenset(("buf:inode",))


class VmMapRam(Backing):
    """Single pages, mapped."""

    name = "vm-map-ram"
    unmapped: frozenset[str] = UNMAPPED_OWNERS

    __slots__ = ("_area", "_scoped")

    def __init__(self, machine: Machine) -> None:
        Backing.__init__(self, machine)
        self._area = machine.vmalloc_area
        self.maps = True
        self._scoped = not machine.profile.flags_per_call

    @classmethod
    def refusal(cls, machine: Machine) -> str | None:
        return refusal(machine)

    def allocate_large(self, nbytes: int, owner: str, noretry: bool) -> Place:
        machine, area = self.machine, self._area
        pages = machine.alloc_bulk((nbytes + self.page_mask) >> self.page_shift, owner, noretry=noretry)
        if owner in self.unmapped:
            return pages
        try:
            with nofs() if self._scoped else nullcontext():
                for left in reversed(range(TRIES)):
                    address = area.blocks.vm_map_ram(pages)
                    if address is not None:
                        return Mapped(address, pages)
                    if left:
                        area.vm_unmap_aliases()
            why = area.blocks.why
            kind = NoMemory if why is None else type(why)
            raise kind(f"{nbytes} bytes for {owner} cannot be mapped, {TRIES} tries: {why}")
        except BaseException:
            machine.free_bulk(pages)
            raise

    def free_large(self, place: Place, nbytes: int) -> None:
        if isinstance(place, list):
            self.machine.free_bulk(place)
            return
        assert isinstance(place, Mapped) and place.pages is not None
        self._area.blocks.vm_unmap_ram(place.address, len(place.pages))
        self.machine.free_bulk(place.pages)


class VmMapRamMapped(VmMapRam):
    """Inode clusters mapped as well."""

    name = "vm-map-ram:mapped"
    unmapped = frozenset()

    __slots__ = ()
