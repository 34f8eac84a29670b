"""`unmapped`: an array of single pages with no address (kernel, 2011 to 6.14: XBF_UNMAPPED).

It never fails for fragmentation and needs no address space; the caller reads the buffer piecewise.  The kernel used it
for inode clusters only, because everything else wants one address; here every reader goes through `Block`, so every
buffer above a page can be so.
"""

from __future__ import annotations

from .backing import Backing, Place


class Unmapped(Backing):
    """Single pages, wherever they are."""

    name = "unmapped"

    __slots__ = ()

    def allocate_large(self, nbytes: int, owner: str, noretry: bool) -> list[int]:
        return self.machine.alloc_bulk((nbytes + self.page_mask) >> self.page_shift, owner, noretry=noretry)

    def free_large(self, place: Place, nbytes: int) -> None:
        assert isinstance(place, list)
        self.machine.free_bulk(place)
