"""Copy on write: changed blocks kept beside an untouched device, in bounded memory whatever their number.

Everything the overlay holds lies in slots of one block each, numbered as they are taken: the changed blocks, and the
pages of a radix tree that leads from a block's number to its slot (an entry is 32 bits; 0: not changed, and in an
inner page: nothing changed in that whole range).  The slots live in memory, the least recently used of them move to
an unlinked temporary file when they pass `limit_bytes`.  So the index needs no memory of its own, and a range without
changes is passed over a page at a time.

Limits: what is changed is gone with the process; at most 2^32 slots; a slot, once taken, is never given back.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any

from ..errors import DeviceError
from .base import Device, slice_segments

#: What is kept in memory, in bytes of slots, before the temporary file is made.
LIMIT_BYTES = 1 << 20
BLOCK_BYTES = 4096
#: Slots that are always in memory: the path through the tree (at most seven pages) and the block at its end.
_LEAST_CACHED = 16
_ENTRY = Struct("=I")


class Overlay(Device):
    """A writable device over another one, which it reads, never writes, and closes when it is closed.

    Its counters count what is asked of it; `base` counts what reached the device below.
    """

    __slots__ = ("_depth", "_fanout_log", "_log", "_root", "_slots", "base", "changed_blocks")

    def __init__(
        self,
        base: Device,
        *,
        limit_bytes: int = LIMIT_BYTES,
        block_bytes: int = BLOCK_BYTES,
        directory: str | None = None,
    ) -> None:
        if block_bytes < 16 or block_bytes & (block_bytes - 1):
            raise ValueError(f"block_bytes must be a power of two of at least 16, not {block_bytes}")
        super().__init__(f"{base.name} (overlay)", base.size_bytes, sector_bytes=base.sector_bytes, read_only=False)
        self.base = base
        self._log = block_bytes.bit_length() - 1
        self._fanout_log = self._log - 2
        blocks = (base.size_bytes + block_bytes - 1) >> self._log
        depth = 1
        while blocks > 1 << (depth * self._fanout_log):
            depth += 1
        self._depth = depth
        self._root = 0
        self._slots = _Slots(self.name, block_bytes, limit_bytes, directory)
        #: Blocks that differ, or may differ, from the base's.
        self.changed_blocks = 0

    @property
    def spilled(self) -> bool:
        """Whether the temporary file is in use."""
        return self._slots.file is not None

    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        wanted = sum(map(len, segments))
        self.check_range(offset_bytes, wanted)
        self.reads += 1
        self.segments += len(segments)
        at, end = offset_bytes, offset_bytes + wanted
        if wanted == 0:
            return
        if self._root:
            log = self._log
            for block, slot in self._changed(at >> log, (end - 1) >> log):
                start = block << log
                if start > at:
                    self.base.pread_into(at, slice_segments(segments, at - offset_bytes, start - at))
                    at = start
                stop = min(end, start + (1 << log))
                page = memoryview(self._slots.page(slot))
                for piece in slice_segments(segments, at - offset_bytes, stop - at):
                    piece[:] = page[at - start : at - start + len(piece)]
                    at += len(piece)
        if at == offset_bytes:
            self.base.pread_into(at, segments)
        elif at < end:
            self.base.pread_into(at, slice_segments(segments, at - offset_bytes, end - at))
        self.read_bytes += wanted

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` into the overlay.  An error leaves the blocks before it changed, those after it as they were."""
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
        self._slots.close()
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
        slots = self._slots
        slot = self._find(block)
        if slot:
            slots.page(slot, changing=True)[within : within + len(piece)] = piece
            return
        size = 1 << self._log
        content = bytearray(size)
        start = block << self._log
        there = min(size, self.size_bytes - start)
        if len(piece) < there:
            with memoryview(content) as view:
                self.base.pread_into(start, (view[:there],))
        content[within : within + len(piece)] = piece
        self._set(block, slots.take(content))
        self.changed_blocks += 1

    def _find(self, block: int) -> int:
        """The slot of a block, 0 where it is not changed."""
        slot = self._root
        shift = self._fanout_log * (self._depth - 1)
        mask = (1 << self._fanout_log) - 1
        while slot and shift >= 0:
            slot = _entry(self._slots.page(slot), block >> shift & mask)
            shift -= self._fanout_log
        return slot

    def _set(self, block: int, value: int) -> None:
        """Make the tree lead from a block to its slot.

        What is missing is built from the bottom up and hung in last: a failure on the way leaves the tree as it was.
        """
        slots = self._slots
        mask = (1 << self._fanout_log) - 1
        parent, level = 0, self._depth - 1
        slot = self._root
        while slot and level > 0:
            parent = slot
            slot = _entry(slots.page(slot), block >> self._fanout_log * level & mask)
            level -= 1
        if slot:
            _set_entry(slots.page(slot, changing=True), block & mask, value)
            return
        top = level
        for height in range(top + 1):
            page = bytearray(1 << self._log)
            _set_entry(page, block >> self._fanout_log * height & mask, value)
            value = slots.take(page)
        if parent:
            _set_entry(slots.page(parent, changing=True), block >> self._fanout_log * (top + 1) & mask, value)
        else:
            self._root = value

    def _changed(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The changed blocks from `first` to `last` with their slots, in order."""
        fan = self._fanout_log
        mask = (1 << fan) - 1
        block = first
        while block <= last:
            slot, level = self._root, self._depth - 1
            while True:
                page = self._slots.page(slot)
                if level == 0:
                    break
                slot = _entry(page, block >> fan * level & mask)
                if not slot:
                    break
                level -= 1
            if not slot:
                block = ((block >> fan * level) + 1) << fan * level
                continue
            stop = min(last, block | mask)
            leaf = memoryview(page).cast("I")[block & mask : (stop & mask) + 1].tolist()
            for index, value in enumerate(leaf):
                if value:
                    yield block + index, value
            block = stop + 1


def _entry(page: bytearray, index: int) -> int:
    slot: int = _ENTRY.unpack_from(page, index << 2)[0]
    return slot


def _set_entry(page: bytearray, index: int, value: int) -> None:
    _ENTRY.pack_into(page, index << 2, value)


class _Slots:
    """Blocks by number, the recently used in memory, the others in a temporary file.

    A page that `page()` gave may be changed (with `changing`) until the next call only: after that it may be in the
    file.  A slot leaves memory only after it is written, so an error loses nothing.
    """

    __slots__ = ("_block_bytes", "_cached", "_changed", "_count", "_directory", "_most", "_name", "file")

    def __init__(self, name: str, block_bytes: int, limit_bytes: int, directory: str | None) -> None:
        self._name = name
        self._block_bytes = block_bytes
        self._most = max(_LEAST_CACHED, limit_bytes // block_bytes)
        self._directory = directory
        self._cached: OrderedDict[int, bytearray] = OrderedDict()
        self._changed: set[int] = set()
        self._count = 0
        self.file: Any = None

    def take(self, content: bytearray) -> int:
        """A new slot with this content."""
        if self._count >= 0xFFFFFFFF:
            raise DeviceError(f"{self._name}: no more than {self._count} changed blocks can be kept")
        self._make_room()
        self._count += 1
        self._cached[self._count] = content
        self._changed.add(self._count)
        return self._count

    def page(self, slot: int, *, changing: bool = False) -> bytearray:
        """A slot's content; most recently used from now on."""
        cached = self._cached
        content = cached.get(slot)
        if content is not None:
            cached.move_to_end(slot)
        else:
            self._make_room()
            content = cached[slot] = self._load(slot)
        if changing:
            self._changed.add(slot)
        return content

    def close(self) -> None:
        self._cached.clear()
        self._changed.clear()
        file, self.file = self.file, None
        if file is not None:
            file.close()

    def _make_room(self) -> None:
        cached = self._cached
        while len(cached) >= self._most:
            slot = next(iter(cached))
            if slot in self._changed:
                self._save(slot, cached[slot])
                self._changed.remove(slot)
            del cached[slot]

    def _save(self, slot: int, content: bytearray) -> None:
        try:
            if self.file is None:
                self.file = _temporary(self._directory)
            self.file.seek((slot - 1) * self._block_bytes)
            view = memoryview(content)
            done = 0
            while done < len(view):
                done += self.file.write(view[done:])
        except OSError as error:
            raise DeviceError(
                f"{self._name}: the temporary file for changed blocks: {error.strerror or error}", errno=error.errno
            ) from error

    def _load(self, slot: int) -> bytearray:
        content = bytearray(self._block_bytes)
        try:
            self.file.seek((slot - 1) * self._block_bytes)
            got = self.file.readinto(content)
        except OSError as error:
            raise DeviceError(
                f"{self._name}: the temporary file for changed blocks: {error.strerror or error}", errno=error.errno
            ) from error
        if got != len(content):
            raise DeviceError(f"{self._name}: the temporary file for changed blocks was cut short at slot {slot}")
        return content


def _temporary(directory: str | None) -> Any:
    """An unlinked file.  /tmp is often memory itself, so /var/tmp comes first unless the user has said otherwise."""
    import tempfile

    if directory is None and not any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
        directory = next((place for place in ("/var/tmp",) if os.access(place, os.W_OK | os.X_OK)), None)
    return tempfile.TemporaryFile(buffering=0, dir=directory)
