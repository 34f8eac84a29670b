"""The RAM: page frames in one memfd, mapped once (the direct map).

A frame has an offset in the memfd, so that it can be mapped a second time elsewhere (`double_map`).  Where the host
has no memfd (macOS, Windows, a sandbox that forbids it) an anonymous mapping serves, and only double mapping is lost.
Nothing is touched here: the host gives a frame real memory when it is first written.
"""

from __future__ import annotations

import mmap
import os


class Frames:
    """All page frames of a machine.  `map` is the whole RAM, writable; `fd` the memfd, or None."""

    __slots__ = ("_mmap", "double_map", "fd", "map", "nbytes", "page_bytes")

    def __init__(self, nbytes: int, page_bytes: int = 4096, *, use_memfd: bool = True) -> None:
        self.fd: int | None = None
        if nbytes <= 0 or nbytes % page_bytes:
            raise ValueError(f"RAM of {nbytes} bytes is not a whole number of {page_bytes}-byte pages")
        self.nbytes, self.page_bytes = nbytes, page_bytes
        self.fd = _memfd(nbytes) if use_memfd else None
        self._mmap = mmap.mmap(-1 if self.fd is None else self.fd, nbytes)
        #: A page can be mapped twice: there is a memfd, and the host's pages are not larger than ours.
        self.double_map = self.fd is not None and page_bytes % mmap.PAGESIZE == 0
        self.map = memoryview(self._mmap)

    def close(self) -> None:
        """Give the RAM back.  Where someone still holds a view of it, it goes when that view does."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
        try:
            self.map.release()
            self._mmap.close()
        except BufferError:
            return  # views are held: the mapping is reference counted and outlives us

    def __del__(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def _memfd(nbytes: int) -> int | None:
    if not hasattr(os, "memfd_create"):
        return None
    try:
        fd = os.memfd_create("pocketxfs-ram")
    except OSError:
        return None  # forbidden or not built into this kernel: the anonymous mapping does instead
    try:
        os.ftruncate(fd, nbytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def page_segments(memory: memoryview, pages: list[int], nbytes: int, page_bytes: int) -> list[memoryview]:
    """Views of `nbytes` that lie on these pages of `memory`, one a page, the last cut to what is left."""
    found = [memory[start : start + page_bytes] for start in pages]
    rest = nbytes - (len(pages) - 1) * page_bytes
    if rest < page_bytes:
        found[-1] = found[-1][:rest]
    return found
