"""An image with a dirty log, opened read only: what pocketxfs shows equals what Linux shows after its own recovery.

The image itself is not touched, not by a byte.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

import pocketxfs
from pocketxfs.buffer import BACKINGS
from pocketxfs.device import open_device
from pocketxfs.format.geometry import Geometry
from pocketxfs.journal import replay
from pocketxfs.memory import Machine, profile
from pocketxfs.memory.context import ReclaimRecursion
from pocketxfs.mounting import read_superblock
from tests.conftest import no_judge
from tests.judge import compare, kernel, manifest, ours
from tests.judge.recipes import ALL

pytestmark = pytest.mark.judged


@pytest.fixture(scope="module")
def dirty(tmp_path_factory):
    """(the image as it was abandoned, the manifest of what the kernel made of a copy)."""
    recipe = ALL["dirty-log"]
    lacking = kernel.lacks(recipe)
    if lacking:
        no_judge(lacking)
    built = kernel.ensure(recipe)
    folder = tmp_path_factory.mktemp("dirty")
    copy, shown = folder / "copy", folder / "manifest.gz"
    subprocess.run(["cp", "--sparse=always", str(built.image), str(copy)], check=True)
    with kernel.mounted(copy):
        pass
    with kernel.mounted(copy, "noatime", read_only=True) as point:
        assert manifest.main([str(point), str(shown)]) == 0
    return built.image, shown


def digest(path: Path) -> str:
    with open(path, "rb") as whole:
        return hashlib.file_digest(whole, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("memory", "buffers"),
    [*(("4M", buffers) for buffers in BACKINGS), ("16M", "contiguous"), ("16M", "vm-map-ram")],
)
def test_replayed_in_memory_equals_the_kernels_recovery(dirty, memory, buffers):
    image, shown = dirty
    before = digest(image)
    with pocketxfs.open(image, memory=memory, buffers=buffers) as fs:
        assert fs.log_state is not None
        assert not fs.log_state.clean
        assert fs.recovered is not None
        assert fs.recovered.counts.as_dict()["inodes"] > 100
        said = compare.report(compare.kernel_records(shown), ours.walk(fs))
        assert not said, said
        assert fs.memory_report()["high_water_bytes"] <= fs.mount.machine.profile.ram_bytes
    assert digest(image) == before


def test_norecovery_shows_what_lies_on_the_disk(dirty):
    image, shown = dirty
    with pocketxfs.open(image, norecovery=True) as fs:
        assert fs.recovered is None
        assert fs.info()["log"]["state"] == "dirty"
        assert compare.report(compare.kernel_records(shown), ours.walk(fs))


def in_pieces(machine: Machine) -> None:
    """Take memory until no eight pages that are free lie together: a log buffer must be mapped."""
    for page in machine.alloc_bulk(machine.free_bytes // 4096 - machine.watermarks.low - 4, "x"):
        if page // 4096 % 8:
            machine.free_pages(page, 0)
    while machine.buddyinfo().split()[7:] != ["0"] * 8:
        machine.alloc_pages(3, "y", noretry=True)


def replayed(image, machine_name: str, fragmented: bool, memory: int = 16 << 20):
    """What the replay makes of the image (a hash of every changed byte), and its machine's report."""
    with Machine(profile(machine_name, memory)) as machine:
        if fragmented:
            in_pieces(machine)
        device = open_device(str(image), whole=True)
        after, report = replay(device, Geometry(read_superblock(device)), machine)
        assert report.counts.as_dict()["inodes"] > 100
        hashed = hashlib.sha256()
        for start, nbytes in after.changes():
            hashed.update(start.to_bytes(8, "big") + after.pread(start, nbytes))
        after.close()
        assert "log" not in machine.owners()
        return hashed.hexdigest(), machine.report()


@pytest.mark.filterwarnings("error")
def test_recovery_is_the_same_wherever_its_memory_lies(dirty):
    """The log buffer contiguous, mapped, and on machines that cannot map; inside a scope nothing is reported."""
    image, _ = dirty
    seen = set()
    for name, fragmented in (("nommu-16m", False), ("x86_64", False), ("x86_64", True), ("i386", True)):
        digest_of_changes, report = replayed(image, name, fragmented)
        seen.add(digest_of_changes)
        assert report["recursions"] == []
        assert (report["vmalloc"] is not None and report["vmalloc"]["maps"] > 0) == fragmented
    assert len(seen) == 1


def test_page_tables_in_recovery_without_a_scope_are_reported(dirty):
    """The code of 2015: the log buffer's page table is allocated GFP_KERNEL in the middle of recovery."""
    image, _ = dirty
    with pytest.warns(ReclaimRecursion, match="pagetable.*inside 'log recovery'"):
        _, report = replayed(image, "x86_64:flags-per-call", True)
    (text,) = [text for text in report["recursions"] if text.startswith("possible recursion: pagetable")]
    allocated, entered = text.split("'log recovery' was entered:")
    assert "logbuffer.py" in allocated and "kmem_alloc_large" in allocated and "PageTable.populate" in allocated
    assert "logbuffer.py" not in entered and "recovery.py" in entered and " replay\n" in entered
