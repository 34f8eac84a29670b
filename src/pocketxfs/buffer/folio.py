"""`folio`: the kernel's backing since 6.15, one folio if that comes easily, else vmalloc.

Below a page and a power of two: kmalloc.  Up to a page: one page.  A larger power of two: one contiguous folio, tried
once, without reclaim; where there is none, and for every other size (remote attributes: 17 pages), vmalloc, with all
that reclaim can do.  No scope of its own: by now transactions open one.  A folio is one segment of a bio, vmalloc's
pages are one each.

Without an MMU vmalloc is contiguous and rounded up, so what falls back there is tried again with reclaim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NoMemory
from .backing import Mapped, Place
from .vmalloc import Vmalloc

if TYPE_CHECKING:
    from ..memory import Machine


class Folio(Vmalloc):
    """One folio, or vmalloc.  `folios` and `fallbacks` count which it was, above a page."""

    name = "folio"

    __slots__ = ("fallbacks", "folios")

    def __init__(self, machine: Machine) -> None:
        Vmalloc.__init__(self, machine)
        self._scoped = False
        self.folios = self.fallbacks = 0

    def allocate(self, nbytes: int, owner: str, noretry: bool = False) -> Place:
        if nbytes > self.page_bytes:
            return self.allocate_large(nbytes, owner, noretry)
        if nbytes < self.page_bytes and not nbytes & nbytes - 1:
            return self.machine.kmalloc(nbytes, owner, noretry=noretry)
        return self.machine.alloc_pages(0, owner, noretry=noretry)

    def allocate_large(self, nbytes: int, owner: str, noretry: bool) -> Place:
        if not nbytes & nbytes - 1:
            try:
                place = self.machine.alloc_pages(self.order(nbytes), owner, noretry=True)
            except NoMemory:
                pass  # counted by the machine, and here: what follows is the way out
            else:
                self.folios += 1
                return place
        self.fallbacks += 1
        return Vmalloc.allocate_large(self, nbytes, owner, noretry)

    def free(self, place: Place, nbytes: int) -> None:
        if isinstance(place, Mapped) or nbytes > self.page_bytes:
            self.free_large(place, nbytes)
        else:
            assert isinstance(place, int)
            self.machine.kfree(place)

    def taken_bytes(self, nbytes: int) -> int:
        if nbytes < self.page_bytes:
            return self.page_bytes if nbytes & nbytes - 1 else max(64, nbytes)
        return Vmalloc.taken_bytes(self, nbytes)

    def report(self) -> dict[str, int]:
        return {"folios": self.folios, "fallbacks": self.fallbacks}
