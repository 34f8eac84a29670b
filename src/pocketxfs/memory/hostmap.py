"""A range of the host's own addresses, reserved, into which pages of the RAM's memfd can be mapped anywhere.

Python's `mmap` reserves it, so that whoever still holds a view of it keeps it alive; the C library's `mmap` at a fixed
address then fills it piece by piece, which Python's cannot.  Nothing in it can be read or written but what is mapped:
a stray access ends the process, as it would end a kernel.

`zap` takes the host's page-table entries of a piece away but leaves it mapped, which is what vunmap does and a TLB
that has not been flushed yet still shows; `unmap` makes it inaccessible.  A view that outlived its buffer so reads
another's bytes at worst until the purge, and faults after it.

Limits: a host may grant less than is asked for (an address-space limit, strict overcommit): half is tried, and half of
that.  Linux allows a process some 65,000 mappings; each run of pages that lie together in the RAM is one.  A page that
is mapped here counts a second time in the process's RSS, though it is there once.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

from ..errors import Unsupported

_RW = mmap.PROT_READ | mmap.PROT_WRITE
_NONE = 0
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_POPULATE = getattr(mmap, "MAP_POPULATE", 0x8000)
_FIXED = 0x10
_RESERVE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
_DONTNEED = 4
#: Less than this is not worth having.
LEAST_BYTES = 1 << 20


class HostRange:
    """Reserved addresses.  `nbytes` of them were granted; `memory` is a view over all, `calls` counts system calls."""

    __slots__ = ("_base", "_libc", "_range", "calls", "memory", "nbytes")

    def __init__(self, wanted: int) -> None:
        if not sys.platform.startswith("linux"):
            raise Unsupported(f"{sys.platform}: pages cannot be mapped a second time at a chosen address here")
        self.nbytes = min(wanted, sys.maxsize)
        least = min(wanted, LEAST_BYTES)
        while True:
            try:
                self._range = mmap.mmap(-1, self.nbytes, flags=_RESERVE, prot=_RW)
                break
            except (OSError, ValueError, OverflowError) as error:
                self.nbytes = (self.nbytes >> 1) & ~(mmap.ALLOCATIONGRANULARITY - 1)
                if self.nbytes < least:
                    raise Unsupported(f"the host grants no address range for a vmalloc area: {error}") from None
        first = ctypes.c_char.from_buffer(self._range)
        self._base = ctypes.addressof(first)
        del first
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
        )  # fmt: skip
        libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._libc = libc
        self.calls = 0
        if libc.mprotect(self._base, self.nbytes, _NONE):
            number = ctypes.get_errno()
            self._range.close()
            raise Unsupported(f"the host cannot guard an address range: {os.strerror(number)}")
        self.memory = memoryview(self._range)

    def map(self, at: int, fd: int, offset: int, nbytes: int) -> None:
        """Show `nbytes` of the file from `offset` at `at`.  Raises `OSError`: the process has too many mappings."""
        self._mmap(at, nbytes, _RW, mmap.MAP_SHARED | _FIXED | _POPULATE, fd, offset)

    def zap(self, at: int, nbytes: int) -> None:
        """Forget the host's page-table entries; the mapping stays."""
        self.calls += 1
        self._libc.madvise(self._base + at, nbytes, _DONTNEED)

    def unmap(self, at: int, nbytes: int) -> None:
        """Make a piece inaccessible again."""
        self._mmap(at, nbytes, _NONE, _RESERVE | _FIXED, -1, 0)

    def close(self) -> None:
        """Give the range back.  Where someone still holds a view of it, it goes when that view does."""
        try:
            self.memory.release()
            self._range.close()
        except BufferError:
            return  # views are held: the mapping is reference counted and outlives us

    def _mmap(self, at: int, nbytes: int, protection: int, flags: int, fd: int, offset: int) -> None:
        if at < 0 or nbytes <= 0 or at + nbytes > self.nbytes:
            raise ValueError(f"{nbytes} bytes at {at} are not within the {self.nbytes} reserved")
        self.calls += 1
        where = self._base + at
        if self._libc.mmap(where, nbytes, protection, flags, fd, offset) != where:
            number = ctypes.get_errno()
            raise OSError(number, f"mapping {nbytes} bytes at {at} of the vmalloc area: {os.strerror(number)}")
