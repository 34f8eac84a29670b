"""The page allocator: a binary buddy over page numbers.

Free memory is kept as naturally aligned blocks of 2^order pages, order 0 to 10.  A block is split when nothing of the
size wanted is there, and joined with its buddy, as far as that goes, when it is given back.  An allocation must leave
`mark` pages and find a block (MEMORY.md, "Watermark").  The smallest block that does is taken, splitting gives out the
low half, and what was given back last goes out first: RAM never used stays untouched as long as it can.

Single pages come and go fastest through `hot`, a stack of free pages that have not been joined yet.  They count as
free, and are joined (`drain`) before a block would have to be split and before anyone looks: nobody sees the delay.

Everything here is in pages and page numbers.  Per page there is one byte of state and no Python object.  Source:
MEMORY.md, "Memory management"; the indexes are those of /sys/kernel/debug/extfrag.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

MAX_ORDER = 10
NR_ORDERS = MAX_ORDER + 1

#: A mark that no allocation fails on (kernel: ALLOC_NO_WATERMARKS): for reclaim itself.
NO_WATERMARK = -(1 << MAX_ORDER + 1)

# State of a page: order + 1 at the first page of a free block; 0 in the rest of any block.
_HOT = 0x20  # free, on the hot stack
_HEAD = 0x40  # | order: first page of an allocated block
_RUN = 0x60  # any page of an allocated trimmed run


class Watermarks(NamedTuple):
    """Pages that must stay free: `min` after any allocation; below `low` reclaim starts, and goes on to `high`."""

    min: int
    low: int
    high: int


def watermarks(npages: int, page_bytes: int = 4096) -> Watermarks:
    """The kernel's min_free_kbytes is sqrt(16 × RAM in KiB), against interrupts, networks and compaction.

    Here only reclaim uses the reserve, and a quarter of that is kept: 128 KiB of 16 MiB, 64 KiB of 4 MiB.  The
    distance to low and from there to high is a 64th of RAM (kernel: watermark_scale_factor, 156 of 10,000).
    """
    ram_kib = npages * page_bytes >> 10
    least = max(1, (isqrt(ram_kib) << 10) // page_bytes)
    gap = max(least // 4, npages >> 6, 1)
    return Watermarks(least, least + gap, least + 2 * gap)


def suitable(counts: list[int], order: int) -> int:
    """How many blocks of `order` the free blocks (`counts` by order, as in /proc/buddyinfo) contain."""
    return sum(counts[larger] << larger - order for larger in range(order, len(counts)))


def fragmentation_index(counts: list[int], order: int) -> int:
    """Why an allocation of `order` fails: near 0 too little memory, near 1000 fragmentation; -1000: it does not."""
    blocks = sum(counts)
    if not blocks:
        return 0
    if suitable(counts, order):
        return -1000
    return 1000 - (1000 + suitable(counts, 0) * 1000 // (1 << order)) // blocks


def unusable_index(counts: list[int], order: int) -> int:
    """Thousandths of the free memory that lie in blocks too small for `order`; 1000 where nothing is free."""
    free = suitable(counts, 0)
    if not free:
        return 1000
    return (free - (suitable(counts, order) << order)) * 1000 // free


class Buddy:
    """Free and allocated blocks of `npages` page frames.

    `free` pages now, `least_free` ever; `allocations`, by order, counts what was given out.
    """

    __slots__ = ("allocations", "free", "hot", "least_free", "lists", "npages", "splits", "state")

    def __init__(self, npages: int) -> None:
        self.npages = self.free = self.least_free = npages
        # Padded to whole blocks of the largest order, so that a buddy's state can always be looked at.
        self.state = bytearray(-(-npages >> MAX_ORDER) << MAX_ORDER)
        #: Free blocks by order, each dict used as an ordered set.
        self.lists: list[dict[int, None]] = [{} for _ in range(NR_ORDERS)]
        self.hot: list[int] = []
        self.allocations = [0] * NR_ORDERS
        self.splits = 0
        self._give_range(0, npages)

    # -- blocks of 2^order pages ---------------------------------------------------------------------------------

    def alloc(self, order: int, mark: int) -> int:
        """First page of a block, or -1 where that would leave too little or no block is large enough."""
        left = self.free - (1 << order)
        if left < mark:  # the kernel's free - ((1 << order) - 1) <= mark
            return -1
        if not order and self.hot:
            page = self.hot.pop()
        else:
            page = self._take(order)
            if page < 0:
                return -1
        self.state[page] = _HEAD | order
        self.free = left
        if left < self.least_free:
            self.least_free = left
        self.allocations[order] += 1
        return page

    def give(self, page: int, order: int) -> None:
        """Give back a block.  Raises `ValueError` where there is none of that order at that page."""
        state = self.state
        if state[page] != _HEAD | order:
            raise ValueError(f"page {page} is not an allocated block of order {order}")
        if order:
            state[page] = 0
            self.free += 1 << order
            self._join(page, order)
        else:
            state[page] = _HOT
            self.free += 1
            self.hot.append(page)

    def order_of(self, page: int) -> int:
        """Order of the allocated block that begins at `page`; -1 where none does."""
        state = self.state[page]
        return state & 0x1F if state & 0xE0 == _HEAD else -1

    # -- trimmed runs (kernel: alloc_pages_exact) ----------------------------------------------------------------

    def alloc_run(self, npages: int, mark: int) -> int:
        """First page of a run of exactly `npages`, cut from a block of the next order; -1 as `alloc`."""
        order = (npages - 1).bit_length()
        if order > MAX_ORDER or self.free - (1 << order) < mark:
            return -1
        page = self._take(order)
        if page < 0:
            return -1
        self.state[page : page + npages] = bytes((_RUN,)) * npages
        self._give_range(page + npages, page + (1 << order))
        self.free -= npages
        if self.free < self.least_free:
            self.least_free = self.free
        self.allocations[order] += 1
        return page

    def give_run(self, page: int, npages: int) -> None:
        """Give back a run, or a part of one.  Raises `ValueError` where it is not all allocated so."""
        if npages <= 0 or self.state[page : page + npages] != bytes((_RUN,)) * npages:
            raise ValueError(f"pages {page} to {page + npages - 1} are not an allocated run")
        self.state[page : page + npages] = bytes(npages)
        self.free += npages
        self._give_range(page, page + npages)

    # -- many single pages (kernel: alloc_pages_bulk) ------------------------------------------------------------

    def alloc_bulk(self, npages: int, mark: int) -> list[int] | None:
        """`npages` single pages, from the smallest blocks first; None where that would leave too little."""
        left = self.free - npages
        if left < mark or left < 0:
            return None
        hot, state, lists = self.hot, self.state, self.lists
        pages: list[int] = []
        need = npages
        if hot and need:
            pages = hot[-need:]
            del hot[-need:]
            need -= len(pages)
        order = 0
        while need:
            while not lists[order]:
                order += 1
            head = lists[order].popitem()[0]
            size = 1 << order
            if size > need:
                self._give_range(head + need, head + size)
                size = need
                self.splits += 1
            pages.extend(range(head, head + size))
            need -= size
        for page in pages:
            state[page] = _HEAD
        self.free = left
        if left < self.least_free:
            self.least_free = left
        self.allocations[0] += npages
        return pages

    # -- looking -------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Join the hot pages with their buddies."""
        hot, state, join = self.hot, self.state, self._join
        for page in hot:
            state[page] = 0
            join(page, 0)
        hot.clear()

    def counts(self) -> list[int]:
        """Free blocks by order, as in /proc/buddyinfo."""
        self.drain()
        return [len(blocks) for blocks in self.lists]

    # -- inside --------------------------------------------------------------------------------------------------

    def _take(self, order: int) -> int:
        """Take a free block off the lists, splitting a larger one where need be; -1 where there is none.

        Its first page's state still says free, which no smaller block can mistake for a buddy: the caller sets it.
        """
        if order > MAX_ORDER:
            return -1
        lists, state = self.lists, self.state
        if lists[order]:
            return lists[order].popitem()[0]
        if self.hot:
            self.drain()
            if lists[order]:
                return lists[order].popitem()[0]
        found = order + 1
        while found <= MAX_ORDER:
            if lists[found]:
                break
            found += 1
        else:
            return -1
        page = lists[found].popitem()[0]
        self.splits += found - order
        while found > order:
            found -= 1
            upper = page + (1 << found)
            lists[found][upper] = None
            state[upper] = found + 1
        return page

    def _join(self, page: int, order: int) -> None:
        """Put a block on the lists, joined with its buddies as far as they are free.  Its state is 0 already."""
        state, lists = self.state, self.lists
        while order < MAX_ORDER:
            buddy = page ^ 1 << order
            if state[buddy] != order + 1:
                break
            del lists[order][buddy]
            state[buddy] = 0
            if buddy < page:
                page = buddy
            order += 1
        state[page] = order + 1
        lists[order][page] = None

    def _give_range(self, start: int, end: int) -> None:
        """Put pages on the lists as the largest aligned blocks, the highest first so that the lowest are used first."""
        while end > start:
            order = min(((end & -end).bit_length() - 1), (end - start).bit_length() - 1, MAX_ORDER)
            end -= 1 << order
            self._join(end, order)
