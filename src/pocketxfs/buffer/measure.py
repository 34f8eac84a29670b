"""Time really spent on finding, mapping and giving back the memory of buffers.

    clock = measure(cache)
    ...
    clock.report()["map"]["cpu_ns"]

Steps are allocate and free (the backing's), map, unmap and purge (the vmalloc area's), reclaim (the machine's), and
bio: finding a buffer's segments and reading them.  Each is counted in itself: an allocation's time does not hold that
of the mapping or the reclaim inside it.  CPU time is the thread's, user and system.  Until it is asked for nothing is
measured and nobody pays; from then on each step costs about `overhead_ns` more, which is in its figures.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING, Any, TypeVar

from ..memory.reclaim import Reclaim
from ..memory.vmalloc import VmallocArea
from .backing import Backing, Place

if TYPE_CHECKING:
    from .cache import BufferCache

T = TypeVar("T")
STEPS = ("allocate", "free", "map", "unmap", "purge", "reclaim", "bio")


class Clock:
    """Calls, wall and CPU nanoseconds of each step."""

    def __init__(self) -> None:
        self._sums = {step: [0, 0, 0] for step in STEPS}
        self._inner: list[list[int]] = []
        #: What one measured step costs in CPU time, on this machine, now.
        self.overhead_ns = self._overhead()

    def step(self, name: str, work: Callable[..., T], *arguments: Any) -> T:
        """Do the work on this step's account."""
        inner = [0, 0]
        self._inner.append(inner)
        cpu, wall = thread_time_ns(), perf_counter_ns()
        try:
            return work(*arguments)
        finally:
            wall, cpu = perf_counter_ns() - wall, thread_time_ns() - cpu
            self._inner.pop()
            sums = self._sums[name]
            sums[0] += 1
            sums[1] += wall - inner[0]
            sums[2] += cpu - inner[1]
            if self._inner:
                self._inner[-1][0] += wall
                self._inner[-1][1] += cpu

    def _overhead(self) -> int:
        start = thread_time_ns()
        for _ in range(64):
            self.step("free", int)
        spent = (thread_time_ns() - start) >> 6
        self._sums["free"] = [0, 0, 0]
        return spent

    def report(self) -> dict[str, Any]:
        """By step, JSON-able."""
        rows: dict[str, Any] = {
            step: {"calls": calls, "wall_ns": wall, "cpu_ns": cpu} for step, (calls, wall, cpu) in self._sums.items()
        }
        return {**rows, "overhead_ns": self.overhead_ns}


class _Measured(Backing):
    """A backing whose calls are timed."""

    __slots__ = ("clock", "inner")

    def __init__(self, inner: Backing, clock: Clock) -> None:
        Backing.__init__(self, inner.machine)
        self.inner, self.clock = inner, clock
        self.maps = inner.maps

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.inner.name

    def allocate(self, nbytes: int, owner: str, noretry: bool = False) -> Place:
        return self.clock.step("allocate", self.inner.allocate, nbytes, owner, noretry)

    def free(self, place: Place, nbytes: int) -> None:
        self.clock.step("free", self.inner.free, place, nbytes)

    def taken_bytes(self, nbytes: int) -> int:
        return self.inner.taken_bytes(nbytes)

    def report(self) -> dict[str, int]:
        return self.inner.report()


class _MeasuredArea(VmallocArea):
    clock: Clock

    def map_range(self, first: int, frames: list[int]) -> None:
        self.clock.step("map", VmallocArea.map_range, self, first, frames)

    def unmap_range(self, first: int, npages: int) -> None:
        self.clock.step("unmap", VmallocArea.unmap_range, self, first, npages)

    def purge(self) -> bool:
        return self.clock.step("purge", VmallocArea.purge, self)


class _MeasuredReclaim(Reclaim):
    __slots__ = ()

    def run(self, nbytes: int, scope: int, enough: Callable[[], bool]) -> bool:
        clock: Clock = self.clock
        return clock.step("reclaim", Reclaim.run, self, nbytes, scope, enough)


def measure(cache: BufferCache) -> Clock:
    """Measure this cache, and its machine's reclaim, from now on."""
    if isinstance(cache.backing, _Measured):
        return cache.backing.clock
    clock = Clock()
    machine = cache.machine
    if cache.backing.maps:
        area = machine.vmalloc_area
        area.__class__ = _MeasuredArea
        area.clock = clock  # type: ignore[attr-defined]
    machine.reclaim.clock = clock
    machine.reclaim.__class__ = _MeasuredReclaim
    cache.backing = _Measured(cache.backing, clock)
    submit = cache.submit
    cache.submit = lambda buf: clock.step("bio", submit, buf)  # type: ignore[method-assign]
    return clock
