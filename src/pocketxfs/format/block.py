"""What a decoder or verifier in `format/` may ask of a block of metadata: no I/O, no knowledge of its memory.

`buffer.Buffer` is one; tests use `BytesBlock`.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Protocol

from .crc import crc32c


class Block(Protocol):
    """A run of metadata bytes.  It may lie in several pieces: `view` hides that."""

    @property
    def daddr(self) -> int:
        """512-byte address on its device (of the first piece, where the block is discontiguous on disk)."""

    @property
    def nbytes(self) -> int:
        """Length in bytes."""

    @property
    def data(self) -> memoryview | None:
        """The whole block where it is mapped in one piece, else None."""

    def view(self, offset: int, nbytes: int) -> memoryview | bytes:
        """`nbytes` from `offset`: without a copy where they lie in one piece, else joined."""

    def unpack(self, layout: Struct, offset: int) -> tuple[Any, ...]:
        """`layout.unpack_from` that may cross pieces."""

    def checksum(self, crc_offset: int) -> int:
        """CRC32C of the block with the four bytes at `crc_offset` taken as zero."""


_ZERO4 = b"\0\0\0\0"


def checksum(data: memoryview | bytes | bytearray, crc_offset: int) -> int:
    """CRC32C of `data` with the four bytes at `crc_offset` taken as zero (on disk it is little-endian)."""
    view = memoryview(data)
    return int(crc32c(view[crc_offset + 4 :], crc32c(_ZERO4, crc32c(view[:crc_offset]))))


class BytesBlock:
    """A `Block` over plain bytes."""

    __slots__ = ("daddr", "data", "nbytes")

    def __init__(self, data: bytes | bytearray | memoryview, daddr: int = 0) -> None:
        self.data = memoryview(data)
        self.daddr = daddr
        self.nbytes = len(data)

    def view(self, offset: int, nbytes: int) -> memoryview:
        return self.data[offset : offset + nbytes]

    def unpack(self, layout: Struct, offset: int) -> tuple[Any, ...]:
        return layout.unpack_from(self.data, offset)

    def checksum(self, crc_offset: int) -> int:
        return checksum(self.data, crc_offset)
