"""The images that are damaged: one small filesystem per flavour, made by the kernel with every kind of block in it.

`ensure(flavour)` gives one from the cache beside the judged tests' images, made first where missing or out of date.
Few inodes and names, so that a case (open, walk, read everything) takes some tens of milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from ..judge import kernel, uml

POPULATE = Path(__file__).with_name("populate.py")
MIB = 1 << 20


class Flavour(NamedTuple):
    """How one image is made."""

    name: str
    mkfs: str
    size: int
    judge: str = "kernel"
    xfsprogs: str = "6.1"
    dirblk: int = 4096


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("v5", "-m rmapbt=1", 64 * MIB),
        # AG trees and extent trees of two levels
        Flavour("v5-1k", "-b size=1024 -m rmapbt=1 -i sparse=1,nrext64=1", 64 * MIB),
        # directory blocks of several filesystem blocks, some of them in pieces
        Flavour("v5-dir16k", "-b size=1024 -n size=16k", 64 * MIB, dirblk=16384),
        Flavour("v4", "-m crc=0,finobt=0 -i projid32bit=1", 64 * MIB, judge="uml"),
        Flavour("v4-512", "-m crc=0,finobt=0 -b size=512 -n size=4k", 64 * MIB, judge="uml"),
        Flavour("parent", "-n parent=1", 64 * MIB, xfsprogs="next"),
        Flavour("metadir", "-m metadir=1,rmapbt=1 -i exchange=1", 64 * MIB, xfsprogs="next"),
    )
}


def lacks(flavour: Flavour) -> str | None:
    """What this machine lacks to make it, or None; nothing where it is in the cache."""
    if _up_to_date(flavour):
        return None
    return kernel.missing(flavour.judge, flavour.xfsprogs)


def _home(flavour: Flavour) -> Path:
    return kernel.cache_directory() / f"damage-{flavour.name}"


def _key(flavour: Flavour) -> str:
    return hashlib.sha256(repr(flavour).encode() + POPULATE.read_bytes()).hexdigest()[:16]


def _up_to_date(flavour: Flavour) -> bool:
    note = _home(flavour) / "key"
    return note.exists() and note.read_text() == _key(flavour)


def _mkfs(flavour: Flavour, image: Path) -> Path:
    with image.open("wb") as out:
        out.truncate(flavour.size)
    words = [*kernel.xfsprogs("mkfs.xfs", flavour.xfsprogs), "-q", "-f", "-K", *flavour.mkfs.split(), image]
    kernel.command(*words, environment=kernel.SMALL_ALLOWED)
    return image


def ensure(flavour: Flavour) -> Path:
    """The image, from the cache or made now.  Do not write to it."""
    home = _home(flavour)
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f".{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _up_to_date(flavour):
            shutil.rmtree(home, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as work:
                image = _mkfs(flavour, Path(work) / "image")
                program = [os.path.realpath(sys.executable), str(POPULATE)]
                if flavour.judge == "uml":
                    uml.run(image, [uml.Step("defaults", [*program, uml.MOUNTPOINT, str(flavour.dirblk)])])
                else:
                    with kernel.mounted(image) as point:
                        kernel.command(*program, point, str(flavour.dirblk))
                home.mkdir()
                image.rename(home / "image")
                (home / "key").write_text(_key(flavour))
    return home / "image"
