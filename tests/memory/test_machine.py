"""The machine: accounts, the slab, charges, and the hard limit."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pocketxfs.errors import NoMemory
from pocketxfs.memory import Machine, profile

PAGE = 4096
KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(profile("nommu-16m", 4 * MIB)) as made:
        yield made


def free_pages(machine: Machine) -> int:
    """Free pages as buddyinfo has them."""
    words = machine.buddyinfo().split()
    assert words[:4] == ["Node", "0,", "zone", "Normal"] and len(words) == 15
    return sum(int(word) << order for order, word in enumerate(words[4:]))


class Mixed(RuleBasedStateMachine):
    """Everything at once on a small machine, to the limit and back."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(profile("host", 512 * KIB))
        self.held: list[tuple[str, int, int, str]] = []  # kind, offset, size as asked, owner
        self.charges: dict[str, int] = {}

    owners = st.sampled_from(["buf:dir", "buf:inode", "staging"])

    def check_offset(self, offset: int, nbytes: int, align: int) -> None:
        assert offset % align == 0 and offset >= 0 and offset + nbytes <= 512 * KIB

    @rule(order=st.integers(0, 6), owner=owners, noretry=st.booleans())
    def pages(self, order: int, owner: str, noretry: bool) -> None:
        try:
            offset = self.machine.alloc_pages(order, owner, noretry=noretry)
        except NoMemory:
            return
        self.check_offset(offset, PAGE << order, PAGE << order)
        self.held.append(("pages", offset, order, owner))

    @rule(nbytes=st.integers(1, 80_000), owner=owners)
    def exact(self, nbytes: int, owner: str) -> None:
        try:
            offset = self.machine.alloc_exact(nbytes, owner)
        except NoMemory:
            return
        self.check_offset(offset, nbytes, PAGE)
        self.held.append(("exact", offset, nbytes, owner))

    @rule(npages=st.integers(0, 140), owner=owners)
    def bulk(self, npages: int, owner: str) -> None:
        try:
            offsets = self.machine.alloc_bulk(npages, owner)
        except NoMemory:
            return
        assert len(offsets) == npages
        for offset in offsets:
            self.check_offset(offset, PAGE, PAGE)
            self.held.append(("pages", offset, 0, owner))

    @rule(nbytes=st.integers(1, 5000), owner=owners, times=st.integers(1, 30))
    def kmalloc(self, nbytes: int, owner: str, times: int) -> None:
        for _ in range(times):
            try:
                offset = self.machine.kmalloc(nbytes, owner)
            except NoMemory:
                return
            size = max(64, 1 << (nbytes - 1).bit_length())
            self.check_offset(offset, size, min(size, PAGE))
            if size < PAGE:
                assert offset // PAGE == (offset + size - 1) // PAGE
            self.held.append(("kmalloc", offset, nbytes, owner))

    @rule(nbytes=st.integers(0, 100_000), owner=owners)
    def charge(self, nbytes: int, owner: str) -> None:
        try:
            self.machine.charge(owner, nbytes)
        except NoMemory:
            return
        self.charges[owner] = self.charges.get(owner, 0) + nbytes

    @rule(owner=owners, part=st.floats(0, 1))
    def uncharge(self, owner: str, part: float) -> None:
        nbytes = int(self.charges.get(owner, 0) * part)
        self.machine.uncharge(owner, nbytes)
        self.charges[owner] = self.charges.get(owner, 0) - nbytes
        with pytest.raises(ValueError):
            self.machine.uncharge(owner, self.charges[owner] + 1)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), count=st.integers(1, 40))
    def free(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.held))):
            self.give(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    def give(self, item: tuple[str, int, int, str]) -> None:
        kind, offset, size, _ = item
        if kind == "pages":
            self.machine.free_pages(offset, size)
        elif kind == "exact":
            self.machine.free_exact(offset, size)
        else:
            self.machine.kfree(offset)

    @invariant()
    def accounts(self) -> None:
        machine = self.machine
        taken: list[tuple[int, int]] = []
        by_owner = dict(self.charges)
        for kind, offset, size, owner in self.held:
            if kind == "pages":
                nbytes = PAGE << size
            elif kind == "exact":
                nbytes = -(-size // PAGE) * PAGE
            else:
                nbytes = max(64, 1 << (size - 1).bit_length())
            taken.append((offset, nbytes))
            by_owner[owner] = by_owner.get(owner, 0) + nbytes
        taken.sort()
        for (offset, nbytes), (following, _) in zip(taken, taken[1:], strict=False):
            assert offset + nbytes <= following, "a byte in two places"
        owners = machine.owners()
        assert sum(owners.values()) == machine.used_bytes <= machine.high_water_bytes
        assert machine.used_bytes == 512 * KIB - free_pages(machine) * PAGE
        rest = {name: owners.pop(name, 0) for name in ("slab", "charged")}
        assert min(rest.values()) >= 0 and rest["charged"] < PAGE
        assert owners == {name: nbytes for name, nbytes in by_owner.items() if nbytes}
        assert 512 * KIB - machine.high_water_bytes >= machine.watermarks.min * PAGE
        names, picture = machine.page_owners()
        assert len(picture) - picture.count(0) == machine.used_bytes // PAGE
        assert names[0] == ""

    def teardown(self) -> None:
        for item in self.held:
            self.give(item)
        for owner, nbytes in self.charges.items():
            self.machine.uncharge(owner, nbytes)
        assert self.machine.used_bytes == 0
        assert self.machine.buddyinfo().split()[-4:-1] == ["1", "0", "0"]
        self.machine.close()


Mixed.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestMixed = Mixed.TestCase


def test_memory_is_really_there(machine: Machine) -> None:
    first, second = machine.alloc_pages(1, "a"), machine.kmalloc(512, "a")
    machine.map[first : first + 8192] = b"\xaa" * 8192
    machine.map[second : second + 512] = b"\x55" * 512
    assert bytes(machine.map[first : first + 8192]) == b"\xaa" * 8192


def test_slab_sizes(machine: Machine) -> None:
    for nbytes in (1, 64, 65, 128, 200, 512, 1000, 2048):
        size = max(64, 1 << (nbytes - 1).bit_length())
        offsets = [machine.kmalloc(nbytes, "x") for _ in range(PAGE // size)]
        assert len({offset // PAGE for offset in offsets}) == 1  # one page, full
        assert sorted(offset % PAGE for offset in offsets) == list(range(0, PAGE, size))
        for offset in offsets:
            machine.kfree(offset)
        assert machine.used_bytes == 0
    offsets = [machine.kmalloc(512, "x") for _ in range(16)]
    machine.kfree(offsets[3])
    assert machine.kmalloc(512, "x") == offsets[3]  # a full slab has room again
    for offset in offsets:
        machine.kfree(offset)
    whole = machine.kmalloc(2049, "x")
    assert whole % PAGE == 0 and machine.used_bytes == PAGE
    machine.kfree(whole)
    large = machine.kmalloc(3 * PAGE, "x")
    assert machine.used_bytes == 4 * PAGE
    machine.kfree(large)
    assert machine.used_bytes == 0


def test_what_was_not_allocated_cannot_be_freed(machine: Machine) -> None:
    page = machine.alloc_pages(1, "x")
    small = machine.kmalloc(512, "x")
    before = machine.report()
    for wrong in (
        lambda: machine.free_pages(page, 0),
        lambda: machine.free_pages(page + PAGE, 0),
        lambda: machine.free_pages(page + 1, 1),
        lambda: machine.free_pages(-PAGE, 0),
        lambda: machine.free_exact(page, PAGE),
        lambda: machine.kfree(small + 1),
        lambda: machine.kfree(small + 512),
        lambda: machine.kfree(3 * MIB),
        lambda: machine.uncharge("x", 1),
        lambda: machine.charge("x", -1),
        lambda: machine.alloc_exact(0, "x"),
        lambda: machine.kmalloc(0, "x"),
        lambda: machine.alloc_bulk(-1, "x"),
        lambda: machine.alloc_pages(0, ""),
    ):
        with pytest.raises(ValueError):
            wrong()
    assert machine.report() == before
    machine.free_pages(page, 1)
    with pytest.raises(ValueError):
        machine.free_pages(page, 1)


def test_charges_take_whole_pages_of_the_sum(machine: Machine) -> None:
    for _ in range(10):
        machine.charge("inode", 1000)
    machine.charge("extents", 500)
    assert machine.used_bytes == 3 * PAGE
    assert machine.owners() == {"inode": 10_000, "extents": 500, "charged": 3 * PAGE - 10_500}
    machine.uncharge("inode", 9000)
    assert machine.used_bytes == PAGE
    machine.uncharge("inode", 1000)
    machine.uncharge("extents", 500)
    assert machine.used_bytes == 0 and machine.high_water_bytes == 3 * PAGE


def test_the_hard_limit_names_who_holds_what(machine: Machine) -> None:
    machine.charge("inode", 100_000)
    with pytest.raises(NoMemory) as caught:
        while True:
            machine.alloc_pages(2, "buf:dir")
    message = str(caught.value)
    assert message.startswith("possible memory allocation deadlock: order 2 ")
    assert "held by: buf:dir " in message and "inode 100000 bytes" in message
    assert caught.value.errno == 12
    assert machine.high_water_bytes <= 4 * MIB - machine.watermarks.min * PAGE
    failure = machine.last_failure
    assert failure is not None and failure["order"] == 2 and failure["owners"]["inode"] == 100_000
    assert machine.statistics["failed"][2] == 1
    json.dumps(machine.report())


def test_a_charge_that_fails_changes_nothing(machine: Machine) -> None:
    machine.charge("inode", 5000)
    before = machine.owners()
    with pytest.raises(NoMemory):
        machine.charge("inode", 5 * MIB)
    assert machine.owners() == before and machine.used_bytes == 2 * PAGE
    machine.uncharge("inode", 5000)
    assert machine.used_bytes == 0


def test_bulk_is_all_or_nothing(machine: Machine) -> None:
    with pytest.raises(NoMemory):
        machine.alloc_bulk(1020, "x")
    assert machine.used_bytes == 0
    offsets = machine.alloc_bulk(1000, "x")
    assert len(set(offsets)) == 1000
    machine.free_bulk(offsets)
    assert free_pages(machine) == 1024 and machine.buddyinfo().split()[-1] == "1"


def test_fragmented_memory_is_refused_and_said_to_be(machine: Machine) -> None:
    """Enough single pages free, no run of two: the report's index says fragmentation, not shortage."""
    offsets = machine.alloc_bulk(1000, "x")
    machine.free_bulk([offset for offset in offsets if offset // PAGE % 2])
    while machine.buddyinfo().split()[5:] != ["0"] * 10:
        machine.alloc_pages(1, "y")
    with pytest.raises(NoMemory, match="fragmentation index") as caught:
        machine.alloc_pages(1, "buf:dir")
    assert machine.last_failure is not None and machine.last_failure["fragmentation_index"] > 400
    assert machine.last_failure["free_pages"] > machine.watermarks.high
    assert "reserve" in str(caught.value)
    machine.alloc_pages(0, "buf:dir")


def test_noretry_says_no_quickly(machine: Machine) -> None:
    held = [machine.alloc_pages(0, "x", noretry=True) for _ in range(1024 - machine.watermarks.min)]
    for _ in range(3):
        with pytest.raises(NoMemory, match="without reclaim"):
            machine.alloc_pages(0, "ra", noretry=True)
        with pytest.raises(NoMemory, match="without reclaim"):
            machine.kmalloc(512, "ra", noretry=True)
    assert machine.statistics["reclaim_runs"] == 0
    machine.free_bulk(held)


def test_more_than_the_machine_has(machine: Machine) -> None:
    for wrong in (
        lambda: machine.alloc_pages(11, "x"),
        lambda: machine.alloc_exact(5 * MIB, "x"),
        lambda: machine.alloc_bulk(1024, "x"),
        lambda: machine.kmalloc(8 * MIB, "x"),
    ):
        with pytest.raises(NoMemory, match="more than the machine has"):
            wrong()
    assert machine.statistics["reclaim_runs"] == 0


def test_as_many_owners_as_a_byte_counts(machine: Machine) -> None:
    for number in range(255):
        machine.free_pages(machine.alloc_pages(0, f"owner {number}"), 0)
    with pytest.raises(ValueError, match="255"):
        machine.alloc_pages(0, "one more")
    assert machine.used_bytes == 0
