"""Images copied while the kernel works on them: what a power cut leaves, at moments that nobody prepared.

The image lies on an XFS of our own with reflink, where a clone of a file is that file at one instant: every write that
the loop device has finished, nothing of those it has not.  Clones are taken at steps that
the seed chooses: while the load goes on, right behind a `sync`, when the kernel has come to rest, and while it writes
metadata back: only then are there blocks on the disk that are newer than parts of the log.

Limits: one file only, so no external logs: two files cannot be cloned in the same instant.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..judge import kernel, lowlevel
from . import crash

HOST_BYTES = 12 << 30
HOW = ("at once", "synced", "at rest", "writing back", "writing back")


@contextlib.contextmanager
def _floor(directory: Path) -> Iterator[Path]:
    """A filesystem whose files can be cloned."""
    directory.mkdir(parents=True, exist_ok=True)
    host = directory / "host"
    with host.open("wb") as out:
        out.truncate(HOST_BYTES)
    kernel.command("mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1", host)
    with kernel.mounted(host, "noatime") as floor:
        yield floor


@contextlib.contextmanager
def taken(shape: crash.Shape, directory: Path, seed: int, steps: int, count: int) -> Iterator[list[crash.Image]]:
    """`count` copies of a filesystem under load; they lie on a filesystem that is gone afterwards."""
    with _floor(directory) as floor:
        image = crash.make(shape, floor / "made")
        yield _under_load(shape, image.path, floor, seed, steps, count)


@contextlib.contextmanager
def of_intents(shape: crash.Shape, directory: Path, extents: int, count: int) -> Iterator[list[crash.Image]]:
    """Copies taken while files of very many extents are freed and shared, and the log is written all the time.

    The kernel leaves out of the log what begins and ends between two writes of it; so some of these copies show
    intents whose done items have not been logged yet.
    """
    with _floor(directory) as floor:
        image = crash.make(shape, floor / "made")
        with kernel.mounted(image.path, shape.mount) as point:
            words = ",".join(shape.mkfs)
            shared, exchanged = "reflink=1" in words, "exchange=1" in words
            for name in ("one", "two", "three"):
                _shatter(point / name, extents)
                if shared:
                    _share(point / name, point / f"{name}-shared")
            os.sync()
            over = threading.Event()
            forcing = threading.Thread(target=_force_log, args=(point, over))
            forcing.start()
            try:
                with ThreadPoolExecutor(1) as executor:
                    freeing = executor.submit(_free, point, shared, exchanged)
                    copies = [_clone(image.path, floor)]
                    while not freeing.done():
                        copies.append(_clone(image.path, floor))
                    freeing.result()
            finally:
                over.set()
                forcing.join()
        yield copies[:: max(1, len(copies) // count)][:count]


def _shatter(path: Path, extents: int) -> None:
    """A file of that many extents, each with holes beside it."""
    with path.open("wb") as out:
        for number in range(extents):
            os.pwrite(out.fileno(), b"x", number * 3 * 4096)


def _share(source: Path, target: Path) -> None:
    with source.open("rb") as one, target.open("wb") as other:
        lowlevel.clone_range(one.fileno(), 0, 0, other.fileno(), 0)


def _force_log(point: Path, over: threading.Event) -> None:
    number = 0
    with (point / "forced").open("wb") as out:
        while not over.is_set():
            number += 1
            os.fchmod(out.fileno(), 0o600 | number & 0o77)
            os.fsync(out.fileno())


def _free(point: Path, shared: bool, exchanged: bool) -> None:
    if exchanged:
        for number in range(150):
            (point / f"name-{number}").touch()
            os.rename(point / f"name-{number}", point / f"renamed-{number}-{'x' * 150}")
        with open(point / "one", "r+b") as one, open(point / "two", "r+b") as two:
            lowlevel.exchange_range(one.fileno(), two.fileno(), os.fstat(one.fileno()).st_size)
    for name in ("one", "two", "three"):
        if shared:
            _share(point / f"{name}-shared", point / f"{name}-again")
        fd = os.open(point / name, os.O_RDWR)
        os.ftruncate(fd, 8192)
        os.close(fd)
        os.unlink(point / name)


def _clone(image: Path, floor: Path) -> crash.Image:
    copy = crash.Image(Path(tempfile.mkdtemp(prefix="copy", dir=floor)) / "image", None)
    with open(image, "rb") as one, open(copy.path, "wb") as other:
        lowlevel.clone_range(one.fileno(), 0, 0, other.fileno(), 0)
    return copy


def _under_load(shape: crash.Shape, image: Path, floor: Path, seed: int, steps: int, count: int) -> list[crash.Image]:
    rng = random.Random(f"copies {seed}")
    moments = sorted(rng.sample(range(steps // 4, steps), count))
    copies: list[crash.Image] = []

    def clone() -> None:
        copies.append(_clone(image, floor))

    with kernel.mounted(image, shape.mount) as point:
        load = crash.Load(str(point), seed)
        for number, moment in enumerate(moments, 1):
            load.run(moment - load.steps)
            how = rng.choice(HOW)
            if how == "at rest":
                os.statvfs(point)
                time.sleep(0.2)
            if how in ("synced", "at rest"):
                os.sync()
            if how == "writing back":
                os.sync()
                first = len(copies)
                with _freezing(point) as freezing:
                    while freezing():
                        clone()
                chosen = copies[first + int((len(copies) - first) * rng.uniform(0.3, 0.8))]
                copies[first:] = [chosen]
            else:
                taker = threading.Thread(target=clone)
                taker.start()
                load.run(20 if how != "at rest" else 0)
                taker.join()
            if len(copies) != number:
                raise RuntimeError(f"{image}: copy {number} was not taken")
    return copies


@contextlib.contextmanager
def _freezing(point: Path) -> Iterator[Callable[[], bool]]:
    """The kernel writes back all metadata meanwhile: some of it is older than the log, some is not."""
    fd = os.open(point, os.O_RDONLY)
    freezer = threading.Thread(target=lowlevel.freeze, args=(fd,))
    freezer.start()
    try:
        yield freezer.is_alive
    finally:
        freezer.join()
        lowlevel.thaw(fd)
        os.close(fd)
