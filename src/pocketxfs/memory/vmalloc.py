"""The vmalloc area: addresses, apart from the direct map, at which pages from anywhere lie side by side.

    area = machine.vmalloc_area
    at = area.vmap(machine.alloc_bulk(16, "buf:dir"))       # 16 pages and a guard page behind them
    area.memory[at : at + 65536]                            # the same memory as the sixteen frames
    area.vunmap(at)

An address is a byte offset from the area's start (kernel: VMALLOC_START).  The area is as large as the machine's
profile says, and everything about it is real: addresses can run out, pages are mapped with the host's mmap, the page
table takes pages of the RAM (`pagetable`).  The lowest hole that fits is taken.  What is unmapped is not free at once:
its entries are cleared, but a TLB may still show it, so it waits until more than fls(cpus) x 32 MiB wait, or until no
hole fits any more; one TLB flush then frees it all (`purge`).  `vm_map_ram`, which gives small runs from blocks, is in
`vmap`.

Contexts: `vmalloc` honours its caller's for its pages and its books, never for page tables; `vm_map_ram` takes no flags
and honours nobody's.  Only an open scope restrains those (see `context`).

Source: mm/vmalloc.c as of 6.6; MEMORY.md.  Limits: no huge mappings; the kernel's guard is behind areas of `vmap` and
`vmalloc` only, so those of vm_map_ram have none; purging happens at once and not in a worker.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from ..errors import NoAddresses, NoMemory, Unsupported
from .pagetable import PageTable
from .vmap import VmapBlocks

if TYPE_CHECKING:
    from .machine import Machine

#: What one area's books take (kernel: struct vmap_area, struct vm_struct), in objects of the slab.
VMAP_AREA_BYTES = VM_STRUCT_BYTES = 64
BOOKS = "vmap_area"
LAZY_MAX_BYTES = 32 << 20


def refusal(machine: Machine) -> str | None:
    """Why this machine can have no vmalloc area; None where it can."""
    shape = machine.profile
    if not shape.mmu:
        return f"machine {shape.name} has no MMU and maps no pages side by side: vmap and vm_map_ram are BUG() there"
    if not machine.frames.double_map:
        return "this host cannot map a page of memory twice (no memfd_create, or pages larger than the machine's)"
    return None


class VmallocArea:
    """The area of one machine.  Raises `Unsupported` where there can be none."""

    def __init__(self, machine: Machine) -> None:
        why = refusal(machine)
        if why is not None:
            raise Unsupported(why)
        from .hostmap import HostRange  # ctypes is paid for by those who map

        shape = machine.profile
        self.machine = machine
        self.shift = shape.page_bytes.bit_length() - 1
        self.host = HostRange(shape.vmalloc_bytes)
        self.memory = self.host.memory
        self.table = PageTable(machine)
        #: Pages of addresses: what the machine has, and what the host let us have of it.
        self.npages = shape.vmalloc_bytes >> self.shift
        self.usable_pages = self.host.nbytes >> self.shift
        # Holes, lowest first.
        self._starts, self._ends = [0], [self.usable_pages]
        #: First page -> (pages, offset of its books).
        self._busy: dict[int, tuple[int, int]] = {}
        #: Freed, but not purged: (first page, pages).
        self._lazy: list[tuple[int, int]] = []
        #: First page of a `vmalloc` -> (its frames, offset of their list, of its vm_struct).
        self._vmallocs: dict[int, tuple[list[int], int, int]] = {}
        #: First page of a `vmap` -> (pages mapped, offset of its vm_struct).
        self._vmaps: dict[int, tuple[int, int]] = {}
        self.busy_pages = self.lazy_pages = self.peak_pages = 0
        self.lazy_max_pages = shape.cpus.bit_length() * LAZY_MAX_BYTES >> self.shift
        self.maps = self.mapped_pages = self.unmaps = 0
        self.purges = self.purged_pages = self.tlb_flushes = self.exhausted = 0
        self.blocks = VmapBlocks(self)

    # -- addresses -------------------------------------------------------------------------------------------------

    def alloc_range(self, npages: int, align: int, what: str, *, kernel: bool) -> int:
        """First page of a run of free addresses (kernel: alloc_vmap_area).  `align` is a power of two, in pages.

        `kernel`: its books are allocated GFP_KERNEL, whatever the caller asked.  Raises `NoAddresses`, `NoMemory`.
        """
        machine = self.machine
        books = (machine.kernel_alloc if kernel else machine.kmalloc)(VMAP_AREA_BYTES, BOOKS)
        first = self._take(npages, align)
        if first < 0:
            self.reclaim_and_purge()
            first = self._take(npages, align)
            if first < 0:
                machine.kfree(books)
                raise self._none_left(npages, what)
        self._busy[first] = (npages, books)
        self.busy_pages += npages
        self.peak_pages = max(self.peak_pages, self.busy_pages + self.lazy_pages)
        return first

    def free_range(self, first: int) -> None:
        """Give addresses back, to be free after the next purge; what they showed is unmapped already."""
        npages, books = self._busy.pop(first)
        self.busy_pages -= npages
        self._lazy.append((first, npages))
        self.lazy_pages += npages
        self.machine.kfree(books)
        if self.lazy_pages > self.lazy_max_pages:
            self.purge()

    def _take(self, npages: int, align: int) -> int:
        starts, ends = self._starts, self._ends
        mask = align - 1
        for index, start in enumerate(starts):
            first = (start + mask) & ~mask
            end = ends[index]
            if first + npages > end:
                continue
            last = first + npages
            if first > start:
                ends[index] = first
                if last < end:
                    starts.insert(index + 1, last)
                    ends.insert(index + 1, end)
            elif last < end:
                starts[index] = last
            else:
                del starts[index], ends[index]
            return first
        return -1

    def _give(self, first: int, npages: int) -> None:
        starts, ends = self._starts, self._ends
        last = first + npages
        index = bisect_left(starts, first)
        if index and ends[index - 1] == first:
            if index < len(starts) and starts[index] == last:
                ends[index - 1] = ends[index]
                del starts[index], ends[index]
            else:
                ends[index - 1] = last
        elif index < len(starts) and starts[index] == last:
            starts[index] = first
        else:
            starts.insert(index, first)
            ends.insert(index, last)

    def _none_left(self, npages: int, what: str) -> NoAddresses:
        self.exhausted += 1
        page = self.machine.page_bytes
        largest = max((end - start for start, end in zip(self._starts, self._ends, strict=True)), default=0)
        text = (
            f"vmalloc space exhausted: no hole of {npages} pages for {what}; {self.busy_pages * page} of "
            f"{self.npages * page} bytes in {len(self._busy)} areas, largest hole {largest} pages after a purge"
        )
        if self.usable_pages < self.npages:
            text += f" (this host reserved {self.usable_pages * page} bytes of the machine's)"
        blocks = self.blocks.words()
        return NoAddresses(f"{text}{'; ' if blocks else ''}{blocks}")

    # -- mapping ---------------------------------------------------------------------------------------------------

    def map_range(self, first: int, frames: list[int]) -> None:
        """Show frames (byte offsets into the RAM) side by side from page `first` on.  Raises `NoMemory`."""
        self.table.populate(first, len(frames))
        try:
            self._show(first, frames)
        except OSError:
            self.reclaim_and_purge()
            try:
                self._show(first, frames)
            except OSError as error:
                self.host.unmap(first << self.shift, len(frames) << self.shift)
                raise NoMemory(
                    f"the host lets this process map no more (vm.max_map_count?): {error.strerror}"
                ) from error
        self.table.set(first, frames)
        self.maps += 1
        self.mapped_pages += len(frames)

    def _show(self, first: int, frames: list[int]) -> None:
        """The host's part: one mmap a run of frames that lie together."""
        fd, page, at = self.machine.frames.fd, self.machine.page_bytes, first << self.shift
        assert fd is not None
        show = self.host.map
        index, count = 0, len(frames)
        while index < count:
            start = frames[index]
            nbytes = page
            index += 1
            while index < count and frames[index] == start + nbytes:
                nbytes += page
                index += 1
            show(at, fd, start, nbytes)
            at += nbytes

    def unmap_range(self, first: int, npages: int) -> None:
        """Clear the entries (kernel: vunmap_range_noflush); a TLB may still show them until the purge."""
        self.table.clear(first, npages)
        self.host.zap(first << self.shift, npages << self.shift)
        self.unmaps += 1

    def purge(self) -> bool:
        """Flush TLBs once and free all that waits for it; False where nothing does."""
        if not self._lazy:
            return False
        self._lazy.sort()
        while self._lazy:
            # One call of the host's for what lies together.
            first, npages = self._lazy[-1]
            count = 1
            while count < len(self._lazy) and sum(self._lazy[-count - 1]) == first:
                count += 1
                first = self._lazy[-count][0]
                npages += self._lazy[-count][1]
            self.host.unmap(first << self.shift, npages << self.shift)
            del self._lazy[-count:]
            self.lazy_pages -= npages
            self.purged_pages += npages
            self._give(first, npages)
        self.purges += 1
        self.tlb_flushes += 1
        return True

    def reclaim_and_purge(self) -> None:
        """What is done when addresses run out: fragmented blocks are given up, and everything that waits is purged."""
        self.blocks.purge_fragmented()
        self.purge()

    def vm_unmap_aliases(self) -> None:
        """Leave no TLB showing what has been unmapped, in blocks neither; purges what waits on the way."""
        dirty = self.blocks.flush_dirty()
        if not self.purge() and dirty:
            self.tlb_flushes += 1

    # -- vmap and vmalloc ------------------------------------------------------------------------------------------

    def vmap(self, frames: list[int]) -> int:
        """Address of these frames, side by side, a guard page behind them.  Raises `NoAddresses`, `NoMemory`."""
        vm_struct = self.machine.kernel_alloc(VM_STRUCT_BYTES, BOOKS)
        first = -1
        try:
            first = self.alloc_range(len(frames) + 1, 1, f"vmap of {len(frames)} pages", kernel=True)
            self.map_range(first, frames)
        except BaseException:
            if first >= 0:
                self.free_range(first)
            self.machine.kfree(vm_struct)
            raise
        self._vmaps[first] = (len(frames), vm_struct)
        return first << self.shift

    def vunmap(self, address: int) -> None:
        """Undo `vmap`.  Raises `ValueError` where it gave no such address."""
        npages, vm_struct = self._known(self._vmaps, address)
        self.unmap_range(address >> self.shift, npages)
        self.free_range(address >> self.shift)
        self.machine.kfree(vm_struct)

    def vmalloc(self, nbytes: int, owner: str, *, noretry: bool = False) -> int:
        """Address of pages for `nbytes`, wherever they are, a guard page behind them.  Raises as `vmap`."""
        machine = self.machine
        npages = nbytes + machine.page_bytes - 1 >> self.shift
        vm_struct = machine.kmalloc(VM_STRUCT_BYTES, BOOKS, noretry=noretry)
        first = listed = -1
        frames: list[int] = []
        try:
            first = self.alloc_range(npages + 1, 1, f"vmalloc of {nbytes} bytes for {owner}", kernel=False)
            listed = machine.kmalloc(npages * (machine.profile.bits >> 3), BOOKS, noretry=noretry)
            frames = machine.alloc_bulk(npages, owner, noretry=noretry)
            self.map_range(first, frames)
        except BaseException:
            machine.free_bulk(frames)
            if listed >= 0:
                machine.kfree(listed)
            if first >= 0:
                self.free_range(first)
            machine.kfree(vm_struct)
            raise
        self._vmallocs[first] = (frames, listed, vm_struct)
        return first << self.shift

    def vfree(self, address: int) -> None:
        """Give back what `vmalloc` gave.  Raises `ValueError` where it did not."""
        frames, listed, vm_struct = self._known(self._vmallocs, address)
        machine = self.machine
        self.unmap_range(address >> self.shift, len(frames))
        self.free_range(address >> self.shift)
        machine.free_bulk(frames)
        machine.kfree(listed)
        machine.kfree(vm_struct)

    def pages_at(self, address: int, nbytes: int) -> list[int]:
        """The frames behind an address, found in the page table one by one (kernel: vmalloc_to_page)."""
        first = address >> self.shift
        return self.table.frames(first, (address + nbytes - 1 >> self.shift) - first + 1)

    def _known(self, books: dict[int, Any], address: int) -> Any:
        found = None if address & self.machine.page_bytes - 1 else books.pop(address >> self.shift, None)
        if found is None:
            raise ValueError(f"nothing is mapped at address {address} of the vmalloc area")
        return found

    # -- looking ---------------------------------------------------------------------------------------------------

    def holes(self) -> list[tuple[int, int]]:
        """Free runs of addresses, lowest first: (first page, pages)."""
        return [(start, end - start) for start, end in zip(self._starts, self._ends, strict=True)]

    def report(self) -> dict[str, Any]:
        """Its numbers, JSON-able; bytes are of addresses."""
        page = self.machine.page_bytes
        return {
            "size_bytes": self.npages * page,
            "reserved_bytes": self.usable_pages * page,
            "used_bytes": self.busy_pages * page,
            "lazy_bytes": self.lazy_pages * page,
            "lazy_max_bytes": self.lazy_max_pages * page,
            "peak_bytes": self.peak_pages * page,
            "largest_hole_bytes": max((npages for _, npages in self.holes()), default=0) * page,
            "areas": len(self._busy),
            "exhausted": self.exhausted,
            "maps": self.maps,
            "mapped_pages": self.mapped_pages,
            "unmaps": self.unmaps,
            "purges": self.purges,
            "purged_pages": self.purged_pages,
            "tlb_flushes": self.tlb_flushes,
            "page_table_pages": self.table.pages,
            "host_calls": self.host.calls,
            **self.blocks.report(),
        }

    def close(self) -> None:
        """Give all of it back, at the end of the machine: addresses, and the page table's pages."""
        self.reclaim_and_purge()
        self.table.close()
        self.memory.release()
        self.host.close()
