"""vm_map_ram: many small mappings that come and go, from blocks of addresses (what XFS maps its buffers with).

A CPU carves runs from its own block without asking anybody.  A run takes a power of two of pages (17 take 32) from the
block's unused end; given back it is dirty, and its addresses are used again only when the whole block is dirty and has
gone through a purge: that is how one TLB flush serves a thousand mappings.  A block of which little is in use so
holds on to all of its addresses.  Blocks with nothing live in them are given up when addresses run out, and, where less
than a quarter is left unused, by `vm_unmap_aliases`.  More pages than a long has bits are an area of their own.

Source: mm/vmalloc.c as of 6.6 (before 6.5 `vm_unmap_aliases` gave up blocks with more left, too); MEMORY.md.
Limits: one thread, so one CPU unless `VmapBlocks.cpu` is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NoMemory

if TYPE_CHECKING:
    from .vmalloc import VmallocArea

#: What a block's books take (kernel: struct vmap_block with its bitmap).
VMAP_BLOCK_BYTES = 256
BOOKS = "vmap_block"
#: The kernel's guess at the size of the vmalloc area, from which it sizes blocks.
_SPACE_BYTES = {32: 128 << 20, 64: 128 << 30}


def block_pages(bits: int, cpus: int, page_bytes: int) -> int:
    """Pages of a block (kernel: VMAP_BBMAP_BITS)."""
    per_cpu = _SPACE_BYTES[bits] // page_bytes // (1 << (cpus - 1).bit_length()) // 16
    return min(1024, max(bits * 2, per_cpu))


class VmapBlock:
    """A block: `free` pages never given out yet, at its end, and `dirty` ones given back."""

    __slots__ = ("books", "cpu", "dirty", "first", "free", "unflushed", "used")

    def __init__(self, first: int, npages: int, books: int, cpu: int) -> None:
        self.first, self.free, self.books, self.cpu = first, npages, books, cpu
        self.dirty = 0
        #: Live runs: first page within the block -> pages of addresses.
        self.used: dict[int, int] = {}
        #: Whether a TLB may show something that has been unmapped.
        self.unflushed = False


class VmapBlocks:
    """The blocks of all CPUs.  `cpu` is the one that runs."""

    def __init__(self, area: VmallocArea) -> None:
        self.area = area
        shape = area.machine.profile
        self.block_pages = block_pages(shape.bits, shape.cpus, shape.page_bytes)
        self.max_pages = shape.bits
        self.purge_below = self.block_pages // 4
        self.cpu = 0
        #: By CPU, the blocks that still have unused pages, oldest first.
        self._queues: list[list[VmapBlock]] = [[] for _ in range(shape.cpus)]
        #: All blocks, by number of the aligned piece of the area that they are.
        self._blocks: dict[int, VmapBlock] = {}
        #: First page -> pages, of mappings too large for a block.
        self._large: dict[int, int] = {}
        #: Why the last mapping that failed did.
        self.why: NoMemory | None = None
        self.block_maps = self.large_maps = self.new_blocks = self.purged_blocks = 0

    # -- mapping ---------------------------------------------------------------------------------------------------

    def vm_map_ram(self, frames: list[int]) -> int | None:
        """Address of these frames, side by side; None where there are no addresses or no memory for a page table."""
        area, count = self.area, len(frames)
        try:
            if count <= self.max_pages:
                first = self._from_block(1 << (count - 1).bit_length())
                self.block_maps += 1
            else:
                first = area.alloc_range(count, 1, f"vm_map_ram of {count} pages", kernel=True)
                self._large[first] = count
                self.large_maps += 1
        except NoMemory as error:
            self.why = error
            return None
        try:
            area.map_range(first, frames)
        except BaseException as error:
            self.vm_unmap_ram(first << area.shift, count)
            if isinstance(error, NoMemory):
                self.why = error
                return None
            raise
        return first << area.shift

    def vm_unmap_ram(self, address: int, count: int) -> None:
        """Undo `vm_map_ram` of `count` pages.  Raises `ValueError` where nothing is mapped so."""
        area, first = self.area, address >> self.area.shift
        if count > self.max_pages:
            if self._large.get(first) != count:
                raise ValueError(f"no {count} pages are mapped at address {address}")
            del self._large[first]
            area.unmap_range(first, count)
            area.free_range(first)
            return
        npages = 1 << (count - 1).bit_length()
        block = self._blocks.get(first // self.block_pages)
        if block is None or block.used.get(first - block.first) != npages:
            raise ValueError(f"no {count} pages are mapped at address {address}")
        del block.used[first - block.first]
        area.unmap_range(first, count)
        block.unflushed = True
        block.dirty += npages
        if block.dirty == self.block_pages:
            self._free(block)

    def _from_block(self, npages: int) -> int:
        queue = self._queues[self.cpu]
        for block in queue:
            if block.free >= npages:
                break
        else:
            block = self._new()
            queue = self._queues[block.cpu]
        at = self.block_pages - block.free
        block.free -= npages
        block.used[at] = npages
        if not block.free:
            queue.remove(block)
        return block.first + at

    def _new(self) -> VmapBlock:
        area, machine, cpu = self.area, self.area.machine, self.cpu
        books = machine.kernel_alloc(VMAP_BLOCK_BYTES, BOOKS)
        try:
            first = area.alloc_range(self.block_pages, self.block_pages, "a block of vm_map_ram", kernel=True)
        except BaseException:
            machine.kfree(books)
            raise
        block = self._blocks[first // self.block_pages] = VmapBlock(first, self.block_pages, books, cpu)
        self._queues[cpu].append(block)
        self.new_blocks += 1
        return block

    def _free(self, block: VmapBlock) -> None:
        del self._blocks[block.first // self.block_pages]
        self.area.free_range(block.first)
        self.area.machine.kfree(block.books)

    # -- purging ---------------------------------------------------------------------------------------------------

    def purge_fragmented(self) -> None:
        """Give up every block that has nothing live in it."""
        for block in [block for queue in self._queues for block in queue]:
            self._give_up(block, True)

    def flush_dirty(self) -> bool:
        """For vm_unmap_aliases: give up used-up blocks with nothing live; whether the others need a TLB flush."""
        dirty = False
        for block in list(self._blocks.values()):
            if not self._give_up(block, False) and block.unflushed:
                block.unflushed = False
                dirty = True
        return dirty

    def _give_up(self, block: VmapBlock, force: bool) -> bool:
        if block.free + block.dirty != self.block_pages:
            return False
        if not force and block.free >= self.purge_below:
            return False
        if block.free:
            self._queues[block.cpu].remove(block)
        block.free, block.dirty = 0, self.block_pages
        self.purged_blocks += 1
        self._free(block)
        return True

    # -- looking ---------------------------------------------------------------------------------------------------

    def blocks(self) -> list[tuple[int, int, int, int]]:
        """(first page, never used, dirty, live) pages of each block."""
        return [
            (block.first, block.free, block.dirty, self.block_pages - block.free - block.dirty)
            for block in self._blocks.values()
        ]

    def words(self) -> str:
        """What the blocks hold, for a message; empty where there are none."""
        rows = self.blocks()
        if not rows:
            return ""
        dirty, live = sum(row[2] for row in rows), sum(row[3] for row in rows)
        return (
            f"vm_map_ram holds {len(rows)} blocks of {self.block_pages} pages with {live} live and "
            f"{dirty} dirty ones, which are not used again before their block is"
        )

    def report(self) -> dict[str, Any]:
        """Its numbers, JSON-able."""
        rows = self.blocks()
        return {
            "block_pages": self.block_pages,
            "blocks": len(rows),
            "block_free_pages": sum(row[1] for row in rows),
            "block_dirty_pages": sum(row[2] for row in rows),
            "block_live_pages": sum(row[3] for row in rows),
            "block_maps": self.block_maps,
            "large_maps": self.large_maps,
            "new_blocks": self.new_blocks,
            "purged_blocks": self.purged_blocks,
        }
