"""Walking a tree in bounded memory, and to an end on any image.

A directory that is left for one below it is remembered as (inode, cookie) and opened again at the cookie; the names
read ahead from the directories above are kept while they are few in all, and read again otherwise.  A directory
that lies below itself is refused, and so is a tree of more directories than the filesystem has room for inodes, as
only a corrupt one is.  What grows is a few words for each level of depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ...errors import Corrupt

if TYPE_CHECKING:
    from ...filesystem import FileSystem

#: Names read from a directory at a time.
BATCH = 512
#: Names kept for all directories on the way down together.
KEPT = 2048
SMALLEST_INODE_BYTES = 256

#: Kinds of event.
ENTRY, LEAVE = 0, 1

Item = tuple[bytes, int, int, int]
#: (ENTRY, name, inode number, DT_*) or (LEAVE, name of the directory, its inode number, 0)
Event = tuple[int, bytes, int, int]


class _Frame:
    """A directory on the way down."""

    __slots__ = ("cookie", "ended", "error", "ino", "items", "name", "position", "prefix_length", "reader", "reopened")

    def __init__(self, ino: int, name: bytes, prefix_length: int) -> None:
        self.ino, self.name, self.prefix_length = ino, name, prefix_length
        self.cookie = 0
        self.items: list[Item] = []
        self.position = 0
        self.reader: Iterator[Item] | None = None
        self.ended = self.reopened = False
        self.error: OSError | None = None


class Walk:
    """Iterate over it for the events; call `descend` on an entry, before asking for the next event, to go into it.

    `prefix` is the path of the directory whose entries are coming, with a slash at its end.  `failed` is called for a
    directory that cannot be read (any further), before its LEAVE.
    """

    def __init__(self, fs: FileSystem, ino: int, prefix: bytes, failed: Callable[[bytes, OSError], None]) -> None:
        self.fs, self.prefix, self._failed = fs, prefix, failed
        self._frames = [_Frame(ino, b"", len(prefix))]
        self._above = {ino}
        self._kept = 0
        self._opened = 0
        self._most: int | None = None

    @property
    def depth(self) -> int:
        """Directories on the way down, the top one included."""
        return len(self._frames)

    @property
    def directory(self) -> int:
        """Inode number of the directory whose entries are coming."""
        return self._frames[-1].ino

    def __iter__(self) -> Iterator[Event]:
        frames = self._frames
        while frames:
            frame = frames[-1]
            items = frame.items
            while frame.position < len(items):
                name, ino, dtype, _ = items[frame.position]
                frame.position += 1
                if name == b"." or name == b"..":
                    continue
                yield ENTRY, name, ino, dtype
                if frames[-1] is not frame:
                    break
            else:
                if not frame.ended:
                    self._fill(frame)
                    continue
                if frame.error is not None:
                    self._failed(self.prefix[:-1] or b"/", frame.error)
                self._kept -= len(items)
                yield LEAVE, frame.name, frame.ino, 0
                frames.pop()
                self._above.discard(frame.ino)
                if frames:
                    self.prefix = self.prefix[: frames[-1].prefix_length]

    def check(self, ino: int) -> None:
        """Raise `Corrupt` where a directory just met lies below itself."""
        if ino in self._above:
            raise Corrupt("directory entry", f"directory inode {self.directory}", "inode number", "no loop", ino)

    def descend(self, name: bytes, ino: int) -> None:
        """Go into a directory just met, which `check` has nothing against."""
        self.check(ino)
        self._opened += 1
        if self._opened & 0xFFF == 0:
            self._check_count()
        frame = self._frames[-1]
        if frame.reader is not None:
            # a suspended reader holds a buffer; what is above stays open as a cookie only
            _close(frame.reader)
            frame.reader, frame.reopened = None, True
        if self._kept > KEPT:
            self._drop()
        self.prefix += name + b"/"
        self._frames.append(_Frame(ino, name, len(self.prefix)))
        self._above.add(ino)

    def _check_count(self) -> None:
        if self._most is None:
            whole = self.fs.statvfs()
            self._most = whole.f_blocks * whole.f_frsize // SMALLEST_INODE_BYTES
        if self._opened > self._most:
            raise Corrupt("directory tree", "the whole filesystem", "directories", f"at most {self._most}", "more")

    def _drop(self) -> None:
        """Forget the names read ahead, from the top down, but those of the directory that is being left."""
        for frame in self._frames:
            if frame.items and (frame.position < len(frame.items) or not frame.ended):
                frame.cookie = frame.items[frame.position - 1][3] if frame.position else frame.cookie
                frame.ended = False
                frame.reopened = True
            self._kept -= len(frame.items)
            frame.items, frame.position = [], 0
            if self._kept <= KEPT // 2:
                break

    def _fill(self, frame: _Frame) -> None:
        """Read the next names of a directory."""
        self._kept -= len(frame.items)
        items: list[Item] = []
        frame.items, frame.position = items, 0
        try:
            if frame.reader is None:
                frame.reader = iter(self.fs.readdir(self.fs.trusted_inode(frame.ino), frame.cookie))
            for item in frame.reader:
                items.append(item)
                if len(items) == BATCH:
                    break
            else:
                frame.reader, frame.ended = None, True
        except OSError as error:
            frame.reader, frame.ended = None, True
            frame.error = error
        if items:
            frame.cookie = items[-1][3]
        if frame.ended and frame.reopened and frame.error is None:
            frame.error = self._late_error(frame)
        self._kept += len(items)

    def _late_error(self, frame: _Frame) -> OSError | None:
        """What a damaged block among those already passed had to say: readdir tells it at its end only."""
        try:
            for _ in self.fs.readdir(self.fs.trusted_inode(frame.ino), 0):
                pass
        except OSError as error:
            return error
        return None


def _close(reader: Iterator[Item]) -> None:
    close = getattr(reader, "close", None)
    if close is not None:
        close()
