"""Mounts for the judged tests: made by the command line as a user makes them, always taken away again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.judge import kernel

COMMAND = [sys.executable, "-m", "pocketxfs"]
HELPER = [sys.executable, "-m", "pocketxfs.fuse.helper"]


def missing() -> str | None:
    """What mounting lacks on this machine."""
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse"
    if os.geteuid() != 0:
        return "root, to mount"
    return None


def run(*words: str | Path, check: bool = True, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command and take what it says; a failure carries that."""
    done = subprocess.run(
        [str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=600, **more,  # type: ignore[call-overload]
    )  # fmt: skip
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done  # type: ignore[no-any-return]


def copy(image: Path, where: Path) -> Path:
    """A copy of one's own: mounting locks an image, and the cache is everybody's."""
    target = where / image.name
    run("cp", "--sparse=always", image, target)
    return target


@contextlib.contextmanager
def mounted(image: Path, where: Path, options: str = "", **more: object) -> Iterator[Path]:
    """`image` on a directory below `where`, in this process's own mount namespace."""
    kernel.own_mounts()
    point = where / "mnt"
    point.mkdir(exist_ok=True)
    words = [*HELPER, str(image), str(point)]
    run(*words, *(["-o", options] if options else []), **more)
    try:
        yield point
    finally:
        if os.path.ismount(point) or is_mounted(point):
            run("umount", point, check=False)
            run("umount", "--lazy", point, check=False)
        wait_for(lambda: not is_mounted(point))


def is_mounted(point: Path) -> bool:
    """Whether the mount table has it, alive or dead."""
    from pocketxfs.fuse.mounting import mounted_at

    return mounted_at(str(point)) is not None


def server_pid(point: Path) -> int:
    """The process behind a mount."""
    return int(os.getxattr(point, "pocketxfs.pid"))


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so; fail where it does not come to be."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"still not so after {seconds} s")
        time.sleep(0.01)


def have(*programs: str) -> str | None:
    """The first of the programs that is not installed."""
    return next((name for name in programs if shutil.which(name) is None), None)
