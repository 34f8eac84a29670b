"""Kernel-made filesystems that ship with the project (tests/images): judged by the manifests that the kernel left.

These run everywhere, without root or any judge; `test_truth` has the whole matrix.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from tests.judge import compare, ours
from tests.judge.kernel import Built
from tests.judge.recipes import GOLDEN, Recipe
from tests.test_truth import MACHINES, MAPPED_MACHINES

IMAGES = Path(__file__).parent / "images"


@pytest.mark.parametrize("recipe", GOLDEN, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("machine", [*MACHINES.values(), *MAPPED_MACHINES.values()], ids=[*MACHINES, *MAPPED_MACHINES])
def test_manifest_equals_the_kernels(recipe: Recipe, machine: dict[str, str], tmp_path: Path) -> None:
    """As in `test_truth`."""
    image = tmp_path / "image"
    image.write_bytes(lzma.decompress((IMAGES / f"{recipe.name}.img.xz").read_bytes()))
    made = Built(recipe, image, None, None, IMAGES / f"{recipe.name}.manifest.gz")
    with ours.opened(made, **machine) as fs:
        found = compare.report(compare.kernel_records(made.manifest), ours.walk(fs))
    if found:
        pytest.fail(found, pytrace=False)
