"""Allocation scopes: what reclaim may do while they are open (kernel: memalloc_nofs_save, memalloc_noio_save).

Inside `nofs()` reclaim must not write back or evict filesystem objects, because the caller is in the middle of changing
them; inside `noio()` it must not start I/O either.  A scope covers everything called within it, and scopes nest: the
strictest one open is in force.  Shrinkers receive the scope as an integer and compare: `scope >= NOFS`.

Limits: one thread, and one scope for all machines of a process.  Scopes left in another order than they were entered
(generators can do that) still end when each is left.
"""

from __future__ import annotations

from types import TracebackType

#: Reclaim may do anything.
NORMAL = 0
#: Reclaim may not write back or evict filesystem objects.
NOFS = 1
#: Reclaim may not start I/O; implies NOFS.
NOIO = 2

_open = [0, 0, 0]  # how many scopes of each kind are open


class Scope:
    """An open or openable scope; a context manager that can be entered more than once."""

    __slots__ = ("kind",)

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __enter__(self) -> None:
        _open[self.kind] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open[self.kind] -= 1


_NOFS, _NOIO = Scope(NOFS), Scope(NOIO)


def nofs() -> Scope:
    """A scope in which reclaim may not enter the filesystem."""
    return _NOFS


def noio() -> Scope:
    """A scope in which reclaim may not start I/O, nor enter the filesystem."""
    return _NOIO


def current_scope() -> int:
    """The strictest scope that is open: `NORMAL`, `NOFS` or `NOIO`."""
    if _open[NOIO]:
        return NOIO
    return NOFS if _open[NOFS] else NORMAL


def scope_name(scope: int) -> str:
    """A scope's name, for reports."""
    return ("normal", "nofs", "noio")[scope]
