"""What is recorded is what happened, played again it happens again, and nobody pays who does neither."""

from __future__ import annotations

import gc
import io
import os

import pytest

from pocketxfs.buffer import BACKINGS, Buffer, BufferCache
from pocketxfs.buffer.backing import refusal
from pocketxfs.buffer.buffer import MappedBuffer, PagesBuffer
from pocketxfs.buffer.measure import STEPS, measure
from pocketxfs.buffer.replay import Replay
from pocketxfs.buffer.trace import recording
from pocketxfs.device import open_device
from pocketxfs.errors import Corrupt
from pocketxfs.memory import Machine, nofs, profile

from .test_cache import BAD, FINE, GEO, IMAGE, PICKY, STAY, UNKEPT

MACHINE = "x86_64" if hasattr(os, "memfd_create") else "nommu-16m"


def work(machine: Machine, cache: BufferCache) -> None:
    """Something of everything."""
    first = cache.read(8, 4096, STAY)
    with cache.read(8, 4096, STAY) as again:
        again.hold()
    first.release()
    for daddr in range(0, 4096, 32):
        cache.readahead(daddr, 16384, FINE)
        with cache.read(daddr, 16384, FINE):
            machine.charge("journal", 512)
    with machine.fs_region("log recovery"):
        cache.read(0, 69632, UNKEPT).release()
    with nofs():
        cache.read_map(((4096, 4096), (6000, 8192)), FINE).release()
    with pytest.raises(Corrupt):
        cache.read(BAD, 4096, PICKY)
    large = machine.kmem_alloc_large(100_000, "staging")
    machine.uncharge("journal", 512 * 100)
    cache.invalidate(32)
    large.free()
    first.release()


def opened(backing: str, ram: int = 1 << 20) -> tuple[Machine, BufferCache]:
    machine = Machine(profile(MACHINE, ram))
    return machine, BufferCache(machine, open_device(io.BytesIO(IMAGE), whole=True), GEO, backing, readahead="hint")


def recorded(backing: str) -> tuple[list[str], dict]:
    machine, cache = opened(backing)
    with recording(cache, (lines := []).append) as trace:
        work(machine, cache)
        assert trace.events == len(lines) - 1
    assert type(cache) is BufferCache and type(machine) is Machine and machine.trace is None
    assert {type(buf) for buf in cache.all_buffers()} <= {Buffer, PagesBuffer, MappedBuffer}
    report = cache.report()
    count = len(lines)
    cache.read(8, 4096, STAY).release()
    assert len(lines) == count, "recorded after the end"
    cache.release_all()
    gc.collect()
    return lines, report


def test_the_events(tmp_path: object) -> None:
    lines, _ = recorded("contiguous")
    assert lines[0] == f"pocketxfs-trace 1 contiguous {MACHINE} {1 << 20}\n"
    assert lines[1:3] == ["g 0 8 4096 agf 4 -\n"] * 2
    assert lines[3:7] == ["h 0 8\n", "r 0 8\n", "r 0 8\n", "a 0 16384 dir 2\n"]
    assert "g 0 0 69632 once 0 f:log_recovery\n" in lines
    assert "m 0 dir 2 f 4096:4096,6000:8192\n" in lines
    assert f"x 0 {BAD} 4096 inode 2 -\n" in lines
    assert "u journal 51200\n" in lines and "l 1 100000 staging\n" in lines and "f 1\n" in lines
    assert lines[-3:] == ["i 0 32\n", "f 1\n", "r 0 8\n"]


@pytest.mark.parametrize("backing", BACKINGS)
def test_played_again_it_is_the_same(backing: str) -> None:
    """On the machine that it was recorded on a replay reads, hits and reclaims as often as the original."""
    with Machine(profile(MACHINE, 1 << 20)) as machine:
        if refusal(backing, machine) is not None:
            pytest.skip(f"no {backing} here")
        lines, original = recorded(backing)
        replay = Replay(machine, backing)
        seen = []
        outcome = replay.run(lines, every=100, sample=seen.append)
        assert outcome["survived"] and outcome["unmatched"] == 0 and outcome["events"] == len(lines) - 1
        assert seen == list(range(0, len(lines) - 1, 100))
        for name in ("hits", "peak_bytes", "total_asked_bytes", "total_taken_bytes", "peak_rounding_bytes"):
            # the block that failed to verify is read anew each time, and counted as a miss of its own
            assert outcome["cache"][name] == original[name], name
        for kind, numbers in original["kinds"].items():
            if kind != "inode":
                assert {**numbers, "reclaimed": 0} == {**outcome["cache"]["kinds"][kind], "reclaimed": 0}
        assert replay.close() == 0
        if machine._vmalloc is not None:
            machine.vmalloc_area.reclaim_and_purge()
        assert machine.owners().keys() <= {"pagetable"}
        gc.collect()


def test_a_recording_that_begins_in_the_middle() -> None:
    machine, cache = opened("unmapped")
    held = cache.read(0, 16384, FINE)
    cache.read(64, 4096, FINE).release()
    machine.charge("inode", 5000)
    with recording(cache, (lines := []).append):
        held.hold()
        held.release()
        with pytest.raises(ValueError, match="already"), recording(cache, print):
            pass
    assert sorted(lines[1:5]) == ["c inode 5000\n", "g 0 0 16384 dir 2 -\n", "g 0 64 4096 dir 2 -\n", "r 0 64\n"]
    assert lines[5:] == ["h 0 0\n", "r 0 0\n"]
    held.release()
    cache.release_all()


def test_lines_that_are_none() -> None:
    with Machine(profile("nommu-16m", 1 << 20)) as machine, pytest.raises(ValueError, match="not an event"):
        Replay(machine, "contiguous").run(["z 1 2 3"])


def test_charges_of_caches_give_way_in_a_replay() -> None:
    """Inodes are forgotten where memory is short, as their cache would; what else is charged is not."""
    walk = [line for n in range(64) for line in (f"g 0 {n * 128} 65536 dir 2 -", f"r 0 {n * 128}")]
    lines = ["c inode 600000", *walk, "u inode 600000"]
    with Machine(profile("nommu-16m", 1 << 20)) as machine:
        replay = Replay(machine, "contiguous-exact")
        outcome = replay.run(lines)
        assert outcome["survived"], outcome["failure"]
        assert outcome["machine"]["owners"].get("inode", 0) == 0
        replay.close()
    with Machine(profile("nommu-16m", 1 << 20)) as machine:
        replay = Replay(machine, "contiguous-exact")
        outcome = replay.run(["c journal 2000000"])
        assert not outcome["survived"] and outcome["failure"]["kind"] == "NoMemory"
        replay.close()


@pytest.mark.parametrize("backing", BACKINGS)
def test_measured_steps(backing: str) -> None:
    with Machine(profile(MACHINE, 1 << 20)) as machine:
        if refusal(backing, machine) is not None:
            pytest.skip(f"no {backing} here")
        replay = Replay(machine, backing)
        clock = measure(replay.cache)
        assert measure(replay.cache) is clock
        outcome = replay.run(line for n in range(64) for line in (f"g 0 {n * 128} 65536 dir 2 -", f"r 0 {n * 128}"))
        assert outcome["survived"] and outcome["cache"]["backing"] == backing
        report = clock.report()
        assert set(report) == {*STEPS, "overhead_ns"}
        calls = {step: report[step]["calls"] for step in STEPS}
        cached = outcome["cache"]["buffers"]
        assert calls["allocate"] == 64 and calls["free"] == 64 - cached
        assert calls["reclaim"] == outcome["machine"]["statistics"]["reclaim_runs"] > 0
        if replay.cache.backing.maps:
            area = outcome["machine"]["vmalloc"]
            assert (calls["map"], calls["unmap"]) == (area["maps"], area["unmaps"])
        else:
            assert calls["map"] == calls["unmap"] == calls["purge"] == 0
        assert all(report[step]["wall_ns"] >= 0 and report[step]["cpu_ns"] >= 0 for step in STEPS)
        replay.close()
        gc.collect()
