"""Paths of the inodes that a log names: the replayed tree gone through once, what is found kept in a temporary file.

Memory does not grow with the number of inodes or the depth of the tree (see `walk`, `journal.spool`).  A file with
several names gets the first that is met.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ...device.temporary import temporary_fd
from ...journal.spool import MOST_BITMAP_BYTES, LastSeen
from .text import escaped
from .walk import ENTRY, Walk

if TYPE_CHECKING:
    from ...filesystem import FileSystem
    from ...memory import Machine

_S_IFMT, _S_IFDIR = 0o170000, 0o040000
_DT_UNKNOWN, _DT_DIR = 0, 4
_WANTED = 1
OWNER = "log paths"
#: The table's part of the machine's memory.
_TABLE_SHIFT = 5
_LENGTH_BYTES = 4
#: Paths go to the file in pieces of this size.
_HELD_BYTES = 1 << 15


class LogPaths:
    """inode number -> path, as far as there is one.  A context manager."""

    def __init__(self, machine: Machine, inodes: Iterable[int] | None) -> None:
        """Of `inodes`, or none; the table takes its memory from the machine until the paths are closed."""
        self._machine = machine
        limit = machine.profile.ram_bytes >> _TABLE_SHIFT
        self._charged = limit + MOST_BITMAP_BYTES if inodes is not None else 0
        machine.charge(OWNER, self._charged)
        #: inode -> `_WANTED`, or where its path stands in the file, two added
        self._places = LastSeen(limit)
        self.left = 0
        self._fd = -1
        self._end = 0
        self._held = bytearray()
        try:
            for ino in inodes or ():
                if not self._places.get(ino, 0):
                    self._places.put(ino, 0, _WANTED)
                    self.left += 1
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LogPaths:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory and file."""
        self._machine.uncharge(OWNER, self._charged)
        self._charged = 0
        self._places.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def look(self, fs: FileSystem, tick: Callable[[], None]) -> None:
        """Go through the tree until all are found.  What is damaged there is passed over: its inodes keep numbers."""
        self._found(fs.root_ino, b"/")
        walk = Walk(fs, fs.root_ino, b"/", lambda _path, _error: None)
        for event, name, ino, dtype in walk:
            if event != ENTRY:
                continue
            if not self.left:
                break
            tick()
            self._found(ino, walk.prefix + name)
            try:
                if dtype == _DT_DIR or (dtype == _DT_UNKNOWN and fs.trusted_inode(ino).mode & _S_IFMT == _S_IFDIR):
                    walk.descend(name, ino)
            except OSError:
                continue
        self._flush()

    def _found(self, ino: int, path: bytes) -> None:
        if self._places.get(ino, 0) != _WANTED:
            return
        self._places.put(ino, 0, self._end + len(self._held) + _WANTED + 1)
        self._held += len(path).to_bytes(_LENGTH_BYTES, "little") + path
        self.left -= 1
        if len(self._held) >= _HELD_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        if self._fd < 0:
            self._fd = temporary_fd()
        view = memoryview(self._held)
        while view:
            done = os.pwrite(self._fd, view, self._end)
            self._end += done
            view = view[done:]
        self._held = bytearray()

    def get(self, ino: int) -> str | None:
        """The path, safe to show."""
        place = self._places.get(ino, 0) - _WANTED - 1
        if place < 0:
            return None
        length = int.from_bytes(os.pread(self._fd, _LENGTH_BYTES, place), "little")
        return escaped(os.pread(self._fd, length, place + _LENGTH_BYTES))
