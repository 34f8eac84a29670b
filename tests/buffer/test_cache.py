"""The buffer cache over a real machine and a device in memory, with every backing."""

from __future__ import annotations

import gc
import io
import struct
from types import SimpleNamespace

import pytest

from pocketxfs.buffer import BACKINGS, BUFFER_CHARGE_BYTES, BufferCache, BufferOps
from pocketxfs.buffer.backing import Mapped, refusal
from pocketxfs.buffer.buffer import cut
from pocketxfs.device import open_device
from pocketxfs.errors import Corrupt, DeviceError, NoMemory, Unsupported
from pocketxfs.format.block import checksum
from pocketxfs.memory import Machine, profile

KIB = 1024
IMAGE_BYTES = 5 * 1024 * KIB
GEO = SimpleNamespace(dblocks=IMAGE_BYTES >> 12, block_sectors_log=3)


def image_bytes() -> bytes:
    """Every 512 bytes begin with their own address."""
    return b"".join(struct.pack(">Q", i) + bytes([i & 0xFF]) * 504 for i in range(IMAGE_BYTES >> 9))


IMAGE = image_bytes()
BAD = 0x700  # what `picky` refuses


def fine(block, geo):
    fine.calls += 1


fine.calls = 0


def picky(block, geo):
    if int.from_bytes(block.view(0, 8), "big") == BAD:
        raise Corrupt("test block", f"daddr {block.daddr:#x}", "magic", 1, 2)


FINE = BufferOps("fine", "dir", 2, fine)
PICKY = BufferOps("picky", "inode", 2, picky)
LAZY = BufferOps("lazy", "attr", 1, fine)
STAY = BufferOps("stay", "agf", 4, fine)
UNKEPT = BufferOps("unkept", "once", 0, fine)


#: Every backing on a machine with an MMU, and on one without what can be there.
PLACES = [(name, machine) for machine in ("x86_64", "nommu-16m") for name in BACKINGS
          if machine == "x86_64" or name != "vm-map-ram"]  # fmt: skip


@pytest.fixture(params=PLACES, ids="-".join)
def place(request):
    return request.param


@pytest.fixture
def backing(place):
    return place[0]


@pytest.fixture
def make(place):
    made = []
    backing, machine_name = place

    def build(ram=1 << 20, **more):
        fine.calls = 0
        machine = Machine(profile(machine_name, ram))
        device = open_device(io.BytesIO(IMAGE), whole=True)
        cache = BufferCache(machine, device, GEO, backing, **more)
        made.append((machine, cache))
        return cache

    yield build
    for machine, cache in made:
        cache.release_all()
        if cache.backing.maps:
            area = machine.vmalloc_area
            area.reclaim_and_purge()
            assert area.holes() == [(0, area.npages)], "addresses left behind"
            assert machine.owners().keys() <= {"pagetable"}, "memory left behind"
            assert machine.used_bytes == area.table.pages * machine.page_bytes
        else:
            assert machine.owners() == {}, "memory left behind"
            assert machine.used_bytes == 0
        gc.collect()
        machine.close()
        assert machine.used_bytes == 0


def content(buf):
    return bytes(buf.view(0, buf.nbytes))


@pytest.mark.parametrize("nbytes", [512, 1024, 1536, 2048, 2560, 4096, 4608, 8192, 16384, 20480, 65536, 69632])
def test_reads_what_is_there(make, backing, nbytes):
    cache = make()
    with cache.read(1000, nbytes, FINE) as buf:
        assert content(buf) == IMAGE[512000 : 512000 + nbytes]
        assert sum(len(s) for s in buf.segments()) == nbytes
        assert b"".join(buf.segments()) == content(buf)
        assert buf.daddr == 1000 and buf.nbytes == nbytes
        pages = -(-nbytes // 4096)
        if backing == "unmapped" and nbytes > 4096:
            assert buf.data is None
            assert len(buf.segments()) == pages
        else:
            assert buf.data == content(buf)
            # contiguous memory is one segment of a bio, however it was found; else each page is one
            assert len(buf.segments()) == (pages if isinstance(buf.place, Mapped) else 1)
        assert cache.device.segments == len(buf.segments())


def test_piecewise_access_equals_plain(make):
    cache = make()
    layout = struct.Struct(">QHIB")
    plain = IMAGE[: 16384 + 512]
    with cache.read(0, len(plain), FINE) as buf:
        for offset in [0, 1, 4000, 4088, 4090, 4095, 4096, 8190, 12280, len(plain) - layout.size]:
            assert buf.unpack(layout, offset) == layout.unpack_from(plain, offset)
            for nbytes in [0, 1, 4, 100, 5000, 9000]:
                assert bytes(buf.view(offset, nbytes)) == plain[offset : offset + nbytes]
        for crc_offset in [0, 4, 12, 4092, 4096, 8192, len(plain) - 4]:
            assert buf.checksum(crc_offset) == checksum(plain, crc_offset)
        assert isinstance(buf.view(4090, 20), (bytes, memoryview))


def test_hit_verifies_once_and_counts(make):
    cache = make()
    with cache.read(8, 4096, FINE) as first, cache.read(8, 4096, FINE) as again:
        assert first is again and first.holds == 2
    assert first.holds == 0 and fine.calls == 1 and cache.device.reads == 1
    kinds = cache.report()["kinds"]["dir"]
    assert (kinds["hits"], kinds["misses"], kinds["bytes_read"], kinds["cached"]) == (1, 1, 4096, 1)
    assert cache.report()["hits"] == 1


def test_other_ops_verify_again(make):
    cache = make()
    with cache.read(BAD, 4096, FINE):
        pass
    with pytest.raises(Corrupt):
        cache.read(BAD, 4096, PICKY)
    with cache.read(BAD, 4096, FINE):  # what it passed as, it still is
        assert cache.device.reads == 1 and fine.calls == 1
    with cache.read(8, 4096, FINE):
        pass
    with cache.read(8, 4096, PICKY) as buf:
        assert buf.ops is PICKY


@pytest.mark.parametrize("nbytes", [512, 4096, 16384])
def test_failures_are_never_cached(make, nbytes):
    cache = make()
    for _ in range(3):
        with pytest.raises(Corrupt):
            cache.read(BAD, nbytes, PICKY)
    assert cache.device.read_bytes == 3 * nbytes
    assert cache.report()["buffers"] == 0 and cache.report()["kinds"]["inode"]["failed"] == 3
    cache.device.size_bytes = 4096
    with pytest.raises(DeviceError):
        cache.read(800, nbytes, FINE)
    assert cache.report()["buffers"] == 0


@pytest.mark.parametrize(
    "daddr, nbytes", [(-1, 4096), (IMAGE_BYTES >> 9, 512), ((IMAGE_BYTES >> 9) - 1, 4096), (0, 0), (0, 100), (0, -512)]
)
def test_places_outside_are_corrupt(make, daddr, nbytes):
    cache = make()
    with pytest.raises(Corrupt):
        cache.read(daddr, nbytes, FINE)
    cache.readahead(daddr, nbytes, FINE)
    assert cache.device.reads == 0


def test_discontiguous(make):
    cache = make()
    maps = ((100, 4096), (400, 8192), (300, 4096))
    expect = b"".join(IMAGE[d * 512 : d * 512 + n] for d, n in maps)
    with cache.read_map(maps, FINE) as buf:
        assert content(buf) == expect and buf.daddr == 100
        with cache.read_map(list(maps), FINE) as again:
            assert again is buf
        with pytest.raises(Corrupt):  # one piece of that length is another block
            cache.read(100, len(expect), FINE)
        with pytest.raises(Corrupt):
            cache.read_map(((100, 4096), (500, 12288)), FINE)
    assert fine.calls == 1
    with cache.read_map(((100, 4096),), FINE) as buf:
        assert buf.maps is None and content(buf) == IMAGE[51200 : 51200 + 4096]


def test_cut():
    segments = [memoryview(bytes([i]) * 4) for i in range(4)]
    assert [[bytes(p) for p in part] for part in cut(segments, ((0, 6), (0, 2), (0, 8)))] == [
        [b"\0" * 4, b"\1\1"], [b"\1\1"], [b"\2" * 4, b"\3" * 4]
    ]  # fmt: skip


def test_lengths_exclude_each_other(make):
    cache = make()
    with cache.read(8, 4096, FINE), pytest.raises(Corrupt, match="held"):
        cache.read(8, 8192, FINE)
    with cache.read(8, 8192, FINE) as buf:  # nobody holds the short one any more
        assert content(buf) == IMAGE[4096:12288]
    assert cache.report()["buffers"] == 1


def test_invalidate(make):
    cache = make()
    buf = cache.read(8, 4096, FINE)
    cache.invalidate(8)
    with cache.read(8, 4096, FINE) as fresh:
        assert fresh is not buf and cache.device.reads == 2
        assert content(buf) == content(fresh)
        buf.release()
    cache.invalidate(8)
    cache.invalidate(8)
    assert cache.report()["buffers"] == 0


def test_kind_that_is_not_kept(make):
    cache = make()
    for _ in range(300):
        with cache.read(8, 4096, UNKEPT):
            pass
    assert cache.report()["buffers"] == 0 and cache.device.reads == 300
    with cache.read(8, 4096, UNKEPT), cache.read(8, 4096, FINE):
        pass
    assert cache.report()["buffers"] == 1
    cache.shrink(1 << 30)
    assert cache.report()["buffers"] == 0


def test_many_invalidated_do_not_pile_up(make):
    cache = make()
    for _ in range(500):
        cache.read(8, 512, FINE).release()
        cache.invalidate(8)
    assert len(cache._queue) < 100


def test_released_too_often(make):
    cache = make()
    buf = cache.read(8, 4096, FINE)
    buf.hold()
    buf.release()
    buf.release()
    with pytest.raises(RuntimeError):
        buf.release()


def test_reference_counts_decide_who_goes_first(make):
    cache = make()
    for i, ops in enumerate([STAY, LAZY, FINE, STAY, LAZY, FINE]):
        cache.read(8 + i * 8, 4096, ops).release()
    gone = []
    while cache.report()["buffers"]:
        before = {kind: entry["cached"] for kind, entry in cache.report()["kinds"].items()}
        cache.shrink(1)
        after = {kind: entry["cached"] for kind, entry in cache.report()["kinds"].items()}
        gone += [kind for kind in before if after[kind] < before[kind]]
    assert gone == ["attr", "attr", "dir", "dir", "agf", "agf"]


def test_held_buffers_survive_reclaim(make):
    cache = make()
    buf = cache.read(8, 16384, FINE)
    for daddr in range(64, 8000, 32):
        cache.read(daddr, 16384, FINE).release()
    assert content(buf) == IMAGE[4096 : 4096 + 16384]
    assert cache.machine.high_water_bytes <= cache.machine.profile.ram_bytes
    assert cache.report()["kinds"]["dir"]["reclaimed"] > 0
    with cache.read(8, 16384, FINE) as same:
        assert same is buf
    buf.release()


def test_all_held_is_no_memory_and_nothing_breaks(make):
    cache = make(ram=256 * KIB)
    held = []
    with pytest.raises(NoMemory, match="deadlock"):
        for daddr in range(0, 8000, 32):
            held.append(cache.read(daddr, 16384, FINE))
    assert len(held) >= 4
    for buf in held:
        assert content(buf) == IMAGE[buf.daddr * 512 : buf.daddr * 512 + 16384]
        buf.release()
    cache.read(8192, 16384, FINE).release()


def test_object_charge(make):
    cache = make()
    for daddr in range(0, 40 * 8, 8):
        cache.read(daddr, 512, FINE).release()
    owners = cache.machine.owners()
    assert owners["buffers"] >= 40 * BUFFER_CHARGE_BYTES
    assert owners["buf:dir"] == 40 * 512
    cache.shrink(1 << 30)
    assert cache.machine.owners().get("buffers", 0) <= 16 * BUFFER_CHARGE_BYTES


def test_close_with_a_buffer_still_held(make):
    cache = make()
    buf = cache.read(8, 4096, FINE)
    assert cache.release_all() == 1
    buf.release()
    with pytest.raises(ValueError):
        bytes(buf.data)


def test_other_device(make):
    cache = make()
    other = open_device(io.BytesIO(b"\xee" * 8192), whole=True)
    with cache.read(8, 4096, FINE) as mine, cache.read(8, 4096, FINE, device=other) as theirs:
        assert content(mine) != content(theirs) == b"\xee" * 4096
        with cache.read(8, 4096, FINE, device=other) as again:
            assert again is theirs
    with cache.read(8, 4096, FINE, device=cache.device) as again:
        assert again is mine
    with pytest.raises(Corrupt):
        cache.read(16, 4096, FINE, device=other)
    with cache.read_map(((0, 512), (4, 512)), FINE, device=other) as buf:
        assert content(buf) == b"\xee" * 1024
    cache.invalidate(8, device=other)


# -- readahead -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [512, 4096, 16384])
def test_readahead_serves_the_read(make, nbytes):
    cache = make(readahead="read")
    cache.readahead(8, nbytes, FINE)
    assert cache.device.read_bytes == nbytes and fine.calls == 0
    cache.readahead(8, nbytes, FINE)
    with cache.read(8, nbytes, FINE) as buf:
        assert content(buf) == IMAGE[4096 : 4096 + nbytes]
    with cache.read(8, nbytes, FINE):
        pass
    assert cache.device.read_bytes == nbytes and fine.calls == 1


def test_readahead_of_bad_blocks_fails_only_the_read(make):
    cache = make(readahead="read")
    cache.readahead(BAD, 4096, PICKY)
    assert cache.device.reads == 1
    with pytest.raises(Corrupt):
        cache.read(BAD, 4096, PICKY)
    assert cache.report()["buffers"] == 0
    cache.device.size_bytes = 4096
    cache.readahead(80, 4096, PICKY)  # the device fails it: dropped
    assert cache.report()["kinds"]["inode"]["dropped"] == 1


def test_readahead_takes_no_memory_from_others(make):
    cache = make(ram=256 * KIB, readahead="read")
    for daddr in range(0, 640, 8):
        cache.readahead(daddr, 4096, FINE)
    report = cache.report()["kinds"]["dir"]
    assert report["dropped"] > 0 and report["cached"] > 0 and report["reclaimed"] == 0
    # what was read ahead and never asked for can be reclaimed
    for daddr in range(1024, 2048, 8):
        cache.read(daddr, 4096, FINE).release()


def test_hints_take_no_memory(make):
    cache = make(readahead="hint")
    cache.readahead(8, 16384, FINE)
    assert cache.device.reads == 0 and cache.machine.used_bytes == 0


def test_unknown_backing():
    machine = Machine(profile("nommu-16m", 1 << 20))
    with pytest.raises(Unsupported, match="contiguous-exact"):
        BufferCache(machine, open_device(io.BytesIO(IMAGE), whole=True), GEO, "page-cache")
    machine.close()


@pytest.mark.parametrize("machine_name", ["x86_64", "nommu-16m"])
def test_what_17_pages_take(machine_name):
    """A remote attribute's size: the RFC's run of pages rounds it up, and so does everything without an MMU."""
    taken = {}
    for name in BACKINGS:
        machine = Machine(profile(machine_name, 1 << 20))
        if refusal(name, machine):
            continue
        cache = BufferCache(machine, open_device(io.BytesIO(IMAGE), whole=True), GEO, name)
        cache.read(0, 17 * 4096, FINE).release()
        taken[name] = machine.owners()["buf:dir"] >> 12
        report = cache.report()
        assert report["bytes"] == report["total_taken_bytes"] == taken[name] << 12
        assert report["asked_bytes"] == report["total_asked_bytes"] == 17 * 4096
        assert report["rounding_bytes"] == report["peak_rounding_bytes"] == taken[name] - 17 << 12
        cache.release_all()
        assert cache.report()["rounding_bytes"] == 0
        gc.collect()
        machine.close()
    if machine_name == "x86_64":
        assert taken == {"contiguous": 32, "contiguous-exact": 17, "unmapped": 17, "vm-map-ram": 17, "vmalloc": 17,
                         "folio": 17}  # fmt: skip
    else:
        assert taken == {"contiguous": 32, "contiguous-exact": 17, "unmapped": 17, "vmalloc": 32, "folio": 32}


@pytest.mark.parametrize("nbytes", [512, 1536, 2560, 4096])
def test_folio_up_to_a_page(nbytes):
    """kmalloc for a power of two below a page, a page for everything else: 1,536 bytes take 4,096."""
    machine = Machine(profile("x86_64", 1 << 20))
    cache = BufferCache(machine, open_device(io.BytesIO(IMAGE), whole=True), GEO, "folio")
    cache.read(0, nbytes, FINE).release()
    assert machine.owners()["buf:dir"] == cache.cached_bytes == (nbytes if nbytes == 512 else 4096)
    cache.release_all()
    machine.close()


def test_folio_falls_back_to_vmalloc_when_no_run_is_free():
    machine = Machine(profile("x86_64", 1 << 20))
    cache = BufferCache(machine, open_device(io.BytesIO(IMAGE), whole=True), GEO, "folio")
    with cache.read(0, 16384, FINE) as buf:
        assert type(buf.place) is int and len(buf.segments()) == 1
    cache.release_all()
    pages = machine.alloc_bulk(machine.free_bytes // 4096 - machine.watermarks.low - 8, "x")
    for page in pages[::2]:
        machine.free_pages(page, 0)
    while machine.buddyinfo().split()[6:] != ["0"] * 9:  # use up what is left in runs of four and more
        machine.alloc_pages(2, "y", noretry=True)
    with cache.read(0, 16384, FINE) as buf:
        assert isinstance(buf.place, Mapped) and len(buf.segments()) == 4
        assert content(buf) == IMAGE[:16384]
    assert (cache.report()["folios"], cache.report()["fallbacks"]) == (1, 1)
    assert machine.statistics["failed"][2] > 0
    cache.release_all()
    machine.close()


def test_refused_by_name():
    machine = Machine(profile("nommu-16m", 1 << 20))
    device = open_device(io.BytesIO(IMAGE), whole=True)
    with pytest.raises(Unsupported, match="'vm-map-ram': machine nommu-16m has no MMU"):
        BufferCache(machine, device, GEO, "vm-map-ram")
    with pytest.raises(Unsupported, match="no MMU"):
        _ = machine.vmalloc_area
    machine.close()


def test_a_host_that_cannot_map_twice_refuses_by_name(monkeypatch):
    monkeypatch.delattr("os.memfd_create", raising=False)
    machine = Machine(profile("x86_64", 1 << 20))
    for name in BACKINGS:
        if name in ("vm-map-ram", "vmalloc", "folio"):
            with pytest.raises(Unsupported, match="cannot map a page of memory twice"):
                BufferCache(machine, open_device(io.BytesIO(IMAGE), whole=True), GEO, name)
        else:
            BufferCache(machine, open_device(io.BytesIO(IMAGE), whole=True), GEO, name)
    large = machine.kmem_alloc_large(100_000, "staging")  # large memory is contiguous there
    assert large.contiguous and len(large.data) == 100_000
    large.free()
    machine.close()
