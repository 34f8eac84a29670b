"""Who may let reclaim into the filesystem, and the report on who does: both stacks, before it happens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from pocketxfs.errors import ReclaimDeadlock
from pocketxfs.memory import NOFS, NORMAL, Machine, current_scope, nofs, noio, profile
from pocketxfs.memory.context import ReclaimRecursion, call_scope

PAGE = 4096
MIB = 1 << 20


def opened(name: str, ram: int = 4 * MIB) -> Machine:
    return Machine(profile(name, ram))


@pytest.fixture
def scoped() -> Iterator[Machine]:
    with opened("x86_64") as machine:
        yield machine


@pytest.fixture
def flagged() -> Iterator[Machine]:
    """The code of 2015: flags on each call, page tables GFP_KERNEL."""
    with opened("x86_64:flags-per-call") as machine:
        yield machine


def begin_transaction(machine: Machine) -> None:
    """Opens the region and maps: the frames of this function must be in both stacks."""
    with machine.fs_region("transaction"):
        map_something(machine)


def map_something(machine: Machine) -> None:
    frames = machine.alloc_bulk(4, "buf:dir")
    assert machine.vmalloc_area.blocks.vm_map_ram(frames) is not None


def test_a_region_is_a_scope(scoped: Machine) -> None:
    with scoped.fs_region("transaction"):
        assert current_scope() == NOFS
        with scoped.fs_region("inner"), noio():
            assert [name for name, _ in scoped.regions] == ["transaction", "inner"]
        assert current_scope() == NOFS and len(scoped.regions) == 1
    assert current_scope() == NORMAL and scoped.regions == []
    with pytest.raises(KeyError), scoped.fs_region("torn"):
        raise KeyError
    assert scoped.regions == []


def test_inside_a_scope_nothing_is_reported(scoped: Machine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin_transaction(scoped)
        map_something(scoped)
    assert scoped.recursions == [] and scoped.report()["recursions"] == []


def test_a_page_table_without_a_scope_is_reported_with_both_stacks(flagged: Machine) -> None:
    map_something(flagged)  # outside of any region it may reclaim what it likes
    flagged.vmalloc_area.close()
    flagged._vmalloc = None
    with pytest.warns(ReclaimRecursion) as caught:
        begin_transaction(flagged)
    assert {found.owner for found in flagged.recursions} == {"pagetable", "vmap_block", "vmap_area"}
    assert len(caught) == len(flagged.recursions)
    found = next(one for one in flagged.recursions if one.owner == "pagetable")
    assert found.region == "transaction"
    allocated, entered = [name for *_, name in found.allocated], [name for *_, name in found.entered]
    assert allocated[:3] == ["Machine.kernel_alloc", "PageTable._page", "PageTable.populate"]
    assert "map_something" in allocated and "begin_transaction" in allocated
    assert entered[0] == "begin_transaction" and "map_something" not in entered
    assert "test_a_page_table_without_a_scope_is_reported_with_both_stacks" in entered
    text = found.text()
    assert text.startswith(
        "possible recursion: pagetable is allocated GFP_KERNEL, without a scope, inside 'transaction'"
    )
    assert text.count("test_context.py:") >= 4
    assert text in flagged.report()["recursions"]


@pytest.mark.filterwarnings("ignore::pocketxfs.memory.context.ReclaimRecursion")
def test_it_is_told_once(flagged: Machine) -> None:
    with pytest.warns(ReclaimRecursion):
        begin_transaction(flagged)
    told = len(flagged.recursions)
    with flagged.fs_region("transaction"):
        for _ in range(3):
            flagged.vmalloc_area.vfree(flagged.vmalloc_area.vmalloc(8 * MIB // 4, "x"))
            flagged.vmalloc_area.purge()
    assert len(flagged.recursions) <= told + 1  # from vmalloc it is another call


def test_a_scope_of_the_callers_own_is_enough(flagged: Machine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with flagged.fs_region("transaction"):
            assert current_scope() == NORMAL
            with nofs():
                map_something(flagged)
    assert flagged.recursions == []


class Objects:
    """A cache of filesystem objects; being asked inside a region, without a scope, would tear one."""

    name = "inode"

    def __init__(self, machine: Machine) -> None:
        self.machine, self.pages = machine, machine.alloc_bulk(machine.free_bytes // PAGE - 120, "inode")
        self.scopes: set[int] = set()
        self.entered = 0
        machine.register_shrinker(self)

    def count(self) -> int:
        return len(self.pages) * PAGE

    def scan(self, nbytes: int, scope: int) -> int:
        self.scopes.add(scope)
        if scope >= NOFS:
            return 0
        self.entered += bool(self.machine.regions)
        freed = min(len(self.pages), -(-nbytes // PAGE))
        self.machine.free_bulk(self.pages[:freed])
        del self.pages[:freed]
        return freed * PAGE

    def owners(self) -> list[tuple[str, int]]:
        return [("inode", self.count())]


def fill_and_map(machine: Machine) -> Objects:
    """Ordinary allocations down to the reserve, then one that needs a page table."""
    objects = Objects(machine)
    with machine.fs_region("transaction"):
        held = machine.alloc_bulk(8, "buf:dir")
        while True:
            try:
                held.append(machine.alloc_pages(0, "buf:dir", noretry=True))
            except OSError:
                break
        try:
            machine.vmalloc_area.vmap(held[:8])
        finally:
            objects.scopes.add(-1)
            machine.free_bulk(held)
    return objects


def test_reclaim_in_a_region_keeps_out_of_the_filesystem(scoped: Machine) -> None:
    with pytest.raises(OSError, match="scope nofs"):
        fill_and_map(scoped)
    objects = scoped.reclaim.shrinkers[0]
    assert isinstance(objects, Objects) and objects.entered == 0 and objects.scopes == {NOFS, -1}


@pytest.mark.filterwarnings("ignore::pocketxfs.memory.context.ReclaimRecursion")
def test_the_recursion_itself_is_refused(flagged: Machine) -> None:
    """Without the scope reclaim would have gone in: the allocation fails instead, and says why."""
    with pytest.raises(ReclaimDeadlock, match="inside 'transaction'.*re-entered the filesystem"):
        fill_and_map(flagged)
    objects = flagged.reclaim.shrinkers[0]
    assert isinstance(objects, Objects) and objects.entered == 0
    assert NORMAL not in objects.scopes  # ordinary allocations came with a flag of their own
    assert flagged.recursions
    flagged.alloc_bulk(200, "x")  # and outside of the region all is well
    assert objects.pages and NORMAL in objects.scopes


def test_ordinary_calls_pass_a_flag(flagged: Machine) -> None:
    assert call_scope(flagged) == NORMAL
    with flagged.fs_region("transaction"):
        assert call_scope(flagged) == NOFS and current_scope() == NORMAL
        with noio():
            assert call_scope(flagged) == 2
