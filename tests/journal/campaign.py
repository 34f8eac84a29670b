"""One case of the journal's torture: abandon a filesystem, recover it in every way, and let the kernel judge.

A case is a shape, a seed and what the seed chooses: how much load, how many clean mounts before, files held open,
whether the log is flushed, memory.  `run` raises `Violation` where

- the replayed device differs from the kernel's recovery of a copy by more than the superblock's LSN and checksum
  (where something was left to finish, the kernel has finished it: then what files show is compared, and nothing else);
- opening the image for reading changes it, or uses more memory than there is;
- `xfs_repair -n` finds more after recovery in place than after the kernel's, where the log was closed;
- the kernel, given an image recovered in place, shows other files than those of its own recovery;
- a recovery in place that is interrupted does not end in the same state when it is run again.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pocketxfs
from pocketxfs.device import Device, open_device
from pocketxfs.format.geometry import Geometry
from pocketxfs.journal.head import find_state
from pocketxfs.journal.inplace import recover
from pocketxfs.journal.recovery import Report, log_ring, replay
from pocketxfs.memory import Machine, parse_size, profile
from pocketxfs.mounting import read_superblock

from ..judge import compare, kernel, lowlevel, manifest, ours
from . import crash, power

#: Of the superblock: its checksum, its LSN, and quota inodes that a mount without quotas writes as none.
SUPERBLOCK_MAY_DIFFER = (*range(160, 176), *range(224, 228), *range(232, 248))
CHUNK = 1 << 20


class Violation(Exception):
    """The invariant does not hold."""


class Case(NamedTuple):
    """What is done."""

    shape: str
    seed: int
    steps: int = 300
    rounds: int = 1
    held_open: int = 0
    flush_log: bool = True
    settle: bool = True
    memory: str = "16M"
    #: interruptions of the recovery in place to try, 0 for none
    cuts: int = 0

    @classmethod
    def drawn(cls, shape: str, seed: int) -> Case:
        """What a seed chooses."""
        rng = random.Random(f"{shape} {seed}")
        return cls(
            shape, seed, rng.choice((40, 150, 400, 1200, 3000)), rng.choice((1, 1, 2, 3)), rng.choice((0, 0, 6)),
            rng.random() < 0.5, rng.random() < 0.6, rng.choice(("16M", "4M")), rng.choice((0, 0, 25)),
        )  # fmt: skip

    def line(self) -> str:
        """For a file of violations."""
        return json.dumps(self._asdict())


class Opened:
    """The devices of an image."""

    def __init__(self, image: crash.Image, memory: str = "16M", *, writable: bool = False) -> None:
        self.device = open_device(str(image.path), writable=writable)
        self.log = open_device(str(image.log), whole=True, writable=writable) if image.log else None
        self.geo = Geometry(read_superblock(self.device))
        self.machine = Machine(profile("host", parse_size(memory)))

    def close(self) -> None:
        """Let go."""
        self.device.close()
        if self.log is not None:
            self.log.close()
        self.machine.close()


def digest(path: Path | None) -> str:
    """Of a whole file."""
    if path is None:
        return ""
    with path.open("rb") as whole:
        return hashlib.file_digest(whole, "sha256").hexdigest()


def differing(one: Device, other: Device, geo: Geometry) -> Iterator[int]:
    """Sectors outside the log that differ, the superblock's stamps apart."""
    log_start = geo.fsb_to_daddr(geo.log_start) << 9 if geo.log_start else 0
    log_end = log_start + (geo.log_blocks << geo.block_log) if geo.log_start else 0
    for start in range(0, one.size_bytes, CHUNK):
        some = min(CHUNK, one.size_bytes - start)
        left, right = one.pread(start, some), other.pread(start, some)
        if left == right:
            continue
        for at in range(0, some, 512):
            a, b = left[at : at + 512], right[at : at + 512]
            where = start + at
            if a == b or log_start <= where < log_end:
                continue
            if where == 0:
                a, b = bytearray(a), bytearray(b)  # type: ignore[assignment]
                for index in SUPERBLOCK_MAY_DIFFER:
                    a[index] = b[index]  # type: ignore[index]
                if a == b:
                    continue
            yield where


def repair_says(image: crash.Image, version: str) -> tuple[int, list[str]]:
    """Exit code of xfs_repair -n and its complaints."""
    words = [*kernel.xfsprogs("xfs_repair", version), "-n"]
    if image.log:
        words += ["-l", str(image.log)]
    done = subprocess.run([*words, str(image.path)], capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stdout + done.stderr).splitlines()
    usual = ("Phase", "        -", "No modify", "Only one", "directory flags")
    return done.returncode, [line for line in lines if line.strip() and not line.startswith(usual)]


def kernel_shows(image: crash.Image, shape: crash.Shape, output: Path) -> Path:
    """The kernel's manifest of a recovered image."""
    with crash.kernel_recovers(image) as point:
        if manifest.main([str(point), str(output)]):
            raise RuntimeError(f"{image.path}: no manifest")
    return output


def _unshared(record: dict[str, Any]) -> dict[str, Any]:
    """Without word of sharing: an unlinked file that is still there shares what the kernel has freed."""
    if "ext" in record:
        record["ext"] = [[*extent[:3], extent[3] & ~lowlevel.FIEMAP_SHARED] for extent in record["ext"]]
    return record


class Run:
    """A case under way, in a directory of its own."""

    def __init__(self, case: Case, directory: Path) -> None:
        self.case = case
        self.shape = crash.SHAPES[case.shape]
        self.directory = directory
        shutil.rmtree(directory, ignore_errors=True)
        self.facts: dict[str, Any] = {}

    def __call__(self) -> dict[str, Any]:
        """Everything; what was seen."""
        case = self.case
        image = crash.abandon(
            self.shape, self.directory / "made", case.seed, case.steps, flush_log=case.flush_log, rounds=case.rounds,
            held_open=case.held_open, settle=case.settle,
        )  # fmt: skip
        theirs = image.copy(self.directory / "kernel")
        shown = kernel_shows(theirs, self.shape, self.directory / "manifest.gz")
        report = self.in_memory(image, theirs, shown)
        if case.cuts:
            self.interrupted(image)
        self.in_place(image, theirs, shown, report)
        shutil.rmtree(self.directory, ignore_errors=True)
        return self.facts

    def fail(self, text: str) -> None:
        """The image stays for whoever looks into it."""
        raise Violation(f"{self.case.line()}: {text} ({self.directory})")

    def in_memory(self, image: crash.Image, theirs: crash.Image, shown: Path) -> Report:
        """Read only, into an overlay."""
        before = digest(image.path), digest(image.log)
        mine = Opened(image, self.case.memory)
        after, report = replay(mine.device, mine.geo, mine.machine, mine.log)
        kernels = open_device(str(theirs.path))
        self.facts.update(transactions=report.transactions, unfinished=report.unfinished, **report.counts.as_dict())
        if not report.unfinished:
            places = list(differing(after, kernels, mine.geo))
            if places:
                self.fail(f"{len(places)} sectors differ from the kernel's recovery, first at bytes {places[:5]}")
        after.close()
        kernels.close()
        mine.close()
        with pocketxfs.open(image.path, memory=self.case.memory, logdev=image.log) as fs:
            records = compare.kernel_records(shown), ours.walk(fs, 100)
            said = compare.report(*(map(_unshared, one) if report.unfinished else one for one in records))
            if said:
                self.fail(f"what it shows differs: {said}")
            if fs.memory_report()["high_water_bytes"] > fs.mount.machine.profile.ram_bytes:
                self.fail("more memory than there is")
        if (digest(image.path), digest(image.log)) != before:
            self.fail("reading changed the image")
        return report

    def in_place(self, image: crash.Image, theirs: crash.Image, shown: Path, report: Report) -> None:
        """Recovered where it lies; then the kernel's turn."""
        version = self.shape.version
        mine = Opened(image, self.case.memory, writable=True)
        done = recover(mine.device, mine.geo, mine.machine, mine.log)
        if done.closed == report.unfinished:
            self.fail(f"closed {done.closed}, unfinished {report.unfinished}")
        state = find_state(log_ring(mine.device, mine.geo, mine.log))
        mine.close()
        if state.clean != done.closed:
            self.fail(f"the log is {state}")
        if done.closed:
            code, lines = repair_says(image, version)
            kernels, kernel_lines = repair_says(theirs, version)
            more = [line for line in lines if line not in kernel_lines]
            if code and (not kernels or more):
                self.fail(f"xfs_repair -n: {more[:5]}")
        again = kernel_shows(image, self.shape, self.directory / "again.gz")
        said = compare.report(compare.kernel_records(shown), compare.kernel_records(again))
        if said:
            self.fail(f"the kernel shows other files: {said}")
        code, lines = repair_says(image, version)
        if code:
            self.fail(f"xfs_repair -n after the kernel: {lines[:5]}")

    def interrupted(self, image: crash.Image) -> None:
        """Some of the moments when the power can go."""
        if image.log is not None:
            return
        rng = random.Random(self.case.seed)
        mine = Opened(image, self.case.memory)
        whole = power.Recorder(mine.device)
        done = recover(whole, mine.geo, mine.machine)
        ring = log_ring(mine.device, mine.geo, None)
        skip = ring.base_bytes, ring.base_bytes + (ring.blocks << 9)
        moments = list(power.cuts(whole.epochs, rng, 5))
        for writes in rng.sample(moments, min(self.case.cuts, len(moments))):
            device = power.rebuilt(mine.device, writes)
            geo = Geometry(read_superblock(device))
            second = recover(device, geo, mine.machine)
            for changed in (whole, device):
                place = power.difference(whole, device, changed.changes(), skip)
                if place is not None:
                    self.fail(f"interrupted after {len(writes)} writes, it ends otherwise, at byte {place}")
            if second.closed != done.closed or find_state(log_ring(device, geo, None)).clean != done.closed:
                self.fail(f"interrupted after {len(writes)} writes, the log is left otherwise")
            device.close()
        self.facts["cuts"] = min(self.case.cuts, len(moments))
        whole.close()
        mine.close()


def run(case: Case, directory: Path) -> dict[str, Any]:
    """One case; raises `Violation`."""
    return Run(case, directory)()
