"""Temporary storage for what may grow with the filesystem: a file without a name, an external sort, a stack.

Files are unlinked from the start (O_TMPFILE where there is one), so nothing is left behind however the process ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ...device.temporary import temporary_fd

#: A run of records sorted in memory: whichever comes first.
RUN_RECORDS = 16384
RUN_BYTES = 1 << 20
#: Runs merged at once; more are merged into longer ones first.
FAN_IN = 32
CHUNK_BYTES = 1 << 15


def _write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _packed(records: Iterable[bytes]) -> Iterator[bytearray]:
    """Records with their lengths before them, in chunks."""
    chunk = bytearray()
    for record in records:
        chunk += len(record).to_bytes(4, "little")
        chunk += record
        if len(chunk) >= CHUNK_BYTES:
            yield chunk
            chunk = bytearray()
    if chunk:
        yield chunk


def _unpacked(fd: int, start: int, end: int) -> Iterator[bytes]:
    """The records of a run."""
    held = b""
    at = 0
    while True:
        left = len(held) - at
        if left >= 4:
            length = int.from_bytes(held[at : at + 4], "little")
            if left >= 4 + length:
                yield held[at + 4 : at + 4 + length]
                at += 4 + length
                continue
        else:
            length = 0
        if start >= end:
            return
        more = os.pread(fd, min(max(CHUNK_BYTES, length + 4 - left), end - start), start)
        if not more:
            raise OSError("temporary file ends early")
        start += len(more)
        held, at = held[at:] + more, 0


class Sorter:
    """Sorts byte strings, any number of them in bounded memory."""

    def __init__(self, *, reverse: bool = False) -> None:
        self._reverse = reverse
        self._records: list[bytes] = []
        self._nbytes = 0
        self._fd = -1
        self._end = 0
        self._runs: list[tuple[int, int]] = []

    def add(self, record: bytes) -> None:
        """One more."""
        self._records.append(record)
        self._nbytes += len(record)
        if len(self._records) >= RUN_RECORDS or self._nbytes >= RUN_BYTES:
            self._records.sort(reverse=self._reverse)
            self._spill(self._records)
            self._records, self._nbytes = [], 0

    @property
    def spilled(self) -> bool:
        """Whether there were too many for memory."""
        return self._fd >= 0

    def _spill(self, records: Iterable[bytes]) -> None:
        if self._fd < 0:
            self._fd = temporary_fd()
        start = self._end
        os.lseek(self._fd, start, os.SEEK_SET)
        for chunk in _packed(records):
            _write_all(self._fd, chunk)
            self._end += len(chunk)
        self._runs.append((start, self._end))
        if len(self._runs) >= 2 * FAN_IN:
            self._compact()

    def _compact(self) -> None:
        """Merge all runs into one, in a new file."""
        from heapq import merge

        old, runs = self._fd, self._runs
        self._fd, self._runs, self._end = temporary_fd(), [], 0
        try:
            self._spill(merge(*(_unpacked(old, *run) for run in runs), reverse=self._reverse))
        finally:
            os.close(old)

    def __iter__(self) -> Iterator[bytes]:
        """All of them in order; once."""
        self._records.sort(reverse=self._reverse)
        if self._fd < 0:
            yield from self._records
            return
        from heapq import merge

        runs = (_unpacked(self._fd, *run) for run in self._runs)
        yield from merge(*runs, self._records, reverse=self._reverse)

    def close(self) -> None:
        """Give the temporary file back."""
        self._records = []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stack:
    """A stack of byte strings whose lower part lies in a temporary file."""

    def __init__(self, records: int = 1024, nbytes: int = 1 << 18) -> None:
        self._most, self._most_bytes = records, nbytes
        self._records: list[bytes] = []
        self._nbytes = 0
        self._fd = -1
        self._chunks: list[int] = []
        self._end = 0

    def push(self, record: bytes) -> None:
        """Put one on top."""
        self._records.append(record)
        self._nbytes += len(record)
        if len(self._records) > self._most or (self._nbytes > self._most_bytes and len(self._records) > 1):
            self._spill()

    def _spill(self) -> None:
        """Move the lower half into the file, as one chunk."""
        half = (len(self._records) + 1) // 2
        if self._fd < 0:
            self._fd = temporary_fd()
        os.lseek(self._fd, self._end, os.SEEK_SET)
        self._chunks.append(self._end)
        for chunk in _packed(self._records[:half]):
            _write_all(self._fd, chunk)
            self._end += len(chunk)
        del self._records[:half]
        self._nbytes = sum(map(len, self._records))

    def pop(self) -> bytes | None:
        """Take the top one off; None where there is none."""
        if not self._records:
            if not self._chunks:
                return None
            start = self._chunks.pop()
            self._records = list(_unpacked(self._fd, start, self._end))
            self._nbytes = sum(map(len, self._records))
            self._end = start
        record = self._records.pop()
        self._nbytes -= len(record)
        return record

    def close(self) -> None:
        """Give the temporary file back."""
        self._records = []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
