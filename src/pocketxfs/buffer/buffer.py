"""One buffer of metadata (kernel: struct xfs_buf), and those whose pages lie apart: not mapped, and mapped.

All are `format.block.Block`s.  A buffer's memory is its own while it is held; `data`, `view` and slices of them are
valid until `release`, after which reclaim may give the memory to another buffer at any allocation.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from ..format.block import checksum
from ..format.crc import crc32c
from ..memory.frames import page_segments
from .backing import Mapped, Place

if TYPE_CHECKING:
    from ..device import Device
    from .cache import BufferCache, KindStats
    from .ops import BufferOps

#: Pieces on disk of a discontiguous buffer: (daddr, bytes).
Maps = tuple[tuple[int, int], ...]

_ZERO4 = b"\0\0\0\0"


class Buffer:
    """A held run of metadata, mapped in one piece.  Made by `BufferCache` only.

    `holds` counts users; the cache's own reference is being in its table.  `plain_bytes` is the length where the
    buffer is one piece on disk and fully read, else -1, so that the cache's hit path needs one comparison for both.
    """

    __slots__ = (
        "cache", "daddr", "data", "device", "holds", "lru_ref", "maps", "nbytes", "ops", "place", "plain_bytes",
        "queued", "stale", "stats", "table",
    )  # fmt: skip

    data: memoryview | None
    #: The verifier that it last passed; None when it was read ahead and nobody has asked for it yet.
    ops: BufferOps | None

    def __init__(
        self, cache: BufferCache, table: dict[int, Buffer], device: Device, daddr: int, nbytes: int,
        maps: Maps | None, place: Place, stats: KindStats,
    ) -> None:  # fmt: skip
        self.cache, self.table, self.device = cache, table, device
        self.daddr, self.nbytes, self.maps = daddr, nbytes, maps
        self.place, self.stats = place, stats
        self.holds = 1
        self.lru_ref = 0
        self.plain_bytes = -1
        self.ops = None
        self.queued = self.stale = False
        self._map(place)

    def _map(self, place: Place) -> None:
        assert isinstance(place, int)
        self.data = self.cache.memory[place : place + self.nbytes]

    # -- holding -----------------------------------------------------------------------------------------------

    def hold(self) -> Buffer:
        """One more user."""
        self.holds += 1
        return self

    def release(self) -> None:
        """One user less; a stale buffer, or one of a kind that is not kept, goes with the last."""
        holds = self.holds - 1
        if holds > 0:
            self.holds = holds
        else:
            self._last(holds)

    def _last(self, holds: int) -> None:
        if holds < 0:
            if self.place == -1:
                return
            raise RuntimeError(f"buffer at daddr {self.daddr:#x} released more often than held")
        self.holds = 0
        if self.stale or (self.ops is not None and self.ops.lru_ref == 0):
            self.cache.destroy(self)

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *_: object) -> None:
        holds = self.holds - 1
        if holds > 0:
            self.holds = holds
        else:
            self._last(holds)

    # -- Block -------------------------------------------------------------------------------------------------

    def view(self, offset: int, nbytes: int) -> memoryview | bytes:
        """`nbytes` from `offset`, without a copy where they lie in one piece."""
        return self.data[offset : offset + nbytes]  # type: ignore[index]

    def unpack(self, layout: Struct, offset: int) -> tuple[Any, ...]:
        """The fields of `layout` at `offset`."""
        return layout.unpack_from(self.data, offset)  # type: ignore[arg-type]

    def checksum(self, crc_offset: int) -> int:
        """CRC32C with the four bytes at `crc_offset` taken as zero."""
        return checksum(self.data, crc_offset)  # type: ignore[arg-type]

    def segments(self) -> list[memoryview]:
        """What a bio takes: writable views that make up the buffer in order."""
        return [self.data]  # type: ignore[list-item]

    def unmap(self) -> None:
        """Make `data` unusable: its memory is about to be another's."""
        if self.data is not None:
            self.data.release()

    def __repr__(self) -> str:
        kind = self.ops.name if self.ops is not None else "unverified"
        return f"<Buffer {kind} daddr {self.daddr:#x} {self.nbytes} bytes, {self.holds} holds>"


class PagesBuffer(Buffer):
    """A buffer whose pages lie apart: `data` is None, and it is read piecewise."""

    __slots__ = ("pages", "shift")

    pages: list[int]
    shift: int

    def _map(self, place: Place) -> None:
        assert isinstance(place, list)
        self.data = None
        self.pages = place
        self.shift = self.cache.backing.page_shift

    def view(self, offset: int, nbytes: int) -> memoryview | bytes:
        shift, memory = self.shift, self.cache.memory
        index = offset >> shift
        inside = offset & ((1 << shift) - 1)
        if offset + nbytes > self.nbytes:
            nbytes = max(0, self.nbytes - offset)
        if not nbytes:
            return b""
        if inside + nbytes <= 1 << shift:
            start = self.pages[index] + inside
            return memory[start : start + nbytes]
        pieces = []
        while nbytes:
            take = min(nbytes, (1 << shift) - inside)
            start = self.pages[index] + inside
            pieces.append(memory[start : start + take])
            nbytes -= take
            inside = 0
            index += 1
        return b"".join(pieces)

    def unpack(self, layout: Struct, offset: int) -> tuple[Any, ...]:
        shift = self.shift
        inside = offset & ((1 << shift) - 1)
        if inside + layout.size <= 1 << shift and offset >= 0 and offset + layout.size <= self.nbytes:
            return layout.unpack_from(self.cache.memory, self.pages[offset >> shift] + inside)
        return layout.unpack(self.view(offset, layout.size))

    def checksum(self, crc_offset: int) -> int:
        crc = 0
        at = 0
        for piece in self.segments():
            end = at + len(piece)
            if at <= crc_offset < end:
                # the four bytes are aligned to four, so never on two pages
                inside = crc_offset - at
                crc = crc32c(piece[inside + 4 :], crc32c(_ZERO4, crc32c(piece[:inside], crc)))
            else:
                crc = crc32c(piece, crc)
            at = end
        return int(crc)

    def segments(self) -> list[memoryview]:
        return page_segments(self.cache.memory, self.pages, self.nbytes, 1 << self.shift)


class MappedBuffer(Buffer):
    """A buffer whose pages lie apart and are mapped side by side: read like one in one piece, but a bio takes pages."""

    __slots__ = ()

    place: Mapped

    def _map(self, place: Place) -> None:
        assert isinstance(place, Mapped)
        self.data = self.cache.mapped[place.address : place.address + self.nbytes]

    def segments(self) -> list[memoryview]:
        place, machine = self.place, self.cache.machine
        pages = place.pages
        if pages is None:
            pages = machine.vmalloc_area.pages_at(place.address, self.nbytes)
        return page_segments(self.cache.memory, pages, self.nbytes, machine.page_bytes)


def cut(segments: list[memoryview], maps: Maps) -> list[list[memoryview]]:
    """The memory segments of each piece on disk, for a buffer that is discontiguous there."""
    found: list[list[memoryview]] = []
    index, inside = 0, 0
    for _, nbytes in maps:
        part: list[memoryview] = []
        while nbytes:
            segment = segments[index]
            take = min(nbytes, len(segment) - inside)
            part.append(segment[inside : inside + take])
            nbytes -= take
            inside += take
            if inside == len(segment):
                index += 1
                inside = 0
        found.append(part)
    return found
