"""Copy on write: changed blocks kept beside an untouched device, in bounded memory whatever their number.

A changed block gets a slot, numbered as they are taken.  The first slots lie in memory, as many as half of
`limit_bytes` holds; the others in an unlinked temporary file, written and read straight from and to the caller's
memory: what is wanted again soon, the host's page cache has.  A radix tree leads from a block's number to its slot (an
entry is 32 bits; 0: not changed, and in an inner page: nothing changed in that whole range).  Its pages are small; the
most recently used are in memory, in the other half together with the answers given last, the rest in a file of their
own.  So a range without changes is passed over a page at a time.

Limits: what is changed is gone with the process; at most 2^32 slots; a slot, once taken, is never given back.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from struct import Struct

from ..errors import DeviceError
from .base import Device, slice_segments
from .temporary import temporary_fd

#: What is kept in memory, in bytes.
LIMIT_BYTES = 1 << 20
BLOCK_BYTES = 4096
#: Pages of the tree: 128 entries each.
PAGE_BYTES = 512
FANOUT_LOG = 7
#: What one of them takes in memory.
_PAGE_COST_BYTES = 768
#: What an entry of a dict of numbers takes.
_RECENT_COST_BYTES = 128
#: Pages that are always in memory: the path through the tree, at most eight of them, and the pages of a new one.
_LEAST_CACHED = 24
_ENTRY = Struct("=I")


class Overlay(Device):
    """A writable device over another one, which it reads, never writes, and closes when it is closed.

    Its counters count what is asked of it; `base` counts what reached the device below.
    """

    __slots__ = (
        "_blocks", "_depth", "_log", "_most_recent", "_pages", "_recent", "_root", "base", "changed_blocks",
    )  # fmt: skip

    def __init__(
        self,
        base: Device,
        *,
        limit_bytes: int = LIMIT_BYTES,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        if block_bytes < 16 or block_bytes & (block_bytes - 1):
            raise ValueError(f"block_bytes must be a power of two of at least 16, not {block_bytes}")
        super().__init__(f"{base.name} (overlay)", base.size_bytes, sector_bytes=base.sector_bytes, read_only=False)
        self.base = base
        self._log = block_bytes.bit_length() - 1
        blocks = (base.size_bytes + block_bytes - 1) >> self._log
        depth = 1
        while blocks > 1 << (depth * FANOUT_LOG):
            depth += 1
        self._depth = depth
        self._root = 0
        self._blocks = _Blocks(self.name, block_bytes, limit_bytes >> 1)
        self._pages = _Pages(self.name, limit_bytes >> 2)
        #: block -> slot, of those asked for last
        self._recent: dict[int, int] = {}
        self._most_recent = max(_LEAST_CACHED, (limit_bytes >> 2) // _RECENT_COST_BYTES)
        #: Blocks that differ, or may differ, from the base's.
        self.changed_blocks = 0

    @property
    def spilled(self) -> bool:
        """Whether a temporary file is in use."""
        return self._blocks.fd >= 0 or self._pages.fd >= 0

    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        wanted = len(segments[0]) if len(segments) == 1 else sum(map(len, segments))
        self.check_range(offset_bytes, wanted)
        self.reads += 1
        self.segments += len(segments)
        at, end = offset_bytes, offset_bytes + wanted
        if wanted == 0:
            return
        if self._root:
            log = self._log
            first, last = at >> log, (end - 1) >> log
            if first == last:
                slot = self._find(first)
                if slot and len(segments) == 1:
                    self._blocks.read(slot, at - (first << log), segments[0])
                    self.read_bytes += wanted
                    return
                found: Iterator[tuple[int, int]] = iter(((first, slot),) if slot else ())
            else:
                found = self._changed(first, last)
            for block, slot in found:
                start = block << log
                if start > at:
                    self.base.pread_into(at, slice_segments(segments, at - offset_bytes, start - at))
                    at = start
                stop = min(end, start + (1 << log))
                pieces = segments
                if stop - at != wanted:
                    pieces = slice_segments(segments, at - offset_bytes, stop - at)
                for piece in pieces:
                    self._blocks.read(slot, at - start, piece)
                    at += len(piece)
        if at == offset_bytes:
            self.base.pread_into(at, segments)
        elif at < end:
            self.base.pread_into(at, slice_segments(segments, at - offset_bytes, end - at))
        self.read_bytes += wanted

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` into the overlay.  An error leaves the blocks before it changed, those after it as they were."""
        block = offset_bytes >> self._log
        if type(data) is bytearray and data and (offset_bytes + len(data) - 1) >> self._log == block:
            self.check_range(offset_bytes, len(data))
            with memoryview(data) as view:
                self._put(block, offset_bytes - (block << self._log), view)
            self.writes += 1
            self.written_bytes += len(data)
            return
        with memoryview(data) as whole, whole.cast("B") as view:
            wanted = len(view)
            self.check_range(offset_bytes, wanted)
            log = self._log
            at, end = offset_bytes, offset_bytes + wanted
            while at < end:
                block = at >> log
                start = block << log
                stop = min(end, start + (1 << log))
                with view[at - offset_bytes : stop - offset_bytes] as piece:
                    self._put(block, at - start, piece)
                at = stop
            self.writes += 1
            self.written_bytes += wanted

    def readahead(self, offset_bytes: int, nbytes: int) -> None:
        self.base.readahead(offset_bytes, nbytes)

    def close(self) -> None:
        self._blocks.close()
        self._pages.close()
        self._recent.clear()
        self._root = 0
        self.base.close()

    def changes(self) -> Iterator[tuple[int, int]]:
        """The changed ranges in order as (offset, length) in bytes; the overlay must not be written meanwhile."""
        if not self._root:
            return
        log = self._log
        start = stop = -1
        for block, _slot in self._changed(0, (self.size_bytes - 1) >> log):
            if block != stop:
                if start >= 0:
                    yield start << log, (stop - start) << log
                start = block
            stop = block + 1
        yield start << log, min(stop << log, self.size_bytes) - (start << log)

    def _put(self, block: int, within: int, piece: memoryview) -> None:
        blocks = self._blocks
        slot = self._find(block)
        if slot:
            blocks.write(slot, within, piece)
            return
        size = 1 << self._log
        if len(piece) == size:
            slot = blocks.take(piece)
        else:
            content = bytearray(size)
            start = block << self._log
            there = min(size, self.size_bytes - start)
            with memoryview(content) as view:
                if len(piece) < there:
                    self.base.pread_into(start, (view[:there],))
                view[within : within + len(piece)] = piece
                slot = blocks.take(view)
        self._set(block, slot)
        self._remember(block, slot)
        self.changed_blocks += 1

    def _find(self, block: int) -> int:
        """The slot of a block, 0 where it is not changed.  Hot."""
        slot = self._recent.get(block, 0)
        if slot:
            return slot
        slot = self._root
        shift = FANOUT_LOG * (self._depth - 1)
        page = self._pages.page
        unpack = _ENTRY.unpack_from
        while slot and shift >= 0:
            slot = unpack(page(slot), (block >> shift & _MASK) << 2)[0]
            shift -= FANOUT_LOG
        if slot:
            self._remember(block, slot)
        return slot

    def _remember(self, block: int, slot: int) -> None:
        if len(self._recent) >= self._most_recent:
            self._recent.clear()
        self._recent[block] = slot

    def _set(self, block: int, value: int) -> None:
        """Make the tree lead from a block to its slot.

        What is missing is built from the bottom up and hung in last: a failure on the way leaves the tree as it was.
        """
        pages = self._pages
        parent, level = 0, self._depth - 1
        slot = self._root
        while slot and level > 0:
            parent = slot
            slot = _entry(pages.page(slot), block >> FANOUT_LOG * level & _MASK)
            level -= 1
        if slot:
            _set_entry(pages.page(slot, changing=True), block & _MASK, value)
            return
        top = level
        for height in range(top + 1):
            page = bytearray(PAGE_BYTES)
            _set_entry(page, block >> FANOUT_LOG * height & _MASK, value)
            value = pages.take(page)
        if parent:
            _set_entry(pages.page(parent, changing=True), block >> FANOUT_LOG * (top + 1) & _MASK, value)
        else:
            self._root = value

    def _changed(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The changed blocks from `first` to `last` with their slots, in order."""
        block = first
        while block <= last:
            slot, level = self._root, self._depth - 1
            while True:
                page = self._pages.page(slot)
                if level == 0:
                    break
                slot = _entry(page, block >> FANOUT_LOG * level & _MASK)
                if not slot:
                    break
                level -= 1
            if not slot:
                block = ((block >> FANOUT_LOG * level) + 1) << FANOUT_LOG * level
                continue
            stop = min(last, block | _MASK)
            leaf = memoryview(page).cast("I")[block & _MASK : (stop & _MASK) + 1].tolist()
            for index, value in enumerate(leaf):
                if value:
                    yield block + index, value
            block = stop + 1


_MASK = (1 << FANOUT_LOG) - 1


def _entry(page: bytearray, index: int) -> int:
    slot: int = _ENTRY.unpack_from(page, index << 2)[0]
    return slot


def _set_entry(page: bytearray, index: int, value: int) -> None:
    _ENTRY.pack_into(page, index << 2, value)


class _File:
    """A temporary file, made when it is first written to."""

    __slots__ = ("_name", "fd")

    def __init__(self, name: str) -> None:
        self._name = name
        self.fd = -1

    def put(self, offset: int, data: bytearray | memoryview) -> None:
        """All of it, or `DeviceError`."""
        try:
            if self.fd < 0:
                self.fd = temporary_fd()
            done = os.pwrite(self.fd, data, offset)
            while done < len(data):
                done += os.pwrite(self.fd, memoryview(data)[done:], offset + done)
        except OSError as error:
            raise self._failed(error) from error

    def get(self, offset: int, into: bytearray | memoryview) -> None:
        """All of it, or `DeviceError`."""
        try:
            got = os.preadv(self.fd, (into,), offset)
        except OSError as error:
            raise self._failed(error) from error
        if got != len(into):
            raise DeviceError(f"{self._name}: the temporary file for changed blocks was cut short at byte {offset}")

    def _failed(self, error: OSError) -> DeviceError:
        return DeviceError(
            f"{self._name}: the temporary file for changed blocks: {error.strerror or error}", errno=error.errno
        )

    def close(self) -> None:
        """Let go of it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class _Blocks(_File):
    """The content of the changed blocks by slot, from 1 on."""

    __slots__ = ("_block_bytes", "_count", "_most", "_resident")

    def __init__(self, name: str, block_bytes: int, limit_bytes: int) -> None:
        super().__init__(name)
        self._block_bytes = block_bytes
        self._most = limit_bytes // block_bytes
        self._resident: list[bytearray] = []
        self._count = 0

    def take(self, content: memoryview) -> int:
        """A new slot with this content."""
        if self._count >= 0xFFFFFFFF:
            raise DeviceError(f"{self._name}: no more than {self._count} changed blocks can be kept")
        if self._count < self._most:
            self._resident.append(bytearray(content))
        else:
            self.put(self._count * self._block_bytes, content)
        self._count += 1
        return self._count

    def read(self, slot: int, within: int, into: memoryview) -> None:
        """A part of a slot."""
        if slot <= self._most:
            into[:] = memoryview(self._resident[slot - 1])[within : within + len(into)]
        else:
            self.get((slot - 1) * self._block_bytes + within, into)

    def write(self, slot: int, within: int, piece: memoryview) -> None:
        """Change a part of a slot."""
        if slot <= self._most:
            self._resident[slot - 1][within : within + len(piece)] = piece
        else:
            self.put((slot - 1) * self._block_bytes + within, piece)

    def close(self) -> None:
        super().close()
        self._resident.clear()


class _Pages(_File):
    """Pages of the tree by number, the recently used in memory, the others in a temporary file.

    A page that `page()` gave may be changed (with `changing`) until the next call only: after that it may be in the
    file.  A page leaves memory only after it is written, so an error loses nothing.
    """

    __slots__ = ("_cached", "_changed", "_count", "_most")

    def __init__(self, name: str, limit_bytes: int) -> None:
        super().__init__(name)
        self._most = max(_LEAST_CACHED, limit_bytes // _PAGE_COST_BYTES)
        self._cached: OrderedDict[int, bytearray] = OrderedDict()
        self._changed: set[int] = set()
        self._count = 0

    def take(self, content: bytearray) -> int:
        """A new page with this content."""
        if self._count >= 0xFFFFFFFF:
            raise DeviceError(f"{self._name}: no more than {self._count} pages can be kept")
        self._make_room()
        self._count += 1
        self._cached[self._count] = content
        self._changed.add(self._count)
        return self._count

    def page(self, number: int, *, changing: bool = False) -> bytearray:
        """A page; most recently used from now on."""
        cached = self._cached
        content = cached.get(number)
        if content is not None:
            cached.move_to_end(number)
        else:
            self._make_room()
            content = bytearray(PAGE_BYTES)
            self.get((number - 1) * PAGE_BYTES, content)
            cached[number] = content
        if changing:
            self._changed.add(number)
        return content

    def close(self) -> None:
        super().close()
        self._cached.clear()
        self._changed.clear()

    def _make_room(self) -> None:
        cached = self._cached
        while len(cached) >= self._most:
            number = next(iter(cached))
            if number in self._changed:
                self.put((number - 1) * PAGE_BYTES, cached[number])
                self._changed.remove(number)
            del cached[number]
