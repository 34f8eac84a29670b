"""Reclaim: asking caches above to give memory back.

A cache registers a `Shrinker`.  When memory is short, each is asked for its share of what is wanted, in rounds, until
there is enough.  A round that does not do is followed by one that asks for twice as much.  A shrinker may free nothing
at first (a buffer's reference count only goes down), so reclaim gives up after 16 rounds without a page, or when no
shrinker has anything.

Reclaim does not enter itself: an allocation made by a shrinker takes from the reserve or fails.  The scope of the
allocation that is short goes to each shrinker, which decides what it allows.

Limits: nothing runs in the background; an allocation that finds memory low does kswapd's work before its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .buddy import Buddy

#: Kernel: MAX_RECLAIM_RETRIES.
MAX_IDLE_ROUNDS = 16


class Shrinker(Protocol):
    """A cache that can give memory back."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def count(self) -> int:
        """Bytes that could be freed now.  0 where nothing can."""

    def scan(self, nbytes: int, scope: int, /) -> int:
        """Free about `nbytes` as `scope` (see `scope`) allows; how many bytes were freed."""

    def owners(self) -> Iterable[tuple[str, int]]:
        """Who holds what within the cache, for the report on memory that ran out."""


class Reclaim:
    """The registered shrinkers.  `running` is true while they are at work."""

    __slots__ = ("_buddy", "_page_bytes", "claimed_bytes", "clock", "pages", "rounds", "running", "runs", "shrinkers")

    def __init__(self, buddy: Buddy, page_bytes: int) -> None:
        self._buddy, self._page_bytes = buddy, page_bytes
        self.shrinkers: list[Shrinker] = []
        self.running = False
        #: Who measures this (see `buffer.measure`).
        self.clock: Any = None
        self.runs = self.rounds = self.pages = self.claimed_bytes = 0

    def run(self, nbytes: int, scope: int, enough: Callable[[], bool]) -> bool:
        """Shrink caches, starting with `nbytes`, until `enough()`; False where nothing more can be had."""
        buddy = self._buddy
        self.running = True
        self.runs += 1
        idle = 0
        try:
            while idle < MAX_IDLE_ROUNDS:
                before = buddy.free
                any_left = self._round(nbytes, scope)
                gained = buddy.free - before
                if gained > 0:
                    self.pages += gained
                    idle = 0
                else:
                    idle += 1
                if enough():
                    return True
                if not any_left:
                    return False
                nbytes *= 2
            return False
        finally:
            self.running = False

    def _round(self, nbytes: int, scope: int) -> bool:
        """Ask each shrinker for its share of `nbytes`; False where none has anything to give."""
        self.rounds += 1
        counts = [(shrinker, shrinker.count()) for shrinker in self.shrinkers]
        total = sum(count for _, count in counts)
        if total <= 0:
            return False
        for shrinker, count in counts:
            if count > 0:
                share = max(self._page_bytes, nbytes * count // total)
                self.claimed_bytes += shrinker.scan(share, scope)
        return True
