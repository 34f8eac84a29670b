"""One cell: a workload, or a recorded trace, over one backing, machine, memory and seed; and what came of it.

`run` does it in this process; `python -m pocketxfs.lab.cell` takes a `Spec` as JSON on its standard input and writes
the outcome to the file that its argument names, so that each cell has a process, and a peak RSS, of its own.

Running out of memory or of addresses is an outcome, not an error: `survived` is false and `failure` says what was asked
for and what there was.  A cell that cannot be (a backing that its machine refuses) is `refused`, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

from ..buffer.measure import measure
from ..errors import NoMemory, Unsupported
from ..memory import Machine, parse_size, profile
from ..memory.process import peak_rss_bytes
from .sample import Sampler
from .workloads import WORKLOADS

#: Changed when outcomes are no longer to be compared with earlier ones.
EDITION = 3
#: Events of a trace between two samples.
TRACE_STEP = 50


class Spec(NamedTuple):
    """What is run.  `workload` is a name of `workloads.WORKLOADS`, or "trace", and then `image` is the trace's file."""

    workload: str
    image: str
    buffers: str
    machine: str
    memory: str
    seed: int = 1
    #: Scales how long a workload goes on.
    size: float = 1.0
    #: Operations at once, in the mixed load; 0 for its own number.
    tasks: int = 0

    @property
    def name(self) -> str:
        """In words, for people."""
        tasks = f", {self.tasks} at once" if self.tasks else ""
        return (
            f"{self.workload} on {Path(self.image).stem}, {self.buffers}, {self.machine}, {self.memory}, "
            f"seed {self.seed}{tasks}"
        )

    def key(self) -> str:
        """A file name that no other cell has; the image counts by what is in it."""
        about = os.stat(self.image)
        raw = json.dumps([EDITION, *self, about.st_size, about.st_mtime_ns])
        return hashlib.sha256(raw.encode()).hexdigest()[:20]


def run(spec: Spec, *, pictures: bool = True) -> dict[str, Any]:
    """Run a cell; its outcome, JSON-able.  Raises `OSError` where the image cannot be read at all."""
    outcome: dict[str, Any] = {"spec": spec._asdict(), "refused": None, "survived": False, "failure": None}
    wall, cpu = perf_counter(), process_time()
    try:
        outcome.update(_trace(spec, pictures) if spec.workload == "trace" else _live(spec, pictures))
    except Unsupported as error:
        outcome["refused"] = str(error)
    outcome["wall_s"], outcome["cpu_s"] = perf_counter() - wall, process_time() - cpu
    outcome["peak_rss_bytes"] = peak_rss_bytes()
    return outcome


def _live(spec: Spec, pictures: bool) -> dict[str, Any]:
    """A workload on a filesystem that is opened for it."""
    from .. import open as open_filesystem

    workload = WORKLOADS[spec.workload]
    try:
        fs = open_filesystem(spec.image, memory=spec.memory, buffers=spec.buffers, machine=spec.machine)
    except NoMemory as error:
        return {"failure": _failure(error, None), "steps": 0}
    with fs:
        machine, cache = fs.mount.machine, fs.mount.cache
        clock = measure(cache)
        sampler = Sampler(machine)
        failure = None
        more = {"tasks": spec.tasks} if spec.tasks else {}
        steps = workload.run(fs, random.Random(spec.seed), spec.size, **more)
        try:
            for _ in steps:
                sampler.tick()
        except NoMemory as error:
            failure = _failure(error, machine)
        finally:
            steps.close()
        sampler.take()
        report = fs.memory_report()
        device = report["devices"]["data"]
        return {
            "survived": failure is None,
            "failure": failure,
            "steps": sampler.steps,
            "io": {"reads": device["reads"], "segments": device["segments"], "bytes": device["read_bytes"]},
            **_figures(report, report["buffers"], clock.report()),
            **_over_time(sampler, pictures),
        }


def _trace(spec: Spec, pictures: bool) -> dict[str, Any]:
    """A recorded trace, played again."""
    from ..buffer.replay import Replay

    with Machine(profile(spec.machine, parse_size(spec.memory))) as machine:
        replay = Replay(machine, spec.buffers)
        clock = measure(replay.cache)
        sampler = Sampler(machine)
        with open(spec.image, encoding="ascii") as lines:
            played = replay.run(lines, every=TRACE_STEP, sample=lambda _: sampler.tick())
        sampler.take()
        outcome = {
            "survived": played["survived"],
            "failure": played["failure"] and {**played["failure"], **_state(machine)},
            "steps": played["events"],
            "io": played["io"],
            **_figures(played["machine"], played["cache"], clock.report()),
            **_over_time(sampler, pictures),
        }
        replay.close()
        return outcome


def _failure(error: NoMemory, machine: Machine | None) -> dict[str, Any]:
    return {"kind": type(error).__name__, "error": str(error), **(_state(machine) if machine is not None else {})}


def _state(machine: Machine) -> dict[str, Any]:
    """What there was when memory ran out."""
    report = machine.report()
    return {
        "allocation": report["last_failure"],
        "buddyinfo": report["buddyinfo"],
        "free_pages": report["free_bytes"] // machine.page_bytes,
        "watermark_pages": report["watermark_pages"],
        "fragmentation_index": report["fragmentation_index"],
        "unusable_index": report["unusable_index"],
    }


def _figures(machine: dict[str, Any], cache: dict[str, Any], clock: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the report's table."""
    statistics, area = machine["statistics"], machine["vmalloc"]
    total = cache["hits"] + cache["misses"]
    return {
        "high_water_bytes": machine["high_water_bytes"],
        "ram_bytes": machine["ram_bytes"],
        "asked_bytes": cache["total_asked_bytes"],
        "taken_bytes": cache["total_taken_bytes"],
        "peak_rounding_bytes": cache["peak_rounding_bytes"],
        "allocations": statistics["allocations"],
        "retried": statistics["retried"],
        "failed": statistics["failed"],
        "reclaim": {key: statistics[key] for key in ("reclaim_runs", "reclaim_rounds", "reclaimed_pages")},
        "vmalloc": area,
        "folios": cache.get("folios"),
        "fallbacks": cache.get("fallbacks"),
        "hit_rate": cache["hits"] / total if total else 1.0,
        "clock": clock,
        "kinds": cache["kinds"],
        "owners": machine["owners"],
        "recursions": machine["recursions"],
    }


def _over_time(sampler: Sampler, pictures: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"series": sampler.series}
    if pictures:
        names, _ = sampler.machine.page_owners()
        rows = sampler.pictures
        packed = b64encode(zlib.compress(b"".join(rows), 9)).decode()
        found["picture"] = {"owners": names, "rows": len(rows), "pages": len(rows[0]), "packed": packed}
    return found


def process(work: Callable[[Spec], dict[str, Any]]) -> int:
    """A process of its own: a `Spec` from standard input, what `work` makes of it into the file that is named."""
    outcome = work(Spec(**json.load(sys.stdin)))
    part = sys.argv[1] + ".part"
    with open(part, "w", encoding="utf-8") as out:
        json.dump(outcome, out)
    os.rename(part, sys.argv[1])
    return 0


if __name__ == "__main__":
    raise SystemExit(process(run))
