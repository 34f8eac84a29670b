"""The truth test through the mount: what the kernel shows of it equals what the kernel shows of its own XFS.

The manifest's own program walks the mount, so every byte comes by way of /dev/fuse.  FIEMAP is not handed on by FUSE:
extent maps are taken from the attribute that tells them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketxfs.fuse import live
from tests.conftest import no_judge
from tests.judge import compare, kernel, lowlevel, manifest
from tests.judge.recipes import MATRIX, Recipe

from . import harness

MACHINES = {
    "default": "mb=16",
    "unmapped-4m": "memory=4M,buffers=unmapped",
    "vm-map-ram-4m": "memory=4M,buffers=vm-map-ram",
}
#: More of them for the recipe with 64 KiB directory blocks.
MAPPED = {
    "vmalloc-i386": "memory=4M,buffers=vmalloc,machine=i386:vmalloc=8M",
    "folio-4m": "memory=4M,buffers=folio",
    "folio-nommu": "buffers=folio,machine=nommu-8m",
}


def extents(fd: int) -> list[list[int]]:
    """`lowlevel.fiemap`, from `pocketxfs.extents`."""
    runs: list[list[int]] = []
    name = live.EXTENTS
    while name:
        lines, name = os.getxattr(fd, name).decode().splitlines(), ""
        for line in lines:
            if line.startswith("more "):
                name = f"{live.EXTENTS}.{line[5:]}"
                continue
            offset, nbytes, place, words = line.split()
            if place != "-":
                bits = lowlevel.FIEMAP_UNWRITTEN if "unwritten" in words else 0
                bits |= lowlevel.FIEMAP_SHARED if "shared" in words else 0
                lowlevel.join(runs, int(offset), int(place), int(nbytes), bits)
    return runs


def _cases() -> Iterator[object]:
    """Every recipe on the default machine, the plain one also on small ones."""
    for recipe in MATRIX:
        machines = dict(MACHINES) if recipe.name in ("default", "scattered-1k", "dir-64k") else {"default": "mb=16"}
        for name, options in {**machines, **(MAPPED if recipe.name == "dir-64k" else {})}.items():
            yield pytest.param(recipe, options, id=f"{recipe.name}-{name}")


@pytest.mark.judged
@pytest.mark.parametrize(("recipe", "options"), list(_cases()))
def test_manifest_equals_the_kernels(
    recipe: Recipe, options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = kernel.lacks(recipe) or harness.missing()
    if lacking:
        no_judge(lacking)
    built = kernel.ensure(recipe)
    monkeypatch.setattr(manifest.lowlevel, "fiemap", extents)
    words = [options, *(["norecovery"] if recipe.dirty else [])]
    words += [f"logdev={harness.copy(built.log, tmp_path)}"] if built.log else []
    words += [f"rtdev={harness.copy(built.rt, tmp_path)}"] if built.rt else []
    with harness.mounted(harness.copy(built.image, tmp_path), tmp_path, ",".join(words)) as point:
        found = compare.report(compare.kernel_records(built.manifest), manifest.walk(os.fsencode(point)))
        shown = manifest.filesystem(os.fsencode(point))["statvfs"]
    if found:
        pytest.fail(found, pytrace=False)
    expected = compare.kernel_header(built.manifest)["statvfs"]
    assert shown == expected
