"""An image with a dirty log, opened read only: what pocketxfs shows equals what Linux shows after its own recovery.

The image itself is not touched, not by a byte.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

import pocketxfs
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


@pytest.mark.parametrize("memory", ["16M", "4M"])
@pytest.mark.parametrize("buffers", ["contiguous", "contiguous-exact", "unmapped"])
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
