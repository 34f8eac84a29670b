"""Lists of 64-bit numbers that grow past memory: the plan of a replay, and tables that must not.

Whatever a log holds, this much memory and no more is used: past `limit_bytes` a `Spool` goes on in an unlinked
temporary file, and a `LastSeen` table moves into one.  Both are written once, then read.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator

from ..device.temporary import temporary_fd
from ..errors import DeviceError

ITEM_BYTES = 8
#: Numbers in one read of the file.
CHUNK = 8192
LIMIT_BYTES = 256 << 10
#: What a `LastSeen` that has moved into a file keeps in memory.
MOST_BITMAP_BYTES = 128 << 10


_WHAT = "a temporary file for the log's plan"


def temporary() -> int:
    """A descriptor of an unnamed file, or `DeviceError`."""
    try:
        return temporary_fd()
    except OSError as error:
        raise _failed(error) from error


def _failed(error: OSError) -> DeviceError:
    return DeviceError(f"{_WHAT}: {error.strerror or error}", errno=error.errno)


class Spool:
    """An append-only list of 64-bit numbers."""

    __slots__ = ("_fd", "_limit", "_memory", "_written", "length")

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._memory = array("Q")
        self._limit = max(1, limit_bytes // ITEM_BYTES)
        self._fd = -1
        self._written = 0
        self.length = 0

    def extend(self, numbers: array[int]) -> None:
        """Append."""
        self._memory.extend(numbers)
        self.length += len(numbers)
        if len(self._memory) >= self._limit:
            self._flush()

    def append(self, number: int) -> None:
        """Append one."""
        self._memory.append(number)
        self.length += 1
        if len(self._memory) >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if self._fd < 0:
            self._fd = temporary()
        write_all(self._fd, self._written * ITEM_BYTES, self._memory)
        self._written += len(self._memory)
        del self._memory[:]

    def slice(self, start: int, stop: int) -> array[int]:
        """The numbers from `start` to `stop`; the caller keeps the span bounded."""
        found: array[int] = array("Q")
        if start < self._written:
            end = min(stop, self._written)
            found.frombytes(read_all(self._fd, start * ITEM_BYTES, (end - start) * ITEM_BYTES))
            start = end
        if start < stop:
            found.extend(self._memory[start - self._written : stop - self._written])
        return found

    def run(self, start: int, stop: int) -> Iterator[int]:
        """The numbers from `start` to `stop`, a chunk in memory at a time."""
        while start < stop:
            end = min(stop, start + CHUNK)
            yield from self.slice(start, end)
            start = end

    def close(self) -> None:
        """Let go of the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def write_all(fd: int, offset: int, data: array[int]) -> None:
    """Everything, or `DeviceError`."""
    try:
        with memoryview(data) as whole, whole.cast("B") as view:
            done = 0
            while done < len(view):
                done += os.pwrite(fd, view[done:], offset + done)
    except OSError as error:
        raise _failed(error) from error


def read_all(fd: int, offset: int, nbytes: int) -> bytes:
    """Everything, or `DeviceError`."""
    data = b""
    while len(data) < nbytes:
        try:
            more = os.pread(fd, nbytes - len(data), offset + len(data))
        except OSError as error:
            raise _failed(error) from error
        if not more:
            raise DeviceError(f"{_WHAT} was cut short")
        data = data + more if data else more
    return data


_SLOT_WORDS = 3
_SLOT_BYTES = _SLOT_WORDS * 8
_PAGE_SLOTS = 170  # 4,080 bytes


class LastSeen:
    """key (two numbers) -> the last number given with it.  A dict while it is small, then hashed into a file.

    The file is an open-addressed table, doubled at two thirds.  A bitmap in memory answers most questions about keys
    that are not there.
    """

    __slots__ = ("_bits", "_capacity", "_count", "_fd", "_limit", "_small")

    #: What an entry of the dict is taken to cost.
    ENTRY_BYTES = 200

    def __init__(self, limit_bytes: int = LIMIT_BYTES * 2) -> None:
        self._small: dict[tuple[int, int], int] = {}
        self._limit = max(64, limit_bytes // self.ENTRY_BYTES)
        self._fd = -1
        self._capacity = self._count = 0
        self._bits = bytearray()

    def __bool__(self) -> bool:
        return bool(self._small) or self._count > 0

    @property
    def held(self) -> dict[tuple[int, int], int] | None:
        """All of it, while it is small; to be read only.  None where it is not."""
        return self._small if self._fd < 0 else None

    def put(self, first: int, second: int, value: int) -> None:
        """Remember `value` (not 0) as the last."""
        if self._fd < 0:
            self._small[first, second] = value
            if len(self._small) > self._limit:
                self._move()
            return
        self._put(first, second, value)
        if self._count * 3 > self._capacity * 2:
            self._grow()

    def get(self, first: int, second: int) -> int:
        """The last value, or 0."""
        if self._fd < 0:
            return self._small.get((first, second), 0)
        mark = hash((first, second))
        bit = mark % (len(self._bits) << 3)
        if not self._bits[bit >> 3] >> (bit & 7) & 1:
            return 0
        return self._find(first, second, mark)[1]

    def _find(self, first: int, second: int, mark: int) -> tuple[int, int]:
        """(slot where it is or would be, value or 0)."""
        slot = mark % self._capacity
        while True:
            span = min(_PAGE_SLOTS, self._capacity - slot)
            page = array("Q")
            page.frombytes(read_all(self._fd, slot * _SLOT_BYTES, span * _SLOT_BYTES))
            for index in range(span):
                place = index * _SLOT_WORDS
                value = page[place + 2]
                if not value:
                    return slot + index, 0
                if page[place] == first and page[place + 1] == second:
                    return slot + index, value
            slot = (slot + span) % self._capacity

    def _put(self, first: int, second: int, value: int) -> None:
        mark = hash((first, second))
        bit = mark % (len(self._bits) << 3)
        self._bits[bit >> 3] |= 1 << (bit & 7)
        slot, old = self._find(first, second, mark)
        if not old:
            self._count += 1
        write_all(self._fd, slot * _SLOT_BYTES, array("Q", (first, second, value)))

    def _move(self) -> None:
        self._start(len(self._small) * 4)
        for (first, second), value in self._small.items():
            self._put(first, second, value)
        self._small = {}

    def _start(self, capacity: int) -> None:
        self._fd = temporary()
        os.ftruncate(self._fd, capacity * _SLOT_BYTES)
        self._capacity, self._count = capacity, 0
        self._bits = bytearray(min(MOST_BITMAP_BYTES, capacity))

    def _grow(self) -> None:
        old, capacity = self._fd, self._capacity
        self._start(capacity * 2)
        try:
            for start in range(0, capacity, _PAGE_SLOTS):
                span = min(_PAGE_SLOTS, capacity - start)
                page = array("Q")
                page.frombytes(read_all(old, start * _SLOT_BYTES, span * _SLOT_BYTES))
                for place in range(0, len(page), _SLOT_WORDS):
                    if page[place + 2]:
                        self._put(page[place], page[place + 1], page[place + 2])
        finally:
            os.close(old)

    def close(self) -> None:
        """Let go of the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
