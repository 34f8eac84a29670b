"""`lab`: what a buffer policy costs, on any image, workload and machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common.args import Option, UsageError, number
from .common.target import split

if TYPE_CHECKING:
    from ..lab.runner import Job
    from .run import Run

USAGE = "record IMAGE -- WORKLOAD | run [--quick] | report [DIR]"
ABOUT = """record IMAGE -- WORKLOAD   run a workload (see below) and write its buffer trace to -o (WORKLOAD.trace)
run                        run cells: every combination of --workloads, --images or --traces, --backings, --machines,
                           --memories and --seeds, in parallel; outcomes are kept in -o (pocketxfs-lab), and what is
                           there is not run again.  With --smallest the smallest memory that does, instead of --memories
report [DIR]               DIR/report.html, one page with everything in it, and the numbers as CSV and JSON

Workloads: mount, walk, copy-out, readers, lookup, xattr, recovery, mixed.  Machines may be changed: i386:vmalloc=4M,
x86_64:cpus=8, arm32:flags-per-call.  Without --images the images that come with the lab are used."""


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    return [number(word) for word in _words(text)]


def _scale(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise ValueError("a factor above 0")
    return value


OPTIONS = (
    Option(("--quick",), "quick", "every backing on every machine, in under two minutes"),
    Option(("--workloads",), "workloads", "which, separated by commas", "NAMES", _words),
    Option(("--backings",), "backings", "which kinds of buffers", "NAMES", _words),
    Option(("--machines",), "machines", "which machines", "NAMES", _words),
    Option(("--memories",), "memories", "how much memory, each", "SIZES", _words),
    Option(("--seeds",), "seeds", "seeds of the workloads (1)", "NUMBERS", _numbers),
    Option(("--images",), "images", "filesystems to run on", "FILES", _words),
    Option(("--traces",), "traces", "recorded traces to replay", "FILES", _words),
    Option(("--smallest",), "smallest", "find the smallest memory, by bisection"),
    Option(("--size",), "size", "how long workloads go on (1)", "FACTOR", _scale, 1.0),
    Option(("--tasks",), "tasks", "operations at once, in the mixed load", "N", number, 0),
    Option(("-j", "--jobs"), "jobs", "cells at once (one a CPU)", "N", number, 0),
    Option(("-o", "--output"), "output", "where to write", "PATH"),
)


#: Common options that `lab run` has in the plural, and what they are where nobody has named them.
_ONE_OF_EACH = (("memory", "16M", "memories"), ("buffers", "contiguous", "backings"), ("machine", "host", "machines"))


def run(run: Run) -> None:
    """Record, run, or report."""
    words = run.args.operands
    what = words[0] if words else ""
    if what == "record" and len(words) == 3:
        _record(run, words[1], words[2])
    elif what == "run" and len(words) == 1:
        _run(run)
    elif what == "report" and len(words) <= 2:
        _report(run, Path(words[1] if len(words) == 2 else "pocketxfs-lab"))
    else:
        raise UsageError(f"lab: {USAGE}")


def _known(kind: str, given: list[str] | None, known: Any) -> Any:
    for word in given or ():
        if word not in known:
            raise UsageError(f"lab: no {kind} is called {word!r}; there are {', '.join(known)}")
    return given or list(known)


def _record(run: Run, image: str, workload: str) -> None:
    from ..lab.record import record
    from ..lab.workloads import WORKLOADS

    args = run.args
    _known("workload", [workload], WORKLOADS)
    target = Path(args.output or f"{workload}.trace")
    fs = run.open(split(image))
    seed = args.seeds[0] if args.seeds else 1
    facts = record(fs, workload, target, seed=seed, size=args.size, tasks=args.tasks)
    run.done += 1
    _tell(run, {"trace": str(target), **facts}, [f"{target}: {facts['events']} events of {facts['steps']} steps"])


def _run(run: Run) -> None:
    from ..lab import runner, tables
    from ..lab.cell import Spec

    folder = Path(run.args.output or "pocketxfs-lab")
    jobs = _jobs(run, folder)
    progress = run.progress("cells", len(jobs), every=1)
    found = runner.run(jobs, folder, parallel=run.args.jobs, tick=lambda _: progress.tick())
    progress.close()
    run.done += len(found)
    lines = []
    for job, outcome in zip(jobs, found, strict=True):
        spec = Spec(**outcome["spec"])
        if job.bisect:
            nbytes = outcome["smallest_bytes"]
            state = "refused" if outcome["refused"] else tables.size(nbytes) if nbytes else "never"
            lines.append(f"smallest: {spec._replace(memory='any').name}: {state}")
        else:
            lines.append(f"{spec.name}: {tables.word(outcome)}")
    lines.append(f"{len(found)} outcomes in {folder}; `pocketxfs lab report {folder}` makes a page of them")
    cells = [tables.row(one) for job, one in zip(jobs, found, strict=True) if not job.bisect]
    smallest = [tables.smallest_row(one) for job, one in zip(jobs, found, strict=True) if job.bisect]
    _tell(run, {"folder": str(folder), "cells": cells, "smallest": smallest}, lines)


def _jobs(run: Run, folder: Path) -> list[Job]:
    from ..buffer import BACKINGS
    from ..lab import matrix
    from ..lab.runner import Job
    from ..lab.workloads import WORKLOADS
    from ..memory import parse_size, profile

    args = run.args
    for option, usual, own in _ONE_OF_EACH:
        if getattr(args, option) != usual:
            raise UsageError(f"lab run: --{option} is for one run; name --{own}")
    if args.quick:
        return matrix.quick(folder)
    workloads = _known("workload", args.workloads, WORKLOADS)
    backings = _known("kind of buffers", args.backings, (*BACKINGS, "vm-map-ram:mapped")) if args.backings else BACKINGS
    machines = args.machines or list(matrix.MACHINES)
    memories = args.memories or list(matrix.MEMORIES)
    try:
        for machine in machines:
            for memory in memories:
                profile(machine, parse_size(memory))
    except ValueError as error:
        raise UsageError(f"lab: {error}") from None
    for path in (*(args.images or ()), *(args.traces or ())):
        if not Path(path).is_file():
            raise UsageError(f"lab: {path} is not a file")
    if args.traces and not args.workloads and not args.images:
        workloads = []
    specs = matrix.cells(
        folder, workloads=workloads, backings=backings, machines=machines,
        memories=["0"] if args.smallest else memories, seeds=args.seeds or [1], images=args.images or (),
        traces=args.traces or (), size=args.size, tasks=args.tasks,
    )  # fmt: skip
    return [Job(spec, args.smallest) for spec in specs]


def _report(run: Run, folder: Path) -> None:
    from ..lab import report, runner, tables

    if not folder.is_dir():
        raise UsageError(f"lab: {folder} is not a folder of outcomes")
    cells, bisections = runner.outcomes(folder)
    if not cells and not bisections:
        raise UsageError(f"lab: no outcomes in {folder}")
    target = Path(run.args.output or folder / "report.html")
    target.write_text(report.page(cells, bisections), encoding="utf-8")
    written = [target, *tables.write(target.parent, cells, bisections)]
    run.done += 1
    _tell(run, {"written": [str(path) for path in written]}, [str(path) for path in written])


def _tell(run: Run, facts: dict[str, Any], lines: list[str]) -> None:
    if run.args.json:
        from .common.jsonout import document

        document(run, **facts)
    else:
        run.out.write("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))
