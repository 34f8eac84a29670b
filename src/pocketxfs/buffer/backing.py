"""What a backing is: how the memory of a buffer is found, given back, and handed to a bio.

Below a page every backing takes kmalloc, and exactly one page is one page, as in every era of the kernel's; they
differ above a page.  The machine's kmalloc never lets an object straddle a page, so the kernel's "replaced by a page
where it straddles one" does not come up here.

A place is an integer (an offset into the machine's memory, one piece), a list of page offsets (pages apart), or
`Mapped` (pages apart, and an address of the vmalloc area at which they lie side by side).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..memory import Machine


class Mapped:
    """Pages mapped side by side at `address` of the vmalloc area; `pages` None where only the page table knows them."""

    __slots__ = ("address", "pages")

    def __init__(self, address: int, pages: list[int] | None) -> None:
        self.address, self.pages = address, pages


Place = int | list[int] | Mapped

#: The largest object that kmalloc serves; what is larger takes pages.
KMALLOC_MAX_BYTES = 2048


class Backing:
    """Base of the backings: what lies at or below a page.  A subclass says what happens above it."""

    name = "base"
    __slots__ = ("kmalloc_max", "machine", "maps", "page_bytes", "page_mask", "page_shift")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        #: Whether its buffers may lie in the vmalloc area.
        self.maps = False
        self.page_bytes = machine.page_bytes
        self.page_mask = self.page_bytes - 1
        self.page_shift = self.page_bytes.bit_length() - 1
        self.kmalloc_max = min(KMALLOC_MAX_BYTES, self.page_bytes >> 1)

    @classmethod
    def refusal(cls, machine: Machine) -> str | None:
        """Why this machine cannot have such buffers; None where it can."""
        return None

    def allocate(self, nbytes: int, owner: str, noretry: bool = False) -> Place:
        """Memory for `nbytes`.  Raises `NoMemory`; with `noretry` at once, without reclaim."""
        if nbytes > self.page_bytes:
            return self.allocate_large(nbytes, owner, noretry)
        if nbytes > self.kmalloc_max:
            return self.machine.alloc_pages(0, owner, noretry=noretry)
        return self.machine.kmalloc(nbytes, owner, noretry=noretry)

    def free(self, place: Place, nbytes: int) -> None:
        """Give back what `allocate(nbytes)` gave."""
        if nbytes > self.page_bytes:
            self.free_large(place, nbytes)
        elif nbytes > self.kmalloc_max:
            assert isinstance(place, int)
            self.machine.free_pages(place, 0)
        else:
            assert isinstance(place, int)
            self.machine.kfree(place)

    def allocate_large(self, nbytes: int, owner: str, noretry: bool) -> Place:
        """Memory for more than a page."""
        raise AssertionError(f"{type(self).__name__} has no way above a page")

    def free_large(self, place: Place, nbytes: int) -> None:
        """Give it back."""
        raise AssertionError(f"{type(self).__name__} has no way above a page")

    def taken_bytes(self, nbytes: int) -> int:
        """What a buffer of `nbytes` really occupies: its slab object, or whole pages."""
        if nbytes > self.kmalloc_max:
            return (nbytes + self.page_mask) & ~self.page_mask
        return max(64, 1 << (nbytes - 1).bit_length())

    def report(self) -> dict[str, int]:
        """What it counts itself, JSON-able."""
        return {}


#: What `--buffers` accepts -> module and class.
_CLASSES = {
    "contiguous": ("contiguous", "Contiguous"),
    "contiguous-exact": ("exact", "ContiguousExact"),
    "unmapped": ("unmapped", "Unmapped"),
    "vm-map-ram": ("vmapram", "VmMapRam"),
    "vm-map-ram:mapped": ("vmapram", "VmMapRamMapped"),
    "vmalloc": ("vmalloc", "Vmalloc"),
    "folio": ("folio", "Folio"),
}
#: A word behind a colon changes one of these; it is not a kind of its own.
BACKINGS = tuple(name for name in _CLASSES if ":" not in name)


def _class_named(name: str) -> type[Backing]:
    found = _CLASSES.get(name)
    if found is None:
        from ..errors import Unsupported

        raise Unsupported(f"no buffer backing {name!r}: there are {', '.join(_CLASSES)}")
    module, kind = found
    chosen: type[Backing] = getattr(import_module("." + module, __package__), kind)
    return chosen


def refusal(name: str, machine: Machine) -> str | None:
    """Why this machine cannot have buffers of that kind; None where it can.  Raises `Unsupported` for no such kind."""
    return _class_named(name).refusal(machine)


def backing_named(name: str, machine: Machine) -> Backing:
    """The backing that `--buffers` names.  Raises `Unsupported` for one that is not there or cannot run here."""
    chosen = _class_named(name)
    why = chosen.refusal(machine)
    if why is not None:
        from ..errors import Unsupported

        raise Unsupported(f"buffers of kind {name!r}: {why}")
    return chosen(machine)
