"""The vmalloc area and vm_map_ram against the kernel's rules, on machines with few addresses and small blocks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pocketxfs.errors import NoAddresses, NoMemory
from pocketxfs.memory import Machine, profile
from pocketxfs.memory.vmalloc import VmallocArea
from pocketxfs.memory.vmap import block_pages

PAGE = 4096
KIB, MIB = 1 << 10, 1 << 20

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this host has no memfd")


class Addresses(RuleBasedStateMachine):
    """Mappings of all kinds come and go, until addresses or memory run out, and back.

    64-page blocks (32 CPUs), so that whole blocks are used up in a few steps; two CPUs at work.
    """

    @initialize(area=st.sampled_from(["1M", "2M", "3M"]), bits=st.sampled_from(["arm32", "i386"]))
    def start(self, area: str, bits: str) -> None:
        self.machine = Machine(profile(f"{bits}:vmalloc={area}:cpus=32", 2 * MIB))
        self.area = self.machine.vmalloc_area
        self.block = self.area.blocks.block_pages
        assert self.block == 64
        self.tag = 0
        #: kind, address, frames in order (the machine's own, where vmalloc took them), what was written there
        self.live: list[tuple[str, int, list[int], bytes]] = []
        #: Page of addresses given back by vm_unmap_ram -> purges until then.
        self.dirty: dict[int, int] = {}
        self.tables = 0

    # -- what can be done ------------------------------------------------------------------------------------------

    def write(self, kind: str, address: int, frames: list[int]) -> None:
        self.tag += 1
        text = self.tag.to_bytes(4, "big")
        first, last = address, address + (len(frames) - 1) * PAGE
        self.area.memory[first : first + 4] = text
        self.area.memory[last + PAGE - 4 : last + PAGE] = text
        self.live.append((kind, address, frames, text))

    def refused(self, npages: int, align: int) -> None:
        """NoAddresses is true: nothing waits any more, no block could be given up, no hole is large enough."""
        assert self.area.lazy_pages == 0
        assert not any(live == 0 and free for _, free, _, live in self.area.blocks.blocks())
        for start, pages in self.area.holes():
            first = -(-start // align) * align
            assert first + npages > start + pages

    @rule(npages=st.integers(1, 45), cpu=st.integers(0, 1), shuffle=st.randoms(use_true_random=False))
    def vm_map_ram(self, npages: int, cpu: int, shuffle: object) -> None:
        try:
            frames = self.machine.alloc_bulk(npages, "buf:dir")
        except NoMemory:
            return
        shuffle.shuffle(frames)  # type: ignore[attr-defined]
        blocks = self.area.blocks
        blocks.cpu = cpu
        address = blocks.vm_map_ram(frames)
        if address is None:
            self.machine.free_bulk(frames)
            if isinstance(blocks.why, NoAddresses):
                self.refused(npages if npages > 32 else self.block, 1 if npages > 32 else self.block)
            return
        first = address // PAGE
        if npages <= 32:
            size = 1 << (npages - 1).bit_length()
            inside = first % self.block
            assert inside + size <= self.block
            block = next(row for row in blocks.blocks() if row[0] == first - inside)
            assert block[1] == self.block - inside - size  # the next unused run, whatever has been given back
        for page in range(first, first + npages):
            if page in self.dirty:
                assert self.area.purges > self.dirty.pop(page), "used again without a purge"
        self.write("ram", address, frames)

    @rule(npages=st.integers(1, 40))
    def vmalloc(self, npages: int) -> None:
        try:
            address = self.area.vmalloc(npages * PAGE - 5, "iclog")
        except NoAddresses:
            self.refused(npages + 1, 1)
        except NoMemory:
            return
        else:
            frames = self.area.pages_at(address, npages * PAGE)
            self.write("vmalloc", address, frames)

    @rule(npages=st.integers(1, 40))
    def vmap(self, npages: int) -> None:
        try:
            frames = self.machine.alloc_bulk(npages, "buf:dir")
        except NoMemory:
            return
        try:
            address = self.area.vmap(frames)
        except NoMemory as error:
            self.machine.free_bulk(frames)
            if isinstance(error, NoAddresses):
                self.refused(npages + 1, 1)
        else:
            self.write("vmap", address, frames)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), count=st.integers(1, 12))
    def give_back(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.live))):
            self.give(self.live.pop(data.draw(st.integers(0, len(self.live) - 1))))

    def give(self, mapping: tuple[str, int, list[int], bytes]) -> None:
        kind, address, frames, _ = mapping
        if kind == "vmalloc":
            self.area.vfree(address)
            return
        if kind == "vmap":
            self.area.vunmap(address)
        else:
            if len(frames) <= 32:
                size = 1 << (len(frames) - 1).bit_length()
                for page in range(address // PAGE, address // PAGE + size):
                    self.dirty[page] = self.area.purges
            self.area.blocks.vm_unmap_ram(address, len(frames))
        self.machine.free_bulk(frames)

    @rule()
    def purge(self) -> None:
        flushes, waiting = self.area.tlb_flushes, self.area.lazy_pages
        assert self.area.purge() == (waiting > 0)
        assert self.area.tlb_flushes == flushes + (waiting > 0)
        assert self.area.lazy_pages == 0

    @rule()
    def unmap_aliases(self) -> None:
        flushes = self.area.tlb_flushes
        self.area.vm_unmap_aliases()
        assert self.area.tlb_flushes <= flushes + 1
        assert self.area.lazy_pages == 0
        quarter = self.block // 4
        assert not any(live == 0 and 0 < free < quarter for _, free, _, live in self.area.blocks.blocks())
        flushes = self.area.tlb_flushes
        self.area.vm_unmap_aliases()
        assert self.area.tlb_flushes == flushes  # nothing was left that a TLB might show

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """What is not mapped cannot be unmapped, and trying changes nothing."""
        page = data.draw(st.integers(0, self.area.npages - 1))
        if any(address == page * PAGE for _, address, _, _ in self.live):
            return
        before = self.area.report()
        for wrong in (
            lambda: self.area.vfree(page * PAGE),
            lambda: self.area.vunmap(page * PAGE),
            lambda: self.area.blocks.vm_unmap_ram(page * PAGE, 1),
            lambda: self.area.blocks.vm_unmap_ram(page * PAGE, 40),
        ):
            with pytest.raises(ValueError):
                wrong()
        assert self.area.report() == before

    # -- what always holds -----------------------------------------------------------------------------------------

    @invariant()
    def accounts(self) -> None:
        if not hasattr(self, "area"):
            return
        area, machine = self.area, self.machine
        holes = area.holes()
        for (start, pages), (following, _) in zip(holes, holes[1:], strict=False):
            assert start + pages < following, "neighbouring holes are one"
        assert sum(pages for _, pages in holes) + area.busy_pages + area.lazy_pages == area.npages
        assert area.busy_pages + area.lazy_pages <= area.peak_pages
        expected = sum(
            len(frames) + (kind != "ram")
            for kind, _, frames, _ in self.live
            if kind != "ram" or len(frames) > 32
        )  # fmt: skip
        assert area.busy_pages == expected + self.block * len(area.blocks.blocks())
        for _, free, dirty, live in area.blocks.blocks():
            assert free + dirty + live == self.block and min(free, dirty, live) >= 0 and dirty < self.block
        # Page tables: one page for each piece of the area that was ever touched, and none is ever given back.
        assert self.tables <= area.table.pages <= -(-area.npages // machine.profile.ptes_per_page)
        self.tables = area.table.pages
        owners = machine.owners()
        assert owners.get("pagetable", 0) == self.tables * PAGE
        held = sum(len(frames) for _, _, frames, _ in self.live) * PAGE
        assert owners.get("buf:dir", 0) + owners.get("iclog", 0) == held
        free = sum(int(word) << order for order, word in enumerate(machine.buddyinfo().split()[4:])) * PAGE
        assert free == 2 * MIB - machine.used_bytes == 2 * MIB - sum(owners.values())

    @invariant()
    def mappings(self) -> None:
        if not hasattr(self, "area"):
            return
        area, memory, ram = self.area, self.area.memory, self.machine.map
        shown: set[int] = set()
        in_use: set[int] = set()
        guards: set[int] = set()
        for kind, address, frames, text in self.live:
            pages = range(address // PAGE, address // PAGE + len(frames))
            assert shown.isdisjoint(pages) and in_use.isdisjoint(frames), "a page in two places"
            shown.update(pages)
            in_use.update(frames)
            if kind != "ram":
                guards.add(pages[-1] + 1)
            assert area.pages_at(address, len(frames) * PAGE) == frames
            # The same memory, whichever way it is looked at.
            last = address + len(frames) * PAGE
            assert bytes(ram[frames[0] : frames[0] + 4]) == text == bytes(memory[address : address + 4])
            assert bytes(ram[frames[-1] + PAGE - 4 : frames[-1] + PAGE]) == text == bytes(memory[last - 4 : last])
        assert shown.isdisjoint(guards), "a guard page is mapped"
        for page in range(area.npages):
            if page not in shown:
                assert area.table.frames(page, 1) == [-1]

    def teardown(self) -> None:
        if not hasattr(self, "area"):
            return
        for mapping in self.live:
            self.give(mapping)
        self.live.clear()
        self.area.reclaim_and_purge()
        assert self.area.holes() == [(0, self.area.npages)]
        assert self.machine.owners().keys() <= {"pagetable"}
        self.machine.close()
        assert self.machine.used_bytes == 0


Addresses.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAddresses = Addresses.TestCase


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with Machine(profile(getattr(request, "param", "i386"), 8 * MIB)) as made:
        yield made


def test_the_same_memory_twice(machine: Machine) -> None:
    frames = machine.alloc_bulk(16, "x")[::-1]
    area = machine.vmalloc_area
    address = area.vmap(frames)
    assert area.blocks.vm_map_ram(frames) is not None  # and a third time
    for number, frame in enumerate(frames):
        machine.map[frame] = number
        assert area.memory[address + number * PAGE] == number
        area.memory[address + number * PAGE + 1] = 100 + number
        assert machine.map[frame + 1] == 100 + number
    assert area.maps == 2 and area.mapped_pages == 32


@pytest.mark.parametrize(
    ("bits", "cpus", "kib"),
    [(32, 1, 4096), (32, 2, 4096), (32, 4, 2048), (32, 8, 1024), (32, 32, 256), (32, 64, 256), (64, 1, 4096),
     (64, 64, 4096), (64, 8192, 1024)],
)  # fmt: skip
def test_blocks_are_as_large_as_the_kernels(bits: int, cpus: int, kib: int) -> None:
    assert block_pages(bits, cpus, PAGE) * 4 == kib


def test_17_pages_take_32_of_a_block(machine: Machine) -> None:
    blocks = machine.vmalloc_area.blocks
    frames = machine.alloc_bulk(17, "x")
    first = blocks.vm_map_ram(frames)
    assert first == 0
    blocks.vm_unmap_ram(first, 17)
    assert blocks.vm_map_ram(frames) == 32 * PAGE  # dirty, so not used again
    assert blocks.blocks() == [(0, 1024 - 64, 32, 32)]


def test_a_block_comes_back_when_all_of_it_is_dirty(machine: Machine) -> None:
    area, blocks = machine.vmalloc_area, machine.vmalloc_area.blocks
    frames = machine.alloc_bulk(32, "x")
    for number in range(32):
        address = blocks.vm_map_ram(frames)
        assert address == number * 32 * PAGE
        assert area.lazy_pages == 0
        blocks.vm_unmap_ram(address, 32)
    assert blocks.blocks() == [] and area.lazy_pages == 1024
    assert blocks.vm_map_ram(frames) == 4 * MIB  # the first block waits for a TLB flush
    area.purge()
    assert area.holes()[0] == (0, 1024) and area.tlb_flushes == 1


def test_more_pages_than_a_long_has_bits_are_an_area_of_their_own() -> None:
    for name, most in (("i386", 32), ("x86_64", 64)):
        with Machine(profile(name, 4 * MIB)) as machine:
            blocks = machine.vmalloc_area.blocks
            frames = machine.alloc_bulk(most + 1, "x")
            small = blocks.vm_map_ram(frames[:most])
            assert (blocks.block_maps, blocks.large_maps) == (1, 0)
            large = blocks.vm_map_ram(frames)
            assert (blocks.block_maps, blocks.large_maps) == (1, 1)
            assert machine.vmalloc_area.busy_pages == blocks.block_pages + most + 1  # no guard page
            assert small is not None and large is not None
            blocks.vm_unmap_ram(large, most + 1)
            assert machine.vmalloc_area.lazy_pages == most + 1


def test_cpus_have_blocks_of_their_own() -> None:
    with Machine(profile("arm32", 4 * MIB)) as machine:
        blocks = machine.vmalloc_area.blocks
        frames = machine.alloc_bulk(4, "x")
        addresses = []
        for cpu in (0, 3, 0, 3):
            blocks.cpu = cpu
            addresses.append(blocks.vm_map_ram(frames))
        assert addresses == [0, 2 * MIB, 4 * PAGE, 2 * MIB + 4 * PAGE]


@pytest.mark.parametrize(("name", "fls"), [("i386", 1), ("i386:cpus=2", 2), ("i386:cpus=4", 3), ("i386:cpus=8", 4)])
def test_freed_areas_wait_for_32_mib_by_the_cpus(name: str, fls: int) -> None:
    with Machine(profile(name, 4 * MIB)) as machine:
        area = machine.vmalloc_area
        threshold = fls * 8192
        freed = 0
        while not area.purges:
            area.vfree(area.vmalloc(MIB, "x"))
            freed += 257  # and the guard page
            if freed > threshold:
                break
            assert area.lazy_pages == freed
            if freed + 257 > 32768 - 257:
                return  # four times 32 MiB is more than there is: the purge comes when no hole is left
        assert freed > threshold and area.lazy_pages == 0
        assert (area.purges, area.tlb_flushes, area.purged_pages) == (1, 1, freed)


def test_aliases_are_gone_after_vm_unmap_aliases(machine: Machine) -> None:
    area, blocks = machine.vmalloc_area, machine.vmalloc_area.blocks
    frames = machine.alloc_bulk(32, "x")
    live = blocks.vm_map_ram(frames)
    gone = blocks.vm_map_ram(frames)
    assert live is not None and gone is not None
    blocks.vm_unmap_ram(gone, 32)
    area.vm_unmap_aliases()  # a flush, nothing to free: the block is in use
    assert (area.tlb_flushes, area.purges) == (1, 0)
    area.vm_unmap_aliases()
    assert area.tlb_flushes == 1
    blocks.vm_unmap_ram(live, 32)
    area.vm_unmap_aliases()  # nothing live, but more than a quarter never used: it stays
    assert len(blocks.blocks()) == 1
    for _ in range(24):
        address = blocks.vm_map_ram(frames)
        assert address is not None
        blocks.vm_unmap_ram(address, 32)
    area.vm_unmap_aliases()
    assert blocks.blocks() == [] and area.holes() == [(0, area.npages)]


def test_addresses_run_out_and_say_so() -> None:
    with Machine(profile("i386:vmalloc=1M", 4 * MIB)) as machine:
        area = machine.vmalloc_area
        held = [area.vmalloc(15 * PAGE, "iclog") for _ in range(16)]
        with pytest.raises(NoAddresses, match="no hole of 2 pages for vmalloc of 4096 bytes for iclog.*16 areas"):
            area.vmalloc(PAGE, "iclog")
        assert area.exhausted == 1 and area.report()["peak_bytes"] == MIB
        assert machine.free_bytes > 2 * MIB  # memory there was
        area.vfree(held.pop(3))
        held.append(area.vmalloc(15 * PAGE, "iclog"))  # after a purge
        assert area.purges == 1
        for address in held:
            area.vfree(address)
        area.purge()
        assert machine.owners().keys() == {"pagetable"}


def test_a_block_must_fit() -> None:
    """vm_map_ram wants 4 MiB at once on this machine; vmalloc makes do with what there is."""
    with Machine(profile("i386:vmalloc=2M", 4 * MIB)) as machine:
        blocks = machine.vmalloc_area.blocks
        assert blocks.vm_map_ram(machine.alloc_bulk(16, "x")) is None
        assert isinstance(blocks.why, NoAddresses) and "a block of vm_map_ram" in str(blocks.why)
        machine.vmalloc_area.vfree(machine.vmalloc_area.vmalloc(MIB, "x"))


def test_a_page_of_the_table_for_each_piece_touched() -> None:
    for name, pages, upper in (("i386", 1024, 0), ("arm32", 512, 0), ("x86_64", 512, 1)):
        with Machine(profile(name, 32 * MIB)) as machine:
            area = machine.vmalloc_area
            addresses = []
            for pieces in range(1, 5):
                addresses.append(area.vmalloc((pages - 1) * PAGE, "x"))
                assert area.table.pages == pieces + upper
            for address in addresses:
                area.vfree(address)
            area.purge()
            assert machine.owners() == {"pagetable": (4 + upper) * PAGE}
            area.vfree(area.vmalloc((pages - 1) * PAGE, "x"))
            assert area.table.pages == 4 + upper  # never given back, and used again
            assert machine.page_owners()[1].count(machine.page_owners()[0].index("pagetable")) == 4 + upper


def test_no_memory_for_a_page_table_is_no_mapping(machine: Machine) -> None:
    area = machine.vmalloc_area
    frames = machine.alloc_bulk(machine.free_bytes // PAGE - machine.watermarks.min - 3, "x")
    assert area.blocks.vm_map_ram(frames[:16]) is not None
    with pytest.raises(NoMemory, match="pagetable"):
        for _ in range(1100):  # until a second page of the table is needed
            area.vmap(frames[:16])
    assert area.lazy_pages + area.busy_pages + sum(pages for _, pages in area.holes()) == area.npages
    machine.free_bulk(frames)
    area.vmap(machine.alloc_bulk(16, "y"))


class TestHost:
    """What the host can do to it."""

    def test_too_many_mappings_are_no_memory(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        area = machine.vmalloc_area
        area.vfree(area.vmalloc(65536, "x"))
        calls = 0

        def full(at: int, fd: int, offset: int, nbytes: int) -> None:
            nonlocal calls
            calls += 1
            raise OSError(12, "Cannot allocate memory")

        class Full:
            map = staticmethod(full)
            unmap, zap = area.host.unmap, area.host.zap

        host = area.host
        monkeypatch.setattr(area, "host", Full())
        with pytest.raises(NoMemory, match="max_map_count"):
            area.vmalloc(65536, "x")
        assert calls == 2 and area.purges == 1  # again after a purge
        monkeypatch.setattr(area, "host", host)
        area.vfree(area.vmalloc(65536, "x"))
        area.purge()
        assert machine.owners().keys() == {"pagetable"}

    def test_mappings_do_not_pile_up(self) -> None:
        with Machine(profile("i386", 4 * MIB)) as machine:
            area = machine.vmalloc_area

            def maps() -> int:
                with open("/proc/self/maps", "rb") as lines:
                    return sum(1 for _ in lines)

            before = maps()
            frames = machine.alloc_bulk(16, "x")[::-1]
            for _ in range(2000):
                area.vunmap(area.vmap(frames))
            area.purge()
            assert maps() <= before + 4

    def test_a_small_address_space_is_said(self) -> None:
        """Under an address-space limit: what the host grants is used, and reported beside what the machine has."""
        program = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from pocketxfs.errors import NoAddresses
from pocketxfs.memory import Machine, profile
machine = Machine(profile("x86_64", 4 << 20))
area = machine.vmalloc_area
report = area.report()
assert report["size_bytes"] == 32 << 40 and 1 << 20 <= report["reserved_bytes"] < 1 << 30, report
frames = machine.alloc_bulk(256, "x")
try:
    while True:
        area.vmap(frames)
except NoAddresses as error:
    assert f"this host reserved {report['reserved_bytes']} bytes" in str(error), error
    print("said")
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.stdout == "said\n", done.stderr

    @pytest.mark.parametrize(
        ("where", "dies"),
        [("at + 15 * 4096", False), ("at + 16 * 4096", True), ("1 << 26", True), ("gone + 4096", True)],
    )
    def test_what_is_not_mapped_cannot_be_touched(self, where: str, dies: bool) -> None:
        """The guard page, the unmapped area, and an address after its purge: as in the kernel, that is the end."""
        program = f"""
from pocketxfs.memory import Machine, profile
machine = Machine(profile("i386", 4 << 20))
area = machine.vmalloc_area
gone = area.vmalloc(65536, "x")
at = area.vmalloc(65536, "x")
view = area.memory[gone : gone + 65536]
area.vfree(gone)
view[4096]                      # unmapped, not purged: a TLB would still show it
area.purge()
print("touching", flush=True)
area.memory[{where}]
print("alive")
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.stdout == ("touching\n" if dies else "touching\nalive\n")
        assert (done.returncode < 0) == dies

    def test_a_view_outlives_the_machine(self) -> None:
        machine = Machine(profile("x86_64", 4 * MIB))
        area: VmallocArea = machine.vmalloc_area
        address = area.vmap(machine.alloc_bulk(4, "x"))
        view = area.memory[address : address + 16384]
        view[5] = 55
        machine.close()
        del machine, area
        gc.collect()
        assert view[5] == 55

    def test_nobody_pays_for_ctypes_who_does_not_map(self) -> None:
        program = """
import sys
import pocketxfs, pocketxfs.cli, pocketxfs.mounting
from pocketxfs.memory import Machine, profile
from pocketxfs.buffer.backing import backing_named
for name in ("contiguous", "contiguous-exact", "unmapped"):
    backing_named(name, Machine(profile("x86_64", 1 << 20)))
Machine(profile("x86_64", 4 << 20)).kmem_alloc_large(65536, "x")
assert "pocketxfs.memory.hostmap" not in sys.modules
print("ctypes" in sys.modules)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.stdout == "False\n", done.stderr
