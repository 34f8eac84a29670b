"""Progress on a terminal: tqdm, imported only when standard error is one and the work has lasted a second.

tqdm costs more memory than the arena of a small run, so no run that nobody watches pays for it.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from .text import stderr_is_terminal

if TYPE_CHECKING:
    from ...filesystem import FileSystem
    from ...inode import Inode

START_SECONDS = 1.0
CHECK_EVERY = 64


class Progress:
    """Counts things done.  `tick` is cheap: the clock is read after every so many of them."""

    __slots__ = ("_bar", "_count", "_every", "_shown", "_started", "_total", "_watched", "_what")

    def __init__(self, what: str, total: int | None = None, every: int = CHECK_EVERY) -> None:
        self._what, self._total, self._every = what, total, every
        self._watched = stderr_is_terminal()
        self._started = monotonic() if self._watched else 0.0
        self._count = self._shown = 0
        self._bar: Any = None

    def expect(self, fs: FileSystem, top: Inode) -> None:
        """Say how much there is to come, where that is known: a whole filesystem has as many inodes as are in use."""
        if top.ino == fs.root_ino and self._watched:
            whole = fs.statvfs()
            self._total = whole.f_files - whole.f_ffree

    def tick(self, count: int = 1) -> None:
        """`count` more are done."""
        if not self._watched:
            return
        self._count += count
        if self._count - self._shown < self._every:
            return
        if self._bar is None:
            if monotonic() - self._started < START_SECONDS:
                return
            from tqdm import tqdm

            self._bar = tqdm(desc=self._what, total=self._total, unit="", unit_scale=True, leave=False, file=sys.stderr)
        self._bar.update(self._count - self._shown)
        self._shown = self._count

    def clear(self) -> None:
        """Make room for a line of text."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._watched = False
