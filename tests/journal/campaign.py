"""One case of the journal's torture: abandon a filesystem, recover it in every way, and let the kernel judge.

A case is a shape, a seed and what the seed chooses: how the filesystem is abandoned (shut down, or copied in mid-work),
how much load, how many clean mounts before, files held open, whether the log is flushed, memory.  `run` raises
`Violation` where

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
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pocketxfs
from pocketxfs.device import Device, open_device
from pocketxfs.format import superblock
from pocketxfs.format.geometry import Geometry
from pocketxfs.journal.head import find_state
from pocketxfs.journal.inplace import recover
from pocketxfs.journal.recovery import Report, log_ring, replay
from pocketxfs.memory import Machine, parse_size, profile
from pocketxfs.mounting import read_superblock

from ..judge import compare, kernel, lowlevel, manifest, ours
from . import copied, crash, power

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
    #: copies of the image taken while the load goes on, each one judged; 0: shut down at its end
    copies: int = 0
    #: the copies are taken while files of so many extents are freed, so that intents are under way
    extents: int = 0

    @classmethod
    def drawn(cls, shape: str, seed: int) -> Case:
        """What a seed chooses."""
        rng = random.Random(f"{shape} {seed}")
        drawn = cls(
            shape, seed, rng.choice((40, 150, 400, 1200, 3000)), rng.choice((1, 1, 2, 3)), rng.choice((0, 0, 6)),
            rng.random() < 0.5, rng.random() < 0.6, rng.choice(("16M", "4M")), rng.choice((0, 0, 25)),
            0 if crash.SHAPES[shape].log else rng.choice((0, 0, 0, 2)),
        )  # fmt: skip
        if drawn.copies and rng.random() < 0.3:
            return drawn._replace(copies=4, extents=rng.choice((500, 2000)))
        return drawn

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
    with open(image.path, "rb") as raw:
        if superblock.decode(raw.read(512)).sb_agcount == 1:
            words += ["-o", "force_geometry"]  # a lone AG has no other to vouch for it, and repair would not look at it
    if image.log:
        words += ["-l", str(image.log)]
    if image.rt:
        words += ["-r", str(image.rt)]
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


def comparable(records: Iterator[manifest.Record], report: Report) -> Iterator[manifest.Record]:
    """What is to be the same before and after the kernel has finished what was left.

    Not the inodes that pending intents map, exchange or give attributes to; and without word of sharing, for an
    unlinked file that is still there shares what the kernel has freed.
    """
    changing = set()
    for intent in report.pending:
        if intent.kind in ("BUI", "XMI", "ATTRI"):
            changing.update(int(word) for line in intent.work for word in re.findall(r"inode (\d+)", line))
    for record in records:
        if report.unfinished and "ext" in record:
            runs: list[list[int]] = []
            for logical, physical, nbytes, flags in record["ext"]:
                lowlevel.join(runs, logical, physical, nbytes, flags & ~lowlevel.FIEMAP_SHARED)
            record["ext"] = runs
        if record.get("dino") not in changing:
            yield record


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
        if case.copies:
            if case.extents:
                taken = copied.of_intents(self.shape, self.directory, case.extents, case.copies)
            else:
                taken = copied.taken(self.shape, self.directory, case.seed, case.steps, case.copies)
            with taken as images:
                for image in images:
                    self.judge(image)
                    shutil.rmtree(self.directory / "kernel")
            shutil.rmtree(self.directory, ignore_errors=True)
            self.facts["copies"] = len(images)
            return self.facts
        image = crash.abandon(
            self.shape, self.directory / "made", case.seed, case.steps, flush_log=case.flush_log, rounds=case.rounds,
            held_open=case.held_open, settle=case.settle,
        )  # fmt: skip
        self.judge(image)
        shutil.rmtree(self.directory, ignore_errors=True)
        return self.facts

    def judge(self, image: crash.Image) -> None:
        """Recover it in every way."""
        theirs = image.copy(self.directory / "kernel")
        shown = kernel_shows(theirs, self.shape, self.directory / "manifest.gz")
        report = self.in_memory(image, theirs, shown)
        if self.case.cuts:
            self.interrupted(image)
        self.in_place(image, theirs, shown, report)

    def fail(self, text: str) -> None:
        """The image stays for whoever looks into it."""
        raise Violation(f"{self.case.line()}: {text} ({self.directory})")

    def in_memory(self, image: crash.Image, theirs: crash.Image, shown: Path) -> Report:
        """Read only, into an overlay."""
        before = digest(image.path), digest(image.log)
        mine = Opened(image, self.case.memory)
        after, report = replay(mine.device, mine.geo, mine.machine, mine.log)
        kernels = open_device(str(theirs.path))
        counts: dict[str, int] = {"transactions": report.transactions, **report.counts.as_dict()}
        for name, count in counts.items():
            self.facts[name] = self.facts.get(name, 0) + count
        for intent in report.pending:
            self.facts[intent.kind] = self.facts.get(intent.kind, 0) + 1
        self.facts["unfinished"] = self.facts.get("unfinished", 0) + report.unfinished
        self.facts["head_cycle"] = report.state.head_cycle
        if report.state.clean:
            self.fail("the log is clean")
        if not report.unfinished:
            places = list(differing(after, kernels, mine.geo))
            if places:
                self.fail(f"{len(places)} sectors differ from the kernel's recovery, first at bytes {places[:5]}")
        after.close()
        kernels.close()
        mine.close()
        with pocketxfs.open(image.path, memory=self.case.memory, logdev=image.log) as fs:
            records = compare.kernel_records(shown), ours.walk(fs, 100)
            said = compare.report(*(comparable(one, report) for one in records))
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
        """Some of the moments when the power can go, or all."""
        mine = Opened(image, self.case.memory)
        self.facts["cuts"] = self.facts.get("cuts", 0) + check_interruptions(mine, self.case.cuts, self.case.seed)
        mine.close()


def check_interruptions(mine: Opened, most: int, seed: int) -> int:
    """Recover in place, cut off at up to `most` moments, then again to the end: the same must come out."""
    rng = random.Random(seed)
    bases = [mine.device] if mine.log is None else [mine.device, mine.log]
    history = power.History()
    whole = [history.record(base) for base in bases]
    done = recover(whole[0], mine.geo, mine.machine, *whole[1:])
    ring = log_ring(mine.device, mine.geo, mine.log)
    in_log = ring.base_bytes, ring.base_bytes + (ring.blocks << 9)
    moments = list(power.cuts(history.epochs, rng, 5))
    if len(moments) > most:
        moments = rng.sample(moments, most)
    for writes in moments:
        devices = power.rebuilt(bases, writes)
        geo = Geometry(read_superblock(devices[0]))
        second = recover(devices[0], geo, mine.machine, *devices[1:])
        for changed in (whole[0], devices[0]):
            skip = in_log if mine.log is None else (0, 0)
            place = power.difference(whole[0], devices[0], changed.changes(), skip)
            if place is not None:
                raise Violation(f"interrupted after {len(writes)} writes, it ends otherwise, at byte {place}")
        state = find_state(log_ring(devices[0], geo, devices[1] if devices[1:] else None))
        if second.closed != done.closed or state.clean != done.closed:
            raise Violation(f"interrupted after {len(writes)} writes, the log is left otherwise: {state}")
        for device in devices:
            device.close()
    history.close()
    return len(moments)


def run(case: Case, directory: Path) -> dict[str, Any]:
    """One case; raises `Violation`."""
    return Run(case, directory)()
