"""A part of a device that is not simply a file: a partition inside a file object or an overlay.

(A part of a file is a `FileDevice` with another `base_bytes`.)  The window owns the device below and closes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base import Device


class Window(Device):
    """Bytes `start_bytes` to `start_bytes + nbytes` of another device, counting for itself what goes through it."""

    __slots__ = ("_below", "_start")

    def __init__(self, below: Device, start_bytes: int, nbytes: int, name: str) -> None:
        below.check_range(start_bytes, nbytes)
        super().__init__(name, nbytes, sector_bytes=below.sector_bytes, read_only=below.read_only)
        self._below = below
        self._start = start_bytes

    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        wanted = sum(map(len, segments))
        self.check_range(offset_bytes, wanted)
        below = self._below
        reads, held, read = below.reads, below.segments, below.read_bytes
        try:
            below.pread_into(self._start + offset_bytes, segments)
        finally:
            self.reads += below.reads - reads
            self.segments += below.segments - held
            self.read_bytes += below.read_bytes - read

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        self.check_writable()
        self.check_range(offset_bytes, memoryview(data).nbytes)
        below = self._below
        writes, written = below.writes, below.written_bytes
        try:
            below.pwrite(self._start + offset_bytes, data)
        finally:
            self.writes += below.writes - writes
            self.written_bytes += below.written_bytes - written

    def flush(self) -> None:
        self._below.flush()

    def readahead(self, offset_bytes: int, nbytes: int) -> None:
        nbytes = min(nbytes, self.size_bytes - offset_bytes)
        if nbytes > 0 and offset_bytes >= 0:
            self._below.readahead(self._start + offset_bytes, nbytes)

    def close(self) -> None:
        self._below.close()
