"""Regions that reclaim must not re-enter, and the check that nobody lets it (kernel: lockdep's fs_reclaim).

While a filesystem is in the middle of changing its objects (recovery now, a transaction later) reclaim started by one
of its own allocations must keep out of it.  Who begins such work says so: `with machine.fs_region("log recovery")`.
The region opens a NOFS scope, which everything below inherits, and remembers who opened it.

With the profile's `flags_per_call` there is no scope, as in 2015: each ordinary allocation in a region counts as made
with a GFP_NOFS of its own, and page tables, which are allocated GFP_KERNEL whatever their caller asked, do not.  That
is the bug of the thread.  It is reported as lockdep would report it, when it could happen and not only when it does:
once for each region and way to the allocation, with both stacks, as a warning and in `Machine.recursions`.  Where
reclaim then really runs there, the allocation fails with `ReclaimDeadlock`: entering would tear what is half changed.

Limits: one thread; a stack is file, line and function, as it was when the region was entered.
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, NamedTuple

from .scope import NOFS, NORMAL, Scope, current_scope, nofs

if TYPE_CHECKING:
    from .machine import Machine

Stack = tuple[tuple[str, int, str], ...]

#: Reports that a machine keeps; the kernel's lockdep stops at the first.
MAX_REPORTS = 32
_DEPTH = 64


class ReclaimRecursion(RuntimeWarning):
    """Reclaim could re-enter the filesystem from where it stands."""


class Recursion(NamedTuple):
    """One allocation that may recurse: what it was for, and both stacks, innermost call first."""

    owner: str
    region: str
    allocated: Stack
    entered: Stack

    def text(self) -> str:
        """As lockdep would say it."""
        return (
            f"possible recursion: {self.owner} is allocated GFP_KERNEL, without a scope, inside {self.region!r}; "
            "reclaim may re-enter the filesystem there\n"
            f"  the allocation:\n{_lines(self.allocated)}\n  {self.region!r} was entered:\n{_lines(self.entered)}"
        )


class FsRegion:
    """A region that is open or can be opened; it nests."""

    __slots__ = ("_machine", "_scope", "name")

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine, self.name = machine, name
        self._scope: Scope | None = None if machine.profile.flags_per_call else nofs()

    def __enter__(self) -> None:
        self._machine.regions.append((self.name, stack(1)))
        if self._scope is not None:
            self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scope is not None:
            self._scope.__exit__(kind, error, trace)
        self._machine.regions.pop()


def call_scope(machine: Machine) -> int:
    """The scope of an ordinary allocation: the open one, and in a region the flag that its caller passes."""
    scope = current_scope()
    return NOFS if scope == NORMAL and machine.regions else scope


def check_kernel_allocation(machine: Machine, owner: str) -> None:
    """An allocation that is GFP_KERNEL whatever its caller asked: report it where no scope restrains it.

    Called with a region open.
    """
    if current_scope() != NORMAL:
        return
    region, entered = machine.regions[-1]
    here = stack(1)
    for known in machine.recursions:
        if known.region == region and known.owner == owner and _callers(known.allocated) == _callers(here):
            return
    if len(machine.recursions) < MAX_REPORTS:
        found = Recursion(owner, region, here, entered)
        machine.recursions.append(found)
        warnings.warn(found.text(), ReclaimRecursion, stacklevel=3)


def stack(skip: int) -> Stack:
    """Who is calling, innermost first; `skip` of them left out besides this function."""
    frame: FrameType | None = sys._getframe(skip + 1)
    found: list[tuple[str, int, str]] = []
    while frame is not None and len(found) < _DEPTH:
        found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname))
        frame = frame.f_back
    return tuple(found)


def _callers(frames: Stack) -> list[str]:
    """What makes two reports the same one: who called whom, nearest the allocation."""
    return [name for _, _, name in frames[:6]]


def _lines(frames: Stack) -> str:
    return "\n".join(f"    {path}:{line} {name}" for path, line, name in frames)
