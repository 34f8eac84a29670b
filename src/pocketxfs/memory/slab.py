"""What is smaller than a page: one cache for each power of two from 64 bytes to half a page (kernel: kmalloc-64 ...).

A slab is one page cut into equal objects, so an object is aligned to its size and never straddles a page.  A page is
taken when no slab of the size has room, and given back with its last object.

Limits: slabs are one page (the kernel's may be eight); there are no 96- and 192-byte caches.
"""

from __future__ import annotations

from collections.abc import Callable

MIN_SHIFT = 6
MIN_OBJECT_BYTES = 1 << MIN_SHIFT


class Slab:
    """One page of objects.  `free` is a bit mask of the free ones, `owners` one byte for each (0: free)."""

    __slots__ = ("free", "offset", "owners", "shift")

    def __init__(self, offset: int, shift: int, objects: int) -> None:
        self.offset, self.shift = offset, shift
        self.free = (1 << objects) - 1
        self.owners = bytearray(objects)


class SlabCaches:
    """The caches.  `held` counts bytes handed out, by owner number; `object_bytes` their sum."""

    __slots__ = (
        "_alloc_page",
        "_free_page",
        "_page_shift",
        "_partial",
        "allocations",
        "held",
        "object_bytes",
        "slabs",
    )

    def __init__(self, page_bytes: int, alloc_page: Callable[[bool], int], free_page: Callable[[int], None]) -> None:
        self._page_shift = page_bytes.bit_length() - 1
        self._alloc_page, self._free_page = alloc_page, free_page
        caches = self._page_shift - MIN_SHIFT
        #: By cache, the slabs with room, by page number.
        self._partial: list[dict[int, Slab]] = [{} for _ in range(caches)]
        self.slabs: dict[int, Slab] = {}
        self.held = [0] * 256
        self.object_bytes = 0
        self.allocations = [0] * caches

    def alloc(self, nbytes: int, owner: int, noretry: bool) -> int:
        """Offset of an object of at least `nbytes`, which is at most half a page."""
        shift = (nbytes - 1).bit_length() if nbytes > MIN_OBJECT_BYTES else MIN_SHIFT
        partial = self._partial[shift - MIN_SHIFT]
        if partial:
            slab = partial[next(reversed(partial))]
        else:
            # May reclaim, and that may free objects of this cache: nothing is held across the call.
            offset = self._alloc_page(noretry)
            page = offset >> self._page_shift
            self.slabs[page] = partial[page] = slab = Slab(offset, shift, 1 << self._page_shift - shift)
        free = slab.free
        lowest = free & -free
        slab.free = free ^ lowest
        if free == lowest:
            del partial[slab.offset >> self._page_shift]
        index = lowest.bit_length() - 1
        slab.owners[index] = owner
        size = 1 << shift
        self.held[owner] += size
        self.object_bytes += size
        self.allocations[shift - MIN_SHIFT] += 1
        return slab.offset + (index << shift)

    def free(self, slab: Slab, offset: int) -> None:
        """Give back an object of `slab`.  Raises `ValueError` where none is allocated at `offset`."""
        shift = slab.shift
        index = offset - slab.offset >> shift
        owner = slab.owners[index]
        if not owner or slab.offset + (index << shift) != offset:
            raise ValueError(f"no object is allocated at offset {offset}")
        slab.owners[index] = 0
        size = 1 << shift
        self.held[owner] -= size
        self.object_bytes -= size
        free = slab.free
        page = slab.offset >> self._page_shift
        slab.free = now = free | 1 << index
        if now == (1 << len(slab.owners)) - 1:
            self._partial[shift - MIN_SHIFT].pop(page, None)  # absent where the slab held one object only
            del self.slabs[page]
            self._free_page(slab.offset)
        elif not free:
            self._partial[shift - MIN_SHIFT][page] = slab

    def info(self) -> list[dict[str, int]]:
        """As /proc/slabinfo: for each cache its object size, objects in use, slabs, and allocations ever."""
        rows = []
        for cache, allocations in enumerate(self.allocations):
            shift = cache + MIN_SHIFT
            slabs = [slab for slab in self.slabs.values() if slab.shift == shift]
            used = sum(len(slab.owners) - slab.free.bit_count() for slab in slabs)
            rows.append({"bytes": 1 << shift, "objects": used, "slabs": len(slabs), "allocations": allocations})
        return rows
