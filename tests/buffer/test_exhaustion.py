"""Addresses run out although memory is free: 64 KiB directory blocks on machines with a small vmalloc area.

The kernel's shrinkers are asked for memory, never for addresses.  So what decides is whether a purge can free some: an
area of vmalloc's own is free after the next one, a piece of a block of vm_map_ram only when all of the block is.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from pocketxfs.buffer import BACKINGS
from pocketxfs.buffer.backing import refusal
from pocketxfs.buffer.replay import Replay
from pocketxfs.errors import NoAddresses
from pocketxfs.memory import Machine, profile

MIB = 1 << 20
BLOCK = 65536

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this host has no memfd")


def walk(blocks: int, held: int = 0) -> Iterator[str]:
    """A directory of so many 64 KiB blocks read from end to end; the first `held` of them stay held."""
    for number in range(blocks):
        daddr = number * (BLOCK >> 9)
        yield f"g 0 {daddr} {BLOCK} dir 2 -"
        if number >= held:
            yield f"r 0 {daddr}"


def played(name: str, ram: int, backing: str, lines: Iterator[str]) -> dict:
    """Play it, check that nothing is left of it, and say what came of it."""
    machine = Machine(profile(name, ram))
    replay = Replay(machine, backing)
    outcome = replay.run(lines)
    replay.close()
    area = machine.vmalloc_area
    area.reclaim_and_purge()
    assert area.holes() == [(0, area.npages)], "addresses left behind"
    assert machine.owners().keys() <= {"pagetable"}, "memory left behind"
    gc.collect()
    machine.close()
    assert machine.used_bytes == 0
    return outcome


def test_vmalloc_recovers_by_purging() -> None:
    """4 MiB of addresses are 60 blocks with their guard pages; 2 MiB of memory keep 30 of them at most."""
    outcome = played("i386:vmalloc=4M", 2 * MIB, "vmalloc", walk(1000))
    assert outcome["survived"], outcome["failure"]
    area = outcome["machine"]["vmalloc"]
    assert area["exhausted"] == 0 and area["purges"] >= 1000 // 60
    assert area["purges"] == area["tlb_flushes"] < area["unmaps"]
    assert area["peak_bytes"] <= 4 * MIB and area["lazy_max_bytes"] == 32 * MIB


def test_vm_map_ram_is_out_of_addresses_with_most_of_them_dirty() -> None:
    """The same walk: one block of 64 pieces, each used once; some are always cached, so it never is all dirty."""
    outcome = played("i386:vmalloc=4M", 2 * MIB, "vm-map-ram", walk(1000))
    assert not outcome["survived"]
    failure = outcome["failure"]
    assert failure["event"] == 2 * 64 and failure["kind"] == "NoAddresses"
    assert "65536 bytes for buf:dir cannot be mapped, 3 tries: vmalloc space exhausted" in failure["error"]
    assert "not used again before their block is" in failure["error"]
    area = outcome["machine"]["vmalloc"]
    assert area["exhausted"] == 3
    assert area["block_dirty_pages"] + area["block_live_pages"] == 1024 and area["block_dirty_pages"] > 512
    assert outcome["machine"]["free_bytes"] > 0 and sum(outcome["machine"]["statistics"]["failed"]) == 0


def test_vm_map_ram_recovers_where_a_whole_block_goes_by() -> None:
    """Twice the addresses: while the cache lives in one block, the other becomes all dirty and is purged."""
    outcome = played("i386:vmalloc=8M", 2 * MIB, "vm-map-ram", walk(1000))
    assert outcome["survived"], outcome["failure"]
    area = outcome["machine"]["vmalloc"]
    assert area["purges"] >= 1000 // 64 - 2 and area["exhausted"] == 0
    assert area["new_blocks"] >= 15 and area["blocks"] <= 2


def test_a_purge_of_fragmented_blocks_frees_addresses() -> None:
    """Blocks with nothing live in them are given up when addresses run out, used up or not."""
    machine = Machine(profile("i386:vmalloc=4M", 2 * MIB))
    replay = Replay(machine, "vm-map-ram")
    replay.run(walk(20))
    replay.cache.shrink(1 << 40)
    area = machine.vmalloc_area
    assert area.blocks.blocks() == [(0, 1024 - 320, 320, 0)] and area.busy_pages == 1024
    at = area.vmalloc(3 * MIB // 2, "iclog")  # there was no hole for it
    assert area.blocks.purged_blocks == 1 and area.purges == 1
    area.vfree(at)
    replay.close()
    machine.close()


@pytest.mark.parametrize("backing", ["vm-map-ram", "vmalloc"])
def test_too_many_held_fail_cleanly(backing: str) -> None:
    """All addresses are in use by buffers that are held: no purge can help, and what is held stays good."""
    machine = Machine(profile("i386:vmalloc=4M", 16 * MIB))
    replay = Replay(machine, backing)
    outcome = replay.run(walk(100, held=100))
    assert not outcome["survived"] and outcome["failure"]["kind"] == "NoAddresses"
    assert outcome["events"] == (64 if backing == "vm-map-ram" else 60)
    assert outcome["machine"]["free_bytes"] > 10 * MIB
    ops = replay._kind("dir", "2")
    with pytest.raises(NoAddresses) as caught:
        replay.cache.read(1 << 30, BLOCK, ops)
    assert caught.value.errno == 12 and caught.value.exit_code == 5
    replay.cache.read(1 << 30, 4096, ops).release()  # a page needs no address
    assert replay.close() == 60 + 4 * (backing == "vm-map-ram")
    area = machine.vmalloc_area
    area.reclaim_and_purge()
    assert area.holes() == [(0, area.npages)] and machine.owners().keys() == {"pagetable"}
    gc.collect()
    machine.close()


def test_a_large_area_is_never_used_up() -> None:
    """i386's 128 MiB and 16 MiB of memory: what is freed waits, and is purged before addresses run out."""
    for backing in ("vm-map-ram", "vmalloc"):
        outcome = played("i386", 16 * MIB, backing, walk(2500))
        assert outcome["survived"] and outcome["machine"]["vmalloc"]["exhausted"] == 0
        assert outcome["machine"]["vmalloc"]["peak_bytes"] <= 128 * MIB


@pytest.mark.parametrize("name", ["i386:vmalloc=8M", "x86_64", "nommu-8m"])
def test_every_backing_walks_it(name: str) -> None:
    """The same trace: the same reads and hits on each, and nothing left over; only what it took differs."""
    seen = set()
    for backing in BACKINGS:
        with Machine(profile(name, 2 * MIB)) as machine:
            if refusal(backing, machine) is not None:
                continue
            replay = Replay(machine, backing)
            outcome = replay.run(walk(300))
            assert outcome["survived"], (backing, outcome["failure"])
            seen.add((outcome["io"]["reads"], outcome["io"]["bytes"], outcome["hit_rate"]))
            replay.close()
            gc.collect()
    assert seen == {(300, 300 * BLOCK, 0.0)}
