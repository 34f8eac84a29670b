"""`contiguous-exact`: one run of pages with the tail of the power of two given back (kernel: alloc_pages_exact).

17 pages take 17.  The run still has to be found whole first, so it fails where `contiguous` fails.
"""

from __future__ import annotations

from .backing import Backing, Place


class ContiguousExact(Backing):
    """One trimmed run of pages."""

    name = "contiguous-exact"

    __slots__ = ()

    def allocate_large(self, nbytes: int, owner: str, noretry: bool) -> int:
        return self.machine.alloc_exact(nbytes, owner, noretry=noretry)

    def free_large(self, place: Place, nbytes: int) -> None:
        assert isinstance(place, int)
        self.machine.free_exact(place, nbytes)
