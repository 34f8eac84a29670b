"""The abandoned filesystems that ship with the project: some truth about logs on any machine."""

from __future__ import annotations

import functools
import lzma
from pathlib import Path

IMAGES = Path(__file__).resolve().parent.parent / "images"
DIRTY = ("golden-dirty-v5", "golden-dirty-v4")


@functools.cache
def unpacked(name: str) -> bytes:
    """The image."""
    return lzma.decompress((IMAGES / f"{name}.img.xz").read_bytes())


def manifest(name: str) -> Path:
    """What the kernel shows after its own recovery."""
    return IMAGES / f"{name}.manifest.gz"
