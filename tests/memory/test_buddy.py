"""The page allocator against a plain reference: the set of allocated pages, and what coalescing makes of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pocketxfs.memory.buddy import (
    MAX_ORDER,
    NO_WATERMARK,
    NR_ORDERS,
    Buddy,
    fragmentation_index,
    suitable,
    unusable_index,
    watermarks,
)


def coalesced(npages: int, used: set[int]) -> list[int]:
    """Free blocks by order when every block is as large as it can be: found by looking at each page of each block."""
    counts = [0] * NR_ORDERS
    page = 0
    while page < npages:
        for order in range(MAX_ORDER, -1, -1):
            size = 1 << order
            if page % size == 0 and page + size <= npages and used.isdisjoint(range(page, page + size)):
                counts[order] += 1
                page += size
                break
        else:
            page += 1
    return counts


class Pages(RuleBasedStateMachine):
    """Blocks, trimmed runs and single pages come and go; nothing is ever in two places."""

    @initialize(npages=st.integers(1, 2500), mark=st.sampled_from([0, 0, 7, 100]))
    def start(self, npages: int, mark: int) -> None:
        self.npages, self.mark = npages, mark
        self.buddy = Buddy(npages)
        self.used: set[int] = set()
        self.blocks: list[tuple[int, int]] = []
        self.runs: list[tuple[int, int]] = []
        self.least_free = npages

    def take(self, pages: range | list[int]) -> None:
        assert self.used.isdisjoint(pages)
        assert len(set(pages)) == len(pages)
        assert min(pages) >= 0 and max(pages) < self.npages
        self.used.update(pages)
        self.least_free = min(self.least_free, self.npages - len(self.used))

    def may(self, order: int) -> bool:
        """The kernel's rule: what is left, but for one page, is above the mark, and there is a suitable block."""
        free = self.npages - len(self.used)
        above = free - ((1 << order) - 1) > self.mark
        return above and suitable(coalesced(self.npages, self.used), order) > 0

    @rule(order=st.integers(0, MAX_ORDER))
    def alloc(self, order: int) -> None:
        expected = self.may(order)
        page = self.buddy.alloc(order, self.mark)
        assert (page >= 0) == expected
        if page >= 0:
            assert page % (1 << order) == 0
            assert self.buddy.order_of(page) == order
            self.take(range(page, page + (1 << order)))
            self.blocks.append((page, order))

    @rule(npages=st.integers(1, 80))
    def alloc_run(self, npages: int) -> None:
        order = (npages - 1).bit_length()
        expected = self.may(order)
        page = self.buddy.alloc_run(npages, self.mark)
        assert (page >= 0) == expected
        if page >= 0:
            assert page % (1 << order) == 0
            self.take(range(page, page + npages))
            self.runs.append((page, npages))

    @rule(npages=st.integers(1, 200))
    def alloc_bulk(self, npages: int) -> None:
        free = self.npages - len(self.used)
        pages = self.buddy.alloc_bulk(npages, self.mark)
        assert (pages is not None) == (free - (npages - 1) > self.mark)
        if pages is not None:
            assert len(pages) == npages
            self.take(pages)
            self.blocks.extend((page, 0) for page in pages)

    @rule(count=st.integers(1, 120), seed=st.randoms(use_true_random=False))
    def give(self, count: int, seed: Any) -> None:
        seed.shuffle(self.blocks)
        for page, order in self.blocks[:count]:
            self.buddy.give(page, order)
            self.used.difference_update(range(page, page + (1 << order)))
        del self.blocks[:count]

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def give_run(self, data: st.DataObject) -> None:
        page, npages = self.runs.pop(data.draw(st.integers(0, len(self.runs) - 1)))
        self.buddy.give_run(page, npages)
        self.used.difference_update(range(page, page + npages))

    @rule(order=st.integers(0, MAX_ORDER), data=st.data())
    def refuse(self, order: int, data: st.DataObject) -> None:
        """What is not allocated, or not so, cannot be given back, and trying changes nothing."""
        page = data.draw(st.integers(0, self.npages - 1))
        if (page, order) not in self.blocks:
            with pytest.raises(ValueError):
                self.buddy.give(page, order)

    @rule()
    def look(self) -> None:
        assert self.buddy.counts() == coalesced(self.npages, self.used)

    @invariant()
    def account(self) -> None:
        if hasattr(self, "buddy"):
            assert self.buddy.free == self.npages - len(self.used)
            assert self.buddy.least_free == self.least_free

    def teardown(self) -> None:
        if not hasattr(self, "buddy"):
            return
        buddy = self.buddy
        assert buddy.counts() == coalesced(self.npages, self.used)
        listed = [
            page
            for order, blocks in enumerate(buddy.lists)
            for head in blocks
            for page in range(head, head + (1 << order))
        ]
        assert sorted(listed) == sorted(set(range(self.npages)) - self.used)
        for page, order in self.blocks:
            buddy.give(page, order)
        for page, npages in self.runs:
            buddy.give_run(page, npages)
        assert buddy.counts() == coalesced(self.npages, set())
        assert buddy.free == self.npages


Pages.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestPages = Pages.TestCase


def test_a_fresh_machine_is_whole() -> None:
    assert Buddy(4096).counts() == [0] * 10 + [4]
    assert Buddy(1025).counts() == [1] + [0] * 9 + [1]
    assert Buddy(64).counts() == [0] * 6 + [1] + [0] * 4


def test_low_pages_first_and_the_last_given_back_first() -> None:
    buddy = Buddy(4096)
    pages = [buddy.alloc(0, 0) for _ in range(10)]
    assert pages == list(range(10))
    buddy.give(3, 0)
    buddy.give(7, 0)
    assert [buddy.alloc(0, 0) for _ in range(3)] == [7, 3, 10]


def test_a_run_of_17_takes_17_and_a_block_of_32_takes_32() -> None:
    buddy = Buddy(1024)
    assert buddy.alloc_run(17, 0) == 0
    assert buddy.free == 1024 - 17
    assert buddy.least_free == 1024 - 17
    assert buddy.alloc(5, 0) == 32
    assert buddy.free == 1024 - 17 - 32
    with pytest.raises(ValueError):
        buddy.give_run(0, 18)
    with pytest.raises(ValueError):
        buddy.give(0, 4)
    buddy.give_run(0, 5)  # a part of it
    buddy.give_run(5, 12)
    buddy.give(32, 5)
    assert buddy.counts() == [0] * 10 + [1]


def test_nothing_is_larger_than_the_largest_order() -> None:
    buddy = Buddy(8192)
    assert buddy.alloc(11, NO_WATERMARK) == -1
    assert buddy.alloc_run(1025, NO_WATERMARK) == -1
    assert buddy.free == 8192


def test_watermark_counts_what_is_left() -> None:
    buddy = Buddy(16)
    assert buddy.alloc(3, 9) == -1
    assert buddy.alloc(3, 8) == 0
    assert buddy.alloc(0, 8) == -1
    assert buddy.alloc(0, 7) == 8
    assert buddy.alloc(0, NO_WATERMARK) == 9


def test_watermarks_are_small_and_in_order() -> None:
    for mib in (1, 4, 8, 16, 64, 1024):
        npages = mib << 8
        least, low, high = watermarks(npages)
        assert 0 < least < low < high <= npages // 10
    assert watermarks(4096).min == 32  # 128 KiB of 16 MiB
    assert watermarks(1024).min == 16  # 64 KiB of 4 MiB


def test_indexes_worked_by_hand() -> None:
    # Four single pages, a block of 2: an order-3 request fails for want of pages, an order-1 request does not fail.
    counts = [4, 1] + [0] * 9
    assert fragmentation_index(counts, 1) == -1000
    assert fragmentation_index(counts, 3) == 1000 - (1000 + 6000 // 8) // 5
    assert unusable_index(counts, 0) == 0
    assert unusable_index(counts, 1) == 4 * 1000 // 6
    assert unusable_index(counts, 3) == 1000
    # A thousand single pages: fragmentation and nothing else.
    assert fragmentation_index([1000] + [0] * 10, 2) == 1000 - (1000 + 250_000) // 1000
    assert fragmentation_index([0] * 11, 2) == 0
    assert unusable_index([0] * 11, 2) == 1000


@given(st.lists(st.integers(0, 300), min_size=NR_ORDERS, max_size=NR_ORDERS), st.integers(0, MAX_ORDER))
def test_indexes_keep_their_meaning(counts: list[int], order: int) -> None:
    usable = sum(count << larger for larger, count in enumerate(counts) if larger >= order)
    free = sum(count << larger for larger, count in enumerate(counts))
    index = fragmentation_index(counts, order)
    assert (index == -1000) == (usable > 0)
    if free:
        assert unusable_index(counts, order) == (free - usable) * 1000 // free
    if not usable and free >= 1 << order:
        assert index >= 0  # memory there would be, in pieces
