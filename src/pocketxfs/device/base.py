"""What every floor above may ask of a device: bytes at an offset, straight into given memory, and counts of the calls.

All offsets and lengths are bytes.  A read fills everything that was asked for or raises `DeviceError` naming device,
offset and length; there are no short reads.  Limits: one thread, exclusive use, no locking.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from ..errors import DeviceError

#: What a device without a say in it uses: the unit of XFS's disk addresses.
SECTOR_BYTES = 512


class Device(ABC):
    """A run of bytes that can be read, and written where `read_only` is false.

    `reads` counts calls down to the operating system or file object, `segments` the pieces of memory they filled,
    `read_bytes` what they brought; `writes` and `written_bytes` likewise.  Hints are not counted.
    `base_bytes` is where byte 0 lies within what `fileno()` names.
    """

    __slots__ = (
        "base_bytes",
        "name",
        "read_bytes",
        "read_only",
        "reads",
        "sector_bytes",
        "segments",
        "size_bytes",
        "writes",
        "written_bytes",
    )

    def __init__(self, name: str, size_bytes: int, *, sector_bytes: int = SECTOR_BYTES, read_only: bool = True) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.sector_bytes = sector_bytes
        self.read_only = read_only
        self.base_bytes = 0
        self.reads = self.read_bytes = self.segments = 0
        self.writes = self.written_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.size_bytes} bytes>"

    @abstractmethod
    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        """Fill the segments, in order, with the bytes from `offset_bytes` on."""

    def pread(self, offset_bytes: int, nbytes: int) -> bytes:
        """`nbytes` from `offset_bytes`."""
        self.check_range(offset_bytes, nbytes)
        held = bytearray(nbytes)
        with memoryview(held) as view:
            self.pread_into(offset_bytes, (view,))
        return bytes(held)

    @abstractmethod
    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        """Put all of `data` at `offset_bytes`; never past the end of the device."""

    def flush(self) -> None:
        """Come back when what was written is as safe as this device can make it."""
        return

    def readahead(self, offset_bytes: int, nbytes: int) -> None:
        """A hint that this range is wanted soon.  Never waits, never fails, counts as nothing."""
        return

    def fileno(self) -> int | None:
        """The descriptor for sendfile and its like, or None where the bytes are not simply in a file."""
        return None

    def window(self, start_bytes: int, nbytes: int, name: str) -> Device:
        """A part of this device as a device, which takes this one over: use and close only the part from now on."""
        from .window import Window

        return Window(self, start_bytes, nbytes, name)

    @abstractmethod
    def close(self) -> None:
        """Let go of the device.  Again does nothing."""

    # What the devices themselves share.

    def check_range(self, offset_bytes: int, nbytes: int) -> None:
        """Raise `DeviceError` unless the range lies on the device."""
        if offset_bytes < 0 or nbytes < 0 or offset_bytes + nbytes > self.size_bytes:
            raise self.beyond(offset_bytes, nbytes)

    def check_writable(self) -> None:
        """Raise `DeviceError` (EROFS) on a device opened for reading."""
        if self.read_only:
            raise DeviceError(f"{self.name}: opened for reading only", errno=errno.EROFS)

    def beyond(self, offset_bytes: int, nbytes: int) -> DeviceError:
        """The error for a range that is not all on the device."""
        return DeviceError(
            f"{self.name}: {nbytes} bytes at offset {offset_bytes} reach past its end ({self.size_bytes} bytes)"
        )

    def failed(self, offset_bytes: int, nbytes: int, error: BaseException, doing: str = "reading") -> DeviceError:
        """The error for a call that the operating system or a file object failed."""
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return DeviceError(f"{self.name}: {doing} {nbytes} bytes at offset {offset_bytes}: {reason}", errno=number)

    def ended(self, offset_bytes: int, nbytes: int, got: int) -> DeviceError:
        """The error for a device that gave only the first `got` bytes, though it had said it was longer."""
        return DeviceError(
            f"{self.name}: reading {nbytes} bytes at offset {offset_bytes}: it ended after {got} "
            "(was it cut short while open?)"
        )


def slice_segments(segments: Sequence[memoryview], start: int, nbytes: int) -> list[memoryview]:
    """The pieces of `segments` that hold bytes `start` to `start + nbytes` of them, taken as one run."""
    pieces = []
    for segment in segments:
        if nbytes <= 0:
            break
        length = len(segment)
        if start >= length:
            start -= length
            continue
        piece = segment[start : start + nbytes]
        pieces.append(piece)
        nbytes -= len(piece)
        start = 0
    return pieces
