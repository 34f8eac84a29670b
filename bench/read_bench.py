"""Reading: walk, contents, `cp -r`, `cat`, and the memory that `cp -r` takes, each against its peer, in one run.

    python bench/read_bench.py [--runs N] [--json FILE] [walk contents cp cat memory]

Both sides of a comparison run in turn on one image, several times; medians and their ratio are printed, wall and CPU,
and nothing is asserted.  Peers: libfsxfs (C, from PyPI: `libfsxfs-python`) and dissect.xfs (Python) for the library,
`cp -a` from a kernel loop mount for the command line.  The image is in the page cache ("warm") unless said otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from images import tree_image

HERE = Path(__file__).resolve()

WALKERS = {
    "pocketxfs": """
import pocketxfs
fs = pocketxfs.open(IMAGE)
def walk(path):
    n = 0
    for entry in fs.scandir(path):
        entry.stat(follow_symlinks=False)
        n += 1
        if entry.is_dir(follow_symlinks=False):
            n += walk(entry.path)
    return n
def run():
    return walk("/")
""",
    "libfsxfs": """
import pyfsxfs
volume = pyfsxfs.volume()
volume.open(IMAGE)
def walk(folder):
    n = 0
    for index in range(folder.number_of_sub_file_entries):
        entry = folder.get_sub_file_entry(index)
        entry.name, entry.size, entry.inode_number, entry.number_of_links
        entry.owner_identifier, entry.group_identifier
        entry.get_access_time_as_integer(), entry.get_modification_time_as_integer()
        entry.get_inode_change_time_as_integer()
        n += 1
        if entry.file_mode >> 12 == 4:
            n += walk(entry)
    return n
def run():
    return walk(volume.get_root_directory())
""",
    "libfsxfs, name and size only": """
import pyfsxfs
volume = pyfsxfs.volume()
volume.open(IMAGE)
def walk(folder):
    n = 0
    for index in range(folder.number_of_sub_file_entries):
        entry = folder.get_sub_file_entry(index)
        entry.name, entry.size
        n += 1
        if entry.file_mode >> 12 == 4:
            n += walk(entry)
    return n
def run():
    return walk(volume.get_root_directory())
""",
    "dissect.xfs": """
from dissect.xfs import XFS
fs = XFS(open(IMAGE, "rb"))
def walk(node):
    n = 0
    for name, child in node.listdir().items():
        if name not in (".", ".."):
            child.size, child.mtime, child.inode
            n += 1
            if child.filetype == 0o040000:
                n += walk(child)
    return n
def run():
    return walk(fs.root)
""",
}
READERS = {
    "pocketxfs": """
import pocketxfs
fs = pocketxfs.open(IMAGE)
def read(path):
    n = 0
    for entry in fs.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            n += read(entry.path)
        else:
            n += len(fs.read_bytes(entry))
    return n
def run():
    return read("/")
""",
    "libfsxfs": """
import pyfsxfs
volume = pyfsxfs.volume()
volume.open(IMAGE)
def read(folder):
    n = 0
    for index in range(folder.number_of_sub_file_entries):
        entry = folder.get_sub_file_entry(index)
        if entry.file_mode >> 12 == 4:
            n += read(entry)
        elif entry.size:
            n += len(entry.read_buffer(entry.size))
    return n
def run():
    return read(volume.get_root_directory())
""",
}
TIMER = """
import sys, time
IMAGE = sys.argv[1]
{code}
wall, cpu = time.perf_counter(), time.process_time()
result = run()
print(time.perf_counter() - wall, time.process_time() - cpu, result)
"""


def in_turn(runs: int, sides: dict[str, Callable[[], tuple[float, float, Any]]]) -> dict[str, dict[str, Any]]:
    """Run every side `runs` times, interleaved; medians."""
    taken: dict[str, list[tuple[float, float, Any]]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            taken[name].append(side())
    return {
        name: {
            "wall_s": round(statistics.median(wall for wall, _, _ in rows), 4),
            "cpu_s": round(statistics.median(cpu for _, cpu, _ in rows), 4),
            "result": rows[0][2],
        }
        for name, rows in taken.items()
    }


def python_sides(codes: dict[str, str], image: Path) -> dict[str, Callable[[], tuple[float, float, Any]]]:
    """Each side a fresh interpreter; one whose library is missing is left out, loudly."""

    def side(code: str) -> Callable[[], tuple[float, float, Any]]:
        def run() -> tuple[float, float, Any]:
            command = [sys.executable, "-c", TIMER.format(code=code), str(image)]
            wall, cpu, result = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            return float(wall), float(cpu), int(result)

        return run

    found = {}
    for name, code in codes.items():
        module = {"libfsxfs": "pyfsxfs", "dissect.xfs": "dissect.xfs"}.get(name.split(",")[0], "pocketxfs")
        if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode:
            print(f"bench: {name} is not installed, left out", file=sys.stderr)
        else:
            found[name] = side(code)
    return found


def timed(command: list[str]) -> tuple[float, float, int]:
    """(wall, CPU, exit status) of one command."""
    before = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)])
    _, status, usage = os.wait4(pid, 0)
    return time.perf_counter() - before, usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)


def pocketxfs_command(*words: str) -> list[str]:
    """The command line as installed in this interpreter's environment."""
    return [sys.executable, "-m", "pocketxfs", *words]


def bench_cp(image: Path, runs: int) -> dict[str, dict[str, Any]]:
    """`cp -r` to a tmpfs against `cp -a` from a kernel loop mount."""
    shm = tempfile.mkdtemp(dir="/dev/shm")
    where = tempfile.mkdtemp()
    subprocess.run(["mount", "-o", "loop,ro", str(image), where], check=True)

    def clean(target: str) -> None:
        shutil.rmtree(target, ignore_errors=True)

    def ours(*options: str) -> Callable[[], tuple[float, float, Any]]:
        def run() -> tuple[float, float, Any]:
            target = f"{shm}/ours"
            got = timed(pocketxfs_command("cp", "-r", *options, f"{image}:/", target))
            clean(target)
            return got

        return run

    def kernel() -> tuple[float, float, Any]:
        target = f"{shm}/kernel"
        got = timed(["cp", "-a", where, target])
        clean(target)
        return got

    try:
        return in_turn(
            runs, {"pocketxfs cp -r": ours(), "pocketxfs cp -r -p": ours("-p"), "kernel mount, cp -a": kernel}
        )
    finally:
        subprocess.run(["umount", where], check=True)
        clean(shm)
        os.rmdir(where)


def bench_cat(image: Path, runs: int) -> dict[str, dict[str, Any]]:
    """`cat` of one small file, process start included."""
    command = pocketxfs_command("cat", f"{image}:/dir000/sub0/file001.txt")
    floor = [sys.executable, "-c", "pass"]
    taken = in_turn(max(runs, 9), {"pocketxfs cat": lambda: timed(command), "python -c pass": lambda: timed(floor)})
    with tempfile.TemporaryDirectory() as where:
        said = memory_report([*command, "--memory-report", f"{where}/report.json"], Path(where, "report.json"))
    taken["pocketxfs cat"]["result"] = f"{said['devices']['data']['reads']} device reads"
    return taken


def memory_report(command: list[str], told: Path) -> dict[str, Any]:
    """What a run says of its memory; its own figure, for getrusage's begins with that of whoever started it."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads(told.read_text())["reports"][0]
    return report


def bench_memory(_image: Path, _runs: int) -> dict[str, dict[str, Any]]:
    """Peak RSS and arena high-water of `cp -r` of 60,000 and of 600,000 files."""
    found: dict[str, dict[str, Any]] = {}
    shm = tempfile.mkdtemp(dir="/dev/shm")
    try:
        for files in (60_000, 600_000):
            image = tree_image(files, 256)
            told = Path(shm, "report.json")
            began = time.perf_counter()
            said = memory_report(
                pocketxfs_command(
                    "--memory", "16M", "--memory-report", str(told), "cp", "-r", f"{image}:/", f"{shm}/out"
                ),
                told,
            )
            found[f"{files} files"] = {
                "wall_s": round(time.perf_counter() - began, 2),
                "cpu_s": float("nan"),
                "peak_rss_mib": round(said["process_peak_rss_bytes"] / (1 << 20), 1),
                "arena_high_water_mib": round(said["high_water_bytes"] / (1 << 20), 2),
            }
            shutil.rmtree(f"{shm}/out", ignore_errors=True)
    finally:
        shutil.rmtree(shm, ignore_errors=True)
    return found


BENCHES: dict[str, Callable[[Path, int], dict[str, dict[str, Any]]]] = {
    "walk": lambda image, runs: in_turn(runs, python_sides(WALKERS, image)),
    "contents": lambda image, runs: in_turn(runs, python_sides(READERS, image)),
    "cp": bench_cp,
    "cat": bench_cat,
    "memory": bench_memory,
}


def main() -> int:
    """Run the benches that were named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="*", choices=[*BENCHES, []], help="which (default: all)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    image = tree_image(60_000, 10_900)
    with open(image, "rb") as whole, open("/dev/null", "wb") as nowhere:
        shutil.copyfileobj(whole, nowhere, 1 << 20)
    everything = {}
    for name in arguments.bench or BENCHES:
        rows = BENCHES[name](image, arguments.runs)
        everything[name] = rows
        base = next(iter(rows.values()))
        print(f"\n{name} (warm, median of {arguments.runs})")
        for side, row in rows.items():
            ratio = row["wall_s"] / base["wall_s"] if base["wall_s"] else 0
            more = {key: value for key, value in row.items() if key not in ("wall_s", "cpu_s")}
            print(f"  {side:32} wall {row['wall_s']:8.3f} s  cpu {row['cpu_s']:8.3f} s  ×{ratio:.2f}  {more}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(everything, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
