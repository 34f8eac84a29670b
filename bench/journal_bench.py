"""Replaying a log: pocketxfs against the kernel's mount, on copies of one image, in one run.

    python bench/journal_bench.py [--runs N] [--log-mib N] [--load install|local|scattered] [--json FILE]

The kernel makes a filesystem with a log of 512 MiB, works on it until three quarters of that are live (then it would
write metadata back to make room) or no more become so, and abandons it.  The work: files made under another name, given
an attribute, a mode and their name, as installing and copying programs do (install); or new files and, for each ten,
seven changes to others, to one of the last 20,000 (local) or to any (scattered), which next to always lie on blocks
that sixteen megabytes do not hold and the kernel's page cache does.  Then in turn, on fresh copies: the kernel mounts;
`pocketxfs.open` replays it into memory, in a process of its own; `pocketxfs recover` replays it in place.  Medians and
their ratios to the mount are printed, with CPU time and the peak RSS of each process; nothing is asserted.  "warm": the
image is in the page cache; the mount takes with it what the kernel writes before it returns.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from images import CACHE, made_once
from pocketxfs.device import open_device
from pocketxfs.format.geometry import Geometry
from pocketxfs.journal.head import find_state
from pocketxfs.journal.recovery import log_ring
from pocketxfs.mounting import read_superblock

_GOINGDOWN = 0x8004587D
_WRITE_BACK = Path("/proc/sys/fs/xfs/xfssyncd_centisecs")
NAMES = {
    "kernel": "the kernel's mount", "open": "pocketxfs.open, in memory", "recover": "pocketxfs recover, in place",
}  # fmt: skip
#: How far back changes go, in files.
LOADS = {"install": 0, "local": 20_000, "scattered": 1 << 40}
_OPEN = """
import sys, pocketxfs
with pocketxfs.open(sys.argv[1], memory="16M") as fs:
    pass
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def live_mib(image: Path) -> float:
    """How much of the log a replay would go through."""
    device = open_device(str(image))
    geo = Geometry(read_superblock(device))
    ring = log_ring(device, geo, None)
    state = find_state(ring)
    device.close()
    return 0.0 if state.clean else ring.distance(state.tail_block, state.head_block) / 2048


def full_log_image(log_mib: int, load: str) -> Path:
    """The abandoned filesystem, made once."""

    def fill(top: Path, image: Path) -> None:
        _work(top, image, log_mib, LOADS[load])
        fd = os.open(top, os.O_RDONLY)
        fcntl.ioctl(fd, _GOINGDOWN, struct.pack("=I", 1))
        os.close(fd)

    name = f"full-log-{log_mib}-{load}.img"
    with _no_write_back():
        return made_once(name, 16 << 30, fill, ("-K", "-l", f"size={log_mib}m"), "loop,logbsize=256k,inode64")


@contextlib.contextmanager
def _no_write_back() -> Iterator[None]:
    """The kernel pushes all metadata out every half minute after mounting: not while a log is filled."""
    old = _WRITE_BACK.read_text()
    _WRITE_BACK.write_text("720000")
    try:
        yield
    finally:
        _WRITE_BACK.write_text(old)


def _work(top: Path, image: Path, log_mib: int, reach: int) -> None:
    """A mixed load until the live part of the log has stopped growing; changes are to the last `reach` files."""
    rng = random.Random(log_mib)
    names: list[str] = []
    most, number = 0.0, 0

    def chosen() -> int:
        return rng.randrange(max(0, len(names) - reach), len(names))

    while True:
        for _ in range(10):
            folder = top / f"d{number // 1000}"
            folder.mkdir()
            for _ in range(1000):
                path = f"{folder}/f{number}"
                with open(path, "wb") as out:
                    if number % 4 == 0:
                        out.write(b"x" * rng.randrange(12000))
                if number % 3 == 0:
                    os.setxattr(path, "user.bench", b"v" * rng.randrange(200))
                if reach == 0:
                    os.chmod(path, 0o755)
                    os.rename(path, f"{folder}/installed-{number}")
                names.append(path)
                number += 1
            if reach == 0:
                continue
            for _ in range(200):
                index = chosen()
                names[index], names[-1] = names[-1], names[index]
                os.unlink(names.pop())
            for _ in range(200):
                index = chosen()
                to = f"{folder}/r{number}-{index}"
                os.rename(names[index], to)
                names[index] = to
            for _ in range(300):
                os.chmod(names[chosen()], 0o600)
        os.sync()
        live = live_mib(image)
        print(f"bench: {number} files, {live:.0f} MiB of {log_mib} live", file=sys.stderr)
        if live > log_mib * 0.74 or (live < most + 1 and live > log_mib / 3):
            return
        most = max(most, live)


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds, the children's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    work()
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Contest:
    """The sides, each on a fresh copy of the image."""

    def __init__(self, image: Path, where: Path) -> None:
        self.image, self.where = image, where
        self.peak_kib: dict[str, int] = {}

    def copy(self) -> Path:
        target = self.where / "copy"
        subprocess.run(["cp", "--sparse=always", str(self.image), str(target)], check=True)
        os.sync()
        return target

    def kernel(self, copy: Path) -> tuple[float, float]:
        point = self.where / "point"
        point.mkdir(exist_ok=True)
        device = subprocess.run(
            ["losetup", "--find", "--show", str(copy)], check=True, capture_output=True, text=True
        ).stdout.strip()
        try:
            found = timed(lambda: _run("mount", "-t", "xfs", "-o", "noatime", device, point))
            _run("umount", point)
        finally:
            _run("losetup", "--detach", device)
        return found

    def open(self, copy: Path) -> tuple[float, float]:
        said: list[str] = []
        found = timed(lambda: said.append(_run(sys.executable, "-c", _OPEN, copy)))
        self.peak_kib["open"] = max(self.peak_kib.get("open", 0), int(said[0]))
        return found

    def recover(self, copy: Path) -> tuple[float, float]:
        report = self.where / "memory.json"

        def work() -> None:
            subprocess.run(
                [sys.executable, "-m", "pocketxfs", f"--memory-report={report}", "recover", str(copy)],
                stdout=subprocess.DEVNULL, check=False,
            )  # fmt: skip

        found = timed(work)
        peak = json.loads(report.read_text())["reports"][0]["process_peak_rss_bytes"] >> 10
        self.peak_kib["recover"] = max(self.peak_kib.get("recover", 0), peak)
        return found


def _run(*words: Any) -> str:
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="Replay of a full log against the kernel's mount.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--log-mib", type=int, default=512)
    parser.add_argument("--load", choices=LOADS, action="append", help="default: all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {load: contest(load, options) for load in options.load or LOADS}
    if options.json:
        options.json.write_text(json.dumps(found) + "\n")
    return 0


def contest(load: str, options: argparse.Namespace) -> dict[str, Any]:
    """One image."""
    image = full_log_image(options.log_mib, load)
    live = live_mib(image)
    print(f"{load}: log of {options.log_mib} MiB, {live:.0f} MiB of it live; {options.runs} runs, medians, warm")
    results: dict[str, list[tuple[float, float]]] = {"kernel": [], "open": [], "recover": []}
    with tempfile.TemporaryDirectory(dir=CACHE) as where:
        sides = Contest(image, Path(where))
        for _ in range(options.runs):
            for side, seconds in results.items():
                seconds.append(getattr(sides, side)(sides.copy()))
    middle = {side: [statistics.median(one) for one in zip(*found, strict=True)] for side, found in results.items()}
    for side, (wall, cpu) in middle.items():
        ratio = wall / middle["kernel"][0]
        rss = f", peak RSS {sides.peak_kib[side] / 1024:.0f} MiB" if side in sides.peak_kib else ""
        print(f"  {NAMES[side]:28} {wall:7.2f} s wall, {cpu:6.2f} s CPU, {ratio:5.2f} x the mount{rss}")
    return {"live_mib": live, "seconds": results, "peak_kib": sides.peak_kib}


if __name__ == "__main__":
    sys.exit(main())
