"""Reclaim: shrinkers are asked, with the scope, never from within themselves, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pocketxfs.errors import NoMemory
from pocketxfs.memory import NOFS, NOIO, NORMAL, Machine, nofs, noio, profile

PAGE = 4096
NPAGES = 1024


class Cache:
    """A cache of pages; like a buffer LRU, it frees none before it has been asked `references` times."""

    def __init__(self, machine: Machine, name: str = "cache", order: int = 0, references: int = 0) -> None:
        self.machine, self.name, self.order, self.references = machine, name, order, references
        self.held: list[int] = []
        self.scans: list[tuple[int, int]] = []
        self.locked = False
        machine.register_shrinker(self)

    def fill(self, blocks: int) -> None:
        for _ in range(blocks):
            self.held.append(self.machine.alloc_pages(self.order, self.name))

    def count(self) -> int:
        return len(self.held) * PAGE << self.order

    def scan(self, nbytes: int, scope: int) -> int:
        self.scans.append((nbytes, scope))
        if self.locked or scope >= NOFS:
            return 0
        if self.references:
            self.references -= 1
            return 0
        freed = 0
        while self.held and freed < nbytes:
            self.machine.free_pages(self.held.pop(0), self.order)
            freed += PAGE << self.order
        return freed

    def owners(self) -> Iterator[tuple[str, int]]:
        yield f"{len(self.held)} blocks", self.count()


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(profile("host", NPAGES * PAGE)) as made:
        yield made


def test_a_cache_gives_way_for_ever(machine: Machine) -> None:
    cache = Cache(machine)
    cache.fill(5 * NPAGES)
    assert machine.used_bytes <= (NPAGES - machine.watermarks.min) * PAGE
    assert machine.statistics["failed"] == [0] * 11
    # Reclaim works in batches, from the low mark to the high one, not for each page.
    assert machine.statistics["reclaim_runs"] < 5 * NPAGES // 10
    assert all(scope == NORMAL for _, scope in cache.scans)


def test_free_memory_stays_between_the_marks(machine: Machine) -> None:
    cache = Cache(machine)
    cache.fill(3 * NPAGES)
    for _ in range(200):
        cache.fill(1)
        assert machine.watermarks.low <= machine.free_bytes // PAGE <= machine.watermarks.high + 1
    # So readahead, which may not reclaim, finds something.
    machine.alloc_pages(0, "ra", noretry=True)


def test_the_scope_reaches_shrinkers(machine: Machine) -> None:
    cache = Cache(machine)
    with nofs(), pytest.raises(NoMemory, match="scope nofs"):
        cache.fill(2 * NPAGES)
    assert cache.scans and {scope for _, scope in cache.scans} == {NOFS}
    cache.scans.clear()
    with noio(), pytest.raises(NoMemory, match="scope noio"):
        cache.fill(1)
    assert {scope for _, scope in cache.scans} == {NOIO}
    cache.fill(1)  # and outside of both it goes on
    assert machine.statistics["failed"][0] == 2


def test_references_go_down_before_anything_is_freed(machine: Machine) -> None:
    cache = Cache(machine, references=6)
    cache.fill(2 * NPAGES)
    assert cache.references == 0


def test_what_is_locked_is_reported_not_waited_for(machine: Machine) -> None:
    cache = Cache(machine)
    cache.locked = True
    with pytest.raises(NoMemory) as caught:
        cache.fill(2 * NPAGES)
    assert "in caches: cache:" in str(caught.value)
    assert len(cache.scans) < 1000
    with pytest.raises(NoMemory):
        machine.alloc_pages(3, "x")


def test_a_shrinker_that_lies_does_not_hang_it(machine: Machine) -> None:
    class Liar(Cache):
        def scan(self, nbytes: int, scope: int) -> int:
            self.scans.append((nbytes, scope))
            return nbytes

    liar = Liar(machine)
    with pytest.raises(NoMemory):
        liar.fill(2 * NPAGES)
    assert len(liar.scans) < 1000


def test_shares_follow_what_caches_hold(machine: Machine) -> None:
    large, small = Cache(machine, "large"), Cache(machine, "small")
    large.fill(600)
    small.fill(100)
    machine.free_bulk(machine.alloc_bulk(NPAGES - 700 - machine.watermarks.low + 60, "x"))
    assert large.scans and small.scans
    assert large.scans[0][0] > 4 * small.scans[0][0]


def test_reclaim_does_not_enter_itself(machine: Machine) -> None:
    depth = 0

    class Hungry(Cache):
        def scan(self, nbytes: int, scope: int) -> int:
            nonlocal depth
            depth += 1
            assert depth == 1
            page = self.machine.alloc_pages(0, "writeback")  # from the reserve
            freed = super().scan(nbytes, scope)
            self.machine.free_pages(page, 0)
            depth -= 1
            return freed

    cache = Hungry(machine)
    cache.fill(3 * NPAGES)
    assert machine.statistics["failed"] == [0] * 11


def test_an_allocation_inside_reclaim_that_finds_nothing_fails(machine: Machine) -> None:
    class Glutton(Cache):
        error: NoMemory | None = None

        def scan(self, nbytes: int, scope: int) -> int:
            try:
                while True:
                    self.held.append(self.machine.alloc_pages(0, self.name))
            except NoMemory as error:
                self.error = error
            return super().scan(1 << 40, scope)

    cache = Glutton(machine)
    cache.fill(2 * NPAGES)
    assert cache.error is not None and "inside reclaim" in str(cache.error)
    assert machine.high_water_bytes == NPAGES * PAGE


def test_an_error_in_a_shrinker_comes_out_and_leaves_reclaim_usable(machine: Machine) -> None:
    class Broken(Cache):
        def scan(self, nbytes: int, scope: int) -> int:
            raise RuntimeError("torn")

    broken = Broken(machine)
    with pytest.raises(RuntimeError, match="torn"):
        broken.fill(2 * NPAGES)
    machine.unregister_shrinker(broken)
    cache = Cache(machine, "second")
    cache.held, broken.held = broken.held, []
    cache.fill(NPAGES)


def test_runs_are_found_by_shrinking_further(machine: Machine) -> None:
    """Pages are freed in an order that joins nothing at first; reclaim goes on until the run is there."""
    cache = Cache(machine)
    cache.fill(970)
    cache.held = cache.held[::2] + cache.held[1::2]
    big = machine.alloc_pages(6, "iclog")
    assert big % (PAGE << 6) == 0
    assert machine.statistics["retried"][6] == 1
    assert machine.statistics["reclaim_rounds"] < 7  # each asks for twice as much


def test_charges_are_given_back_in_the_middle_of_a_charge(machine: Machine) -> None:
    class Inodes:
        name = "inode"

        def __init__(self) -> None:
            self.charged = 0
            self.freed = 0

        def count(self) -> int:
            return self.charged

        def scan(self, nbytes: int, scope: int) -> int:
            freed = min(self.charged, nbytes)
            self.charged -= freed
            self.freed += freed
            machine.uncharge(self.name, freed)
            return freed

        def owners(self) -> list[tuple[str, int]]:
            return [(self.name, self.charged)]

    inodes = Inodes()
    machine.register_shrinker(inodes)
    for _ in range(20_000):
        machine.charge("inode", 768)
        inodes.charged += 768
        assert machine.used_bytes == -(-inodes.charged // PAGE) * PAGE
    assert inodes.freed > 0
    assert machine.owners()["inode"] == inodes.charged
    assert machine.used_bytes == -(-inodes.charged // PAGE) * PAGE
    inodes.scan(1 << 40, NORMAL)
    assert machine.used_bytes == 0


def test_an_impossible_wish_does_not_empty_the_caches(machine: Machine) -> None:
    cache = Cache(machine)
    cache.fill(500)
    with pytest.raises(NoMemory):
        machine.alloc_bulk(NPAGES, "x")
    assert not cache.scans
