"""A live workload, recorded: what it asks of buffers and memory, for `lab run --trace` to ask again of others."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from ..buffer.trace import recording
from .workloads import WORKLOADS


def record(fs: Any, workload: str, target: Path, *, seed: int = 1, size: float = 1.0, tasks: int = 0) -> dict[str, int]:
    """Run a workload on an open filesystem and write its trace; {"steps", "events"}.  A failure removes the file."""
    more = {"tasks": tasks} if tasks else {}
    steps = 0
    try:
        with open(target, "w", encoding="ascii") as out, recording(fs.mount.cache, out.write) as trace:
            for _ in WORKLOADS[workload].run(fs, random.Random(seed), size, **more):
                steps += 1
        return {"steps": steps, "events": trace.events}
    except BaseException:
        target.unlink(missing_ok=True)
        raise
