"""The images that the benchmarks run on: made by the kernel, kept in the cache directory, always alike (seeded)."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pocketxfs-bench"


def need_root() -> None:
    """The kernel makes the images: say so, and stop, where it cannot."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        sys.exit("bench: needs root, loop mounts and mkfs.xfs, for the kernel makes the images")


def fill(top: Path, files: int, mean_bytes: int) -> None:
    """A tree of `files` files, 100 a directory, sizes from zero to twice the mean."""
    rng = random.Random(files)
    data = rng.randbytes(1 << 20)
    for number in range(files):
        folder = top / f"dir{number // 1000:03d}" / f"sub{number // 100 % 10}"
        if number % 100 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        size, start = rng.randrange(2 * mean_bytes), rng.randrange(1 << 19)
        with open(folder / f"file{number % 100:03d}.txt", "wb", 0) as out:
            out.write(data[start : start + size])


def made_once(
    name: str, nbytes: int, fill_it: Callable[[Path, Path], None], mkfs: Sequence[str] = (), options: str = "loop"
) -> Path:
    """An image of the cache: where it is not there, made, mounted by the kernel, filled by `fill_it(top, image)`."""
    need_root()
    image = CACHE / name
    if image.exists():
        return image
    CACHE.mkdir(parents=True, exist_ok=True)
    part = image.with_suffix(".part")
    print(f"bench: making {name} ...", file=sys.stderr)
    part.unlink(missing_ok=True)
    with open(part, "wb") as out:
        out.truncate(nbytes)
    subprocess.run(["mkfs.xfs", "-q", "-f", *mkfs, str(part)], check=True)
    with tempfile.TemporaryDirectory() as where:
        subprocess.run(["mount", "-o", options, str(part), where], check=True)
        try:
            fill_it(Path(where), part)
        finally:
            subprocess.run(["umount", where], check=True)
    part.rename(image)
    return image


def tree_image(files: int, mean_bytes: int) -> Path:
    """An image that holds such a tree."""
    room = (files * (mean_bytes + 4096 + 1024) * 5 // 4 >> 20) + 300
    return made_once(f"tree-{files}-{mean_bytes}.img", room << 20, lambda top, _: fill(top, files, mean_bytes))
