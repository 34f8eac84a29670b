"""Which cells: every combination of what was asked for, on the bundled images unless others are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..buffer import BACKINGS
from ..memory.profile import PROFILES
from .bundled import unpacked
from .cell import Spec
from .runner import Job
from .workloads import WORKLOADS

MACHINES = tuple(PROFILES)
MEMORIES = ("1M", "2M", "4M", "8M", "16M")


def cells(
    folder: Path,
    *,
    workloads: Sequence[str] = tuple(WORKLOADS),
    backings: Sequence[str] = BACKINGS,
    machines: Sequence[str] = MACHINES,
    memories: Sequence[str] = MEMORIES,
    seeds: Sequence[int] = (1,),
    images: Sequence[str] = (),
    traces: Sequence[str] = (),
    size: float = 1.0,
    tasks: int = 0,
) -> Iterator[Spec]:
    """Specs in an order in which neighbours are to be compared.  `images` and `traces` are files."""
    for workload, image in [
        *((name, image) for name in workloads for image in images or _bundled(name, folder)),
        *(("trace", trace) for trace in traces),
    ]:
        for machine in machines:
            for memory in memories:
                for seed in seeds:
                    for backing in backings:
                        yield Spec(workload, image, backing, machine, memory, seed, size, tasks)


def quick(folder: Path) -> list[Job]:
    """Every backing on every machine that can run it, on real images, and what is most worth seeing, in two minutes."""
    jobs = [
        Job(spec)
        for spec in cells(folder, workloads=("lookup", "xattr"), memories=("4M",), size=0.5)
        if Path(spec.image).stem in ("dir-64k", "dir-4k")
        and (spec.workload, Path(spec.image).stem) != ("lookup", "dir-4k")
    ]
    jobs += [Job(spec) for spec in cells(folder, workloads=("recovery",), machines=("host",), memories=("4M",))]
    # enough at once that runs of pages are refused; an area that is too small, and one that does with purging
    mixed = _at(folder, "mixed", "dir-64k", ("nommu-8m", "i386"), "8M", tasks=500, size=0.5)
    walks = _at(folder, "walk", "dir-64k", ("i386:vmalloc=4M", "i386:vmalloc=8M"), "2M")
    jobs += [Job(spec) for spec in (*mixed, *walks)]
    jobs += [Job(spec, bisect=True) for spec in _at(folder, "mixed", "dir-4k", ("i386",), "0", tasks=24, size=0.2)]
    return jobs


def _at(
    folder: Path, workload: str, image: str, machines: Sequence[str], memory: str, *, tasks: int = 0, size: float = 1.0
) -> Iterator[Spec]:
    return cells(
        folder, workloads=(workload,), images=(str(unpacked(image, folder)),), machines=machines, memories=(memory,),
        tasks=tasks, size=size,
    )  # fmt: skip


def _bundled(workload: str, folder: Path) -> list[str]:
    return [str(unpacked(name, folder)) for name in WORKLOADS[workload].images]
