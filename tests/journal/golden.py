"""The abandoned filesystems that ship with the project: some truth about logs on any machine."""

from __future__ import annotations

import functools
import lzma
from pathlib import Path

import pytest

IMAGES = Path(__file__).resolve().parent.parent / "images"
DIRTY = ("golden-dirty-v5", "golden-dirty-v4")
each = pytest.mark.parametrize("name", DIRTY)


@functools.cache
def unpacked(name: str) -> bytes:
    """The image."""
    return lzma.decompress((IMAGES / f"{name}.img.xz").read_bytes())


def written(name: str, directory: Path) -> Path:
    """The image in a file."""
    path = directory / "image"
    path.write_bytes(unpacked(name))
    return path


def manifest(name: str) -> Path:
    """What the kernel shows after its own recovery."""
    return IMAGES / f"{name}.manifest.gz"
