"""The images that come with the lab, made by the Linux kernel (tools/make-lab-images), unpacked where needed."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent / "images"
NAMES = ("dir-4k", "dir-16k", "dir-64k", "dirty")
_CHUNK_BYTES = 1 << 20


def unpacked(name: str, folder: Path) -> Path:
    """The image of that name in `folder`, as a sparse file; made there where it is not yet."""
    image = folder / f"{name}.img"
    if image.exists():
        return image
    import lzma

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name}.{os.getpid()}"
    zeros = bytes(_CHUNK_BYTES)
    try:
        with lzma.open(HERE / f"{name}.img.xz") as packed, open(part, "wb") as out:
            while block := packed.read(_CHUNK_BYTES):
                if block == zeros[: len(block)]:
                    out.seek(len(block), os.SEEK_CUR)
                else:
                    out.write(block)
            out.truncate()
        os.rename(part, image)
    finally:
        part.unlink(missing_ok=True)
    return image
