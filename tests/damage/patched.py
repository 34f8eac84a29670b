"""An image with damage laid over it: a binary file object over the mapped image, never a copy of it.

Counts what is read, so that a case which reads without end is stopped, and notes where, so that one can tell which
inodes a block matters to.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

#: (byte offset, what stands there now)
Patch = tuple[int, bytes]


class Endless(BaseException):
    """More was read than any right answer needs.  Not an `Exception`: nothing may catch it."""


class Patched:
    """The image with patches, or cut short.  The device floor's needs: seek, tell, readinto."""

    def __init__(
        self, image: mmap.mmap, patches: Sequence[Patch] = (), size: int | None = None, *, note: bool = False,
        most_reads: int = 400_000,
    ) -> None:  # fmt: skip
        self._image = memoryview(image)
        self._size = len(image) if size is None else size
        self._patches = [(offset, offset + len(data), data) for offset, data in patches]
        self._at = 0
        self._left = most_reads
        self.ranges: list[tuple[int, int]] | None = [] if note else None

    name = "damaged"

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's."""
        self._at = offset + (self._size if whence == 2 else self._at if whence == 1 else 0)
        return self._at

    def tell(self) -> int:
        """As a file's."""
        return self._at

    def readinto(self, view: memoryview) -> int:
        """As a file's."""
        self._left -= 1
        if self._left < 0:
            raise Endless("reads without end")
        at = self._at
        end = min(at + len(view), self._size)
        count = end - at
        if count <= 0:
            return 0
        view[:count] = self._image[at:end]
        for first, last, data in self._patches:
            if first < end and last > at:
                begin, stop = max(first, at), min(last, end)
                view[begin - at : stop - at] = data[begin - first : stop - first]
        self._at = end
        if self.ranges is not None:
            self.ranges.append((at, end))
        return count

    def release(self) -> None:
        """Let go of the mapping."""
        self._image.release()
