"""A real filesystem with 64 KiB directory blocks on machines with few addresses: it works by purging, or fails cleanly.

Both ways of mapping, the same walk.  More memory makes it worse: the cache keeps more buffers, each with its address.
"""

from __future__ import annotations

import os

import pytest

import pocketxfs
from pocketxfs.errors import NoAddresses
from tests.conftest import no_judge
from tests.judge import kernel
from tests.judge.recipes import ALL

pytestmark = [
    pytest.mark.judged,
    pytest.mark.xdist_group("scattered-dir-64k"),
    pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this host has no memfd"),
]


def names(fs: pocketxfs.FileSystem) -> int:
    """Every directory read, and every 50th entry looked at."""

    def fail(error: OSError) -> None:
        raise error

    count = 0
    for top, folders, files in fs.walk("/", onerror=fail):
        for name in (*folders, *files):
            count += 1
            if count % 50 == 0:
                fs.lstat(f"{top}/{name}")
    return count


def walked(memory: str, machine: str, buffers: str) -> tuple[int | NoAddresses, dict]:
    """Entries seen, or what it failed for; and the vmalloc area's report.  Nothing is left of it afterwards."""
    recipe = ALL["scattered-dir-64k"]
    if lacking := kernel.lacks(recipe):
        no_judge(lacking)
    built = kernel.ensure(recipe)
    found: int | NoAddresses
    with pocketxfs.open(built.image, memory=memory, machine=machine, buffers=buffers) as fs:
        ram = fs.mount.machine
        try:
            found = names(fs)
        except NoAddresses as error:
            found = error
            assert ram.free_bytes > ram.watermarks.min * ram.page_bytes
            fs.mount.cache.shrink(1 << 40)
            ram.vmalloc_area.reclaim_and_purge()
            assert fs.listdir("/special")  # with addresses again it goes on
        report = ram.vmalloc_area.report()
        fs.mount.inodes.drop_all()
        assert fs.mount.cache.release_all() == 0
        ram.vmalloc_area.reclaim_and_purge()
        assert ram.vmalloc_area.holes() == [(0, ram.vmalloc_area.npages)]
        assert ram.owners().keys() == {"pagetable"}
    return found, report


def test_vmalloc_goes_by_purging() -> None:
    """4 MiB of addresses, 2 MiB of memory: some sixteen purges, and all is read."""
    found, report = walked("2M", "i386:vmalloc=4M", "vmalloc")
    assert isinstance(found, int) and found > 100_000
    assert report["exhausted"] == 0 and report["purges"] > 5 and report["purges"] == report["tlb_flushes"]


def test_vm_map_ram_goes_by_purging_with_more_addresses() -> None:
    """16 MiB for the same memory: blocks become all dirty and come back."""
    found, report = walked("2M", "i386:vmalloc=16M", "vm-map-ram")
    assert isinstance(found, int) and found > 100_000
    assert report["exhausted"] == 0 and report["purges"] > 0 and report["new_blocks"] > 4


@pytest.mark.parametrize(
    ("memory", "machine", "buffers"),
    [("2M", "i386:vmalloc=4M", "vm-map-ram"), ("16M", "i386:vmalloc=8M", "vm-map-ram"),
     ("16M", "i386:vmalloc=8M", "vmalloc")],
)  # fmt: skip
def test_it_fails_cleanly(memory: str, machine: str, buffers: str) -> None:
    """In 4 MiB pieces that are dirty, or with the whole cache live in 8 MiB: named, with memory free."""
    found, report = walked(memory, machine, buffers)
    assert isinstance(found, NoAddresses) and "vmalloc space exhausted" in str(found)
    assert report["exhausted"] > 0 and report["peak_bytes"] > 0.9 * report["size_bytes"]
