"""`contiguous`: the RFC's backing of November 2015, for machines without an MMU.

Above a page, one `alloc_pages` of order `order_base_2(page_count)`; the tail of the power of two is not trimmed, so 17
pages take 32.  It can fail for fragmentation while memory is free, which is what it was criticised for.
"""

from __future__ import annotations

from .backing import Backing, Place


class Contiguous(Backing):
    """One untrimmed power-of-two run of pages."""

    name = "contiguous"

    __slots__ = ()

    def order(self, nbytes: int) -> int:
        """order_base_2 of the page count."""
        return ((nbytes - 1) >> self.page_shift).bit_length()

    def allocate_large(self, nbytes: int, owner: str, noretry: bool) -> int:
        return self.machine.alloc_pages(((nbytes - 1) >> self.page_shift).bit_length(), owner, noretry=noretry)

    def free_large(self, place: Place, nbytes: int) -> None:
        assert isinstance(place, int)
        self.machine.free_pages(place, ((nbytes - 1) >> self.page_shift).bit_length())

    def taken_bytes(self, nbytes: int) -> int:
        if nbytes <= self.page_bytes:
            return Backing.taken_bytes(self, nbytes)
        return self.page_bytes << self.order(nbytes)
