"""`vmalloc`: Foster's _XBF_VMEM of 2015, a buffer from __vmalloc (and what `folio` falls back to).

Above a page, pages from anywhere in an area of their own, a guard page behind it, whatever the size.  Called inside a
NOFS scope as kmem_alloc_large does, except with the profile's `flags_per_call`.  For a bio the pages are found again in
the page table, one by one: nobody else keeps them.

Without an MMU vmalloc is kmalloc: one contiguous run, rounded up to a power of two, as `contiguous`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..memory.scope import nofs
from ..memory.vmalloc import refusal
from .backing import Backing, Mapped, Place

if TYPE_CHECKING:
    from ..memory import Machine


class Vmalloc(Backing):
    """Pages in an area of their own."""

    name = "vmalloc"

    __slots__ = ("_area", "_scoped")

    def __init__(self, machine: Machine) -> None:
        Backing.__init__(self, machine)
        self.maps = machine.profile.mmu
        self._area = machine.vmalloc_area if self.maps else None
        self._scoped = not machine.profile.flags_per_call

    @classmethod
    def refusal(cls, machine: Machine) -> str | None:
        return refusal(machine) if machine.profile.mmu else None

    def order(self, nbytes: int) -> int:
        """order_base_2 of the page count."""
        return ((nbytes - 1) >> self.page_shift).bit_length()

    def allocate_large(self, nbytes: int, owner: str, noretry: bool) -> Place:
        if self._area is None:
            return self.machine.alloc_pages(self.order(nbytes), owner, noretry=noretry)
        with nofs() if self._scoped else nullcontext():
            return Mapped(self._area.vmalloc(nbytes, owner, noretry=noretry), None)

    def free_large(self, place: Place, nbytes: int) -> None:
        if isinstance(place, Mapped):
            assert self._area is not None
            self._area.vfree(place.address)
        else:
            assert isinstance(place, int)
            self.machine.free_pages(place, self.order(nbytes))

    def taken_bytes(self, nbytes: int) -> int:
        if self._area is None and nbytes > self.page_bytes:
            return self.page_bytes << self.order(nbytes)
        return Backing.taken_bytes(self, nbytes)
