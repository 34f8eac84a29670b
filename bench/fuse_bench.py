"""The mount, measured: `find` over 60,000 files and reading 1 GiB, against others, both ends on one core and free.

    python bench/fuse_bench.py [--runs N] [--json FILE] [--no-uml] [find read memory splice]

Sides, interleaved in one run, medians of wall time and of the server's CPU time:

    pocketxfs    this program, 16 MiB
    kernel       the kernel's loop mount of the same image
    fuse2fs      libfuse and C, on an ext4 image of the same tree (Debian: fuse2fs)
    uml          user-mode Linux on the same image (Debian: user-mode-linux): its time inside, its own clock
    bare         a Python server that answers every read from memory (bench/bare_server.py); reading only.  The
                 kernel reads it ahead in the same steps as ours, which sets them where it may (as root)

"cold" is a new mount with the machine's caches dropped, image included; "second" the same command once more; reading is
from an image that lies in the page cache, on a new mount.  Nothing is asserted.  Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from images import made_once, need_root, tree_image  # noqa: E402

HERE = Path(__file__).resolve().parent
FILES, MEAN_BYTES = 60_000, 10_900
BIG_BYTES = 1 << 30
CORE = str(min(os.sched_getaffinity(0)))

#: Each reads an eighth of the tree.
EIGHT_READERS = "for n in 0 1 2 3 4 5 6 7; do (find dir0$n* -type f -exec cat {} + >/dev/null) & done; wait"


def command(*words: str | Path) -> None:
    """Run a program quietly; an error carries what it said."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()[-500:]}")


@contextlib.contextmanager
def loop_mounted(image: Path, options: str = "loop") -> Iterator[Path]:
    """The kernel's mount."""
    with tempfile.TemporaryDirectory() as where:
        command("mount", "-o", options, image, where)
        try:
            yield Path(where)
        finally:
            command("umount", where)


def big_image() -> Path:
    """An XFS with one file of 1 GiB."""

    def fill(top: Path, _image: Path) -> None:
        block = os.urandom(1 << 20)
        with open(top / "big", "wb") as out:
            for _ in range(BIG_BYTES >> 20):
                out.write(block)

    return made_once("big.img", BIG_BYTES + (500 << 20), fill)


def ext4_twin(image: Path) -> Path:
    """An ext4 image of the same tree, for fuse2fs."""
    twin = image.with_suffix(".ext4")
    if not twin.exists():
        part = twin.with_suffix(".part")
        with open(part, "wb") as out:
            out.truncate(image.stat().st_size)
        command("mkfs.ext4", "-q", "-F", "-N", str(max(20_000, FILES + 10_000)), part)
        with loop_mounted(part) as there, loop_mounted(image, "loop,ro,nouuid") as here:
            command("cp", "-a", f"{here}/.", there)
        part.rename(twin)
    return twin


# -- sides -----------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have run, so far."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1e9


class Mount:
    """A mounted side; `pid` is its server, None for the kernel."""

    def __init__(self, top: Path, pid: int | None) -> None:
        self.top, self.pid = top, pid

    def timed(self, words: list[str], pinned: bool) -> tuple[float, float]:
        """(wall seconds, the server's CPU seconds) of a command run in the mount."""
        prefix = ["taskset", "-c", CORE] if pinned else []
        before = cpu_seconds(self.pid) if self.pid else 0.0
        start = time.perf_counter()
        with open(os.devnull, "wb") as nowhere:
            subprocess.run([*prefix, *words], cwd=self.top, stdout=nowhere, check=True)
        wall = time.perf_counter() - start
        return wall, (cpu_seconds(self.pid) if self.pid else 0.0) - before


@contextlib.contextmanager
def served(words: list[str], pinned: bool, ready: Callable[[Path], bool]) -> Iterator[Mount]:
    """A server in the foreground on a directory of its own ("{}" in its command)."""
    with tempfile.TemporaryDirectory() as where:
        prefix = ["taskset", "-c", CORE] if pinned else []
        full = [*prefix, *(where if word == "{}" else word for word in words)]
        process = subprocess.Popen(full, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 60
            while not ready(Path(where)):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{words[0]}: {process.stderr.read() if process.stderr else b''!r}")
                time.sleep(0.01)
            yield Mount(Path(where), process.pid)
        finally:
            while subprocess.run(["umount", where], stderr=subprocess.DEVNULL).returncode and os.path.ismount(where):
                time.sleep(0.05)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # fuse2fs stays for long after its mount has gone
                process.kill()
                process.wait()


def pocketxfs(image: Path, pinned: bool, options: str = "mb=16") -> contextlib.AbstractContextManager[Mount]:
    """Ours."""
    words = [sys.executable, "-m", "pocketxfs", "mount", "-f", "-o", options, str(image), "{}"]
    return served(words, pinned, os.path.ismount)


def fuse2fs(image: Path, pinned: bool) -> contextlib.AbstractContextManager[Mount]:
    """libfuse and C."""
    return served(["fuse2fs", "-f", "-o", "ro", str(ext4_twin(image)), "{}"], pinned, os.path.ismount)


def bare(image: Path, pinned: bool) -> contextlib.AbstractContextManager[Mount]:
    """The floor."""
    words = [sys.executable, str(HERE / "bare_server.py"), "{}", str(BIG_BYTES)]
    return served(words, pinned, lambda top: os.path.ismount(top))


@contextlib.contextmanager
def kernel(image: Path, pinned: bool) -> Iterator[Mount]:
    """The kernel's own XFS."""
    with loop_mounted(image, "loop,ro,nouuid,noatime") as top:
        yield Mount(top, None)


def read_ahead(mount: Mount, kib: int) -> None:
    """How far the kernel reads ahead on a mount."""
    device = mount.top.stat().st_dev
    Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(str(kib))


def drop_caches() -> None:
    """Everything that can be read again."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def warm(path: Path) -> None:
    """Into the page cache, without taking memory here."""
    with open(path, "rb") as whole, open(os.devnull, "wb") as nowhere:
        shutil.copyfileobj(whole, nowhere, 1 << 20)


# -- benches ---------------------------------------------------------------------------------------------------

FIND = ["find", ".", "-printf", "%p %s %i %m %n %U %G %T@\\n"]
READ = ["dd", "if=big", "of=/dev/null", "bs=1M", "status=none"]
Rows = dict[str, dict[str, list[float]]]


def note(rows: Rows, side: str, what: str, value: float) -> None:
    """Keep one measurement."""
    rows.setdefault(side, {}).setdefault(what, []).append(value)


def usable(*sides: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The sides whose programs are here; the others are named."""
    found = []
    for side in sides:
        if side is fuse2fs and not shutil.which("fuse2fs"):
            print("bench: fuse2fs is not installed, left out", file=sys.stderr)
        else:
            found.append(side)
    return found


def bench_find(runs: int, with_uml: bool) -> Rows:
    """Cold and second `find -printf` over the tree."""
    image = tree_image(FILES, MEAN_BYTES)
    rows: Rows = {}
    sides = usable(pocketxfs, kernel, fuse2fs)
    for _ in range(runs):
        for pinned in (True, False):
            label = "pinned" if pinned else "free"
            for side in sides:
                with side(image, pinned) as mount:
                    drop_caches()
                    wall, cpu = mount.timed(FIND, pinned)
                    note(rows, side.__name__, f"cold {label}", wall)
                    note(rows, side.__name__, f"cold {label}, server's CPU", cpu)
                    wall, cpu = mount.timed(FIND, pinned)
                    note(rows, side.__name__, f"second {label}", wall)
                    note(rows, side.__name__, f"second {label}, server's CPU", cpu)
    if with_uml:
        uml(rows, image, runs, {"cold free": (FIND, False), "second free": (FIND, True)})
    return rows


def bench_read(runs: int, with_uml: bool) -> Rows:
    """1 GiB from beginning to end."""
    image = big_image()
    rows: Rows = {}
    sides = usable(pocketxfs, bare, kernel, fuse2fs)
    for _ in range(runs):
        for pinned in (True, False):
            label = "pinned" if pinned else "free"
            for side in sides:
                if side is not bare:
                    warm(ext4_twin(image) if side is fuse2fs else image)
                with side(image, pinned) as mount:
                    if side is bare:
                        read_ahead(mount, 512)
                    wall, cpu = mount.timed(READ, pinned)
                    note(rows, side.__name__, f"read {label}", wall)
                    note(rows, side.__name__, f"read {label}, server's CPU", cpu)
    if with_uml:
        uml(rows, image, runs, {"read free": (READ, False)})
    return rows


def bench_splice(runs: int, with_uml: bool) -> Rows:
    """The two ways of moving data, against each other."""
    image = big_image()
    rows: Rows = {}
    for _ in range(runs):
        for pinned in (True, False):
            for name, options in (("splice", "mb=16"), ("staging buffer", "mb=16,nosplice")):
                warm(image)
                with pocketxfs(image, pinned, options) as mount:
                    wall, cpu = mount.timed(READ, pinned)
                    note(rows, name, f"read {'pinned' if pinned else 'free'}", wall)
                    note(rows, name, f"read {'pinned' if pinned else 'free'}, server's CPU", cpu)
    return rows


def bench_memory(runs: int, with_uml: bool) -> Rows:
    """Peak RSS through a find over 600,000 files, a tar of everything, eight readers in parallel."""
    rows: Rows = {}
    image = tree_image(600_000, 256)
    for options in ("mb=16", "machine=nommu-16m"):
        with pocketxfs(image, False, options) as mount:
            for what, words in (
                ("find over 600,000", FIND),
                ("tar of everything", ["sh", "-c", "tar -cf - . | cat >/dev/null"]),
                ("eight readers", ["sh", "-c", EIGHT_READERS]),
            ):  # fmt: skip
                mount.timed(words, False)
                status = Path(f"/proc/{mount.pid}/status").read_text()
                peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
                note(rows, options, f"peak RSS, MiB, after {what}", int(peak) / 1024)
            report = json.loads(os.getxattr(mount.top, "pocketxfs.memory"))
            note(rows, options, "arena's high-water mark, MiB", report["high_water_bytes"] / (1 << 20))
    return rows


def uml(rows: Rows, image: Path, runs: int, jobs: dict[str, tuple[list[str], bool]]) -> None:
    """User-mode Linux: one start a run; what each command takes, by the clock inside."""
    from tests.judge import uml as judge

    if judge.missing():
        print(f"bench: {judge.missing()} is not installed, left out", file=sys.stderr)
        return
    script = (
        "import json, os, subprocess, sys, time\n"
        "out = []\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    start = time.perf_counter()\n"
        "    subprocess.run(words, cwd='/mnt/xfs', stdout=open('/dev/null', 'wb'), check=True)\n"
        "    out.append(time.perf_counter() - start)\n"
        "print(json.dumps(out))\n"
    )
    for _ in range(runs):
        drop_caches()
        if not any("cold" in name for name in jobs):
            warm(image)
        words = [os.path.realpath(sys.executable), "-c", script, json.dumps([words for words, _ in jobs.values()])]
        said = judge.run(image, [judge.Step("ro,nouuid,norecovery", words)], memory="192M")
        for name, wall in zip(jobs, json.loads(said.splitlines()[-1]), strict=True):
            note(rows, "uml", name, wall)


BENCHES: dict[str, Callable[[int, bool], Rows]] = {
    "find": bench_find, "read": bench_read, "splice": bench_splice, "memory": bench_memory,
}  # fmt: skip


def main() -> int:
    """Run the benches that were named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="*", choices=[*BENCHES, []], help="which (default: all)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-uml", action="store_true", help="leave user-mode Linux out (it is slow to start)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args()
    need_root()
    everything: dict[str, Any] = {}
    for name in arguments.bench or BENCHES:
        rows = BENCHES[name](arguments.runs, not arguments.no_uml)
        everything[name] = {
            side: {what: statistics.median(values) for what, values in found.items()} for side, found in rows.items()
        }
        print(f"\n{name} (median of {arguments.runs}; load {os.getloadavg()[0]:.1f})")
        first = next(iter(everything[name].values()))
        for what in first:
            print(f"  {what}")
            for side, found in everything[name].items():
                if what in found:
                    ratio = f"×{found[what] / first[what]:.2f}" if first[what] else ""
                    print(f"    {side:20} {found[what]:9.3f}  {ratio}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(everything, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
