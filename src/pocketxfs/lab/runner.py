"""Cells run in parallel, each in a process of its own, outcomes kept one file each: what is there is not run again.

A cell's file is named by a hash of all that its outcome follows from, so a run that was interrupted goes on where it
stopped, and a matrix that grows runs only what is new.  Ctrl-C ends the processes and leaves finished cells.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import Error
from .cell import Spec

#: A cell that takes longer is ended, and that is its outcome.
SECONDS = 600.0
_POLL_S = 0.01


class Job(NamedTuple):
    """A cell, or with `bisect` the smallest memory that it finishes in."""

    spec: Spec
    bisect: bool = False

    def path(self, folder: Path) -> Path:
        """Where its outcome is kept."""
        return folder / f"{'smallest' if self.bisect else 'cell'}-{self.spec.key()}.json"


class _Running:
    """A cell's process."""

    def __init__(self, job: Job, path: Path) -> None:
        self.job, self.path = job, path
        self.ends = time.monotonic() + SECONDS
        module = "pocketxfs.lab.smallest" if job.bisect else "pocketxfs.lab.cell"
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        with self.process.stdin as words:
            words.write(json.dumps(job.spec._asdict()).encode())

    def done(self) -> bool:
        """Whether it has ended; raises `Error` where it failed, other than by running out of memory."""
        code = self.process.poll()
        if code is None:
            if time.monotonic() < self.ends:
                return False
            self.end()
            outcome = {"spec": self.job.spec._asdict(), "refused": None, "survived": False, "smallest_bytes": None}
            outcome["failure"] = {"kind": "Timeout", "error": f"ended after {SECONDS:.0f} seconds"}
            self.path.write_text(json.dumps(outcome), encoding="utf-8")
            return True
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode(errors="replace").strip()
        self.process.stderr.close()
        if code or not self.path.exists():
            raise Error(f"{self.job.spec.name}: the cell's process ended with {code}: {said[-2000:]}")
        return True

    def end(self) -> None:
        """Stop it."""
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.path.with_name(self.path.name + ".part").unlink(missing_ok=True)


def run(
    jobs: Iterable[Job], folder: Path, *, parallel: int = 0, tick: Callable[[Job], None] | None = None
) -> list[dict[str, Any]]:
    """Run what has no outcome yet, `parallel` at a time (0: one a CPU); all outcomes, in the jobs' order."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(jobs)
    left = [job for job in reversed(wanted) if not job.path(folder).exists()]
    for job in wanted:
        if tick is not None and job not in left:
            tick(job)
    slots = parallel or os.cpu_count() or 1
    running: list[_Running] = []
    try:
        while left or running:
            while left and len(running) < slots:
                job = left.pop()
                running.append(_Running(job, job.path(folder)))
            for one in [one for one in running if one.done()]:
                running.remove(one)
                if tick is not None:
                    tick(one.job)
            time.sleep(_POLL_S)
    finally:
        for one in running:
            one.end()
    return [load(job.path(folder)) for job in wanted]


def load(path: Path) -> dict[str, Any]:
    """An outcome.  Raises `Error` where the file is not one."""
    try:
        with open(path, encoding="utf-8") as held:
            outcome: dict[str, Any] = json.load(held)
        Spec(**outcome["spec"])
    except (ValueError, KeyError, TypeError) as error:
        raise Error(f"{path}: not an outcome of the lab: {error}") from None
    return outcome


def outcomes(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(cells, bisections) of a folder, by name."""

    def all_of(kind: str) -> list[dict[str, Any]]:
        found = [load(path) for path in folder.glob(f"{kind}-*.json")]
        return sorted(found, key=lambda outcome: Spec(**outcome["spec"]).name)

    return all_of("cell"), all_of("smallest")
