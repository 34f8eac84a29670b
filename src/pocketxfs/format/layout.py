"""Layouts: an on-disk structure declared once, as a `NamedTuple` whose annotations are the disk's types.

    class Agf(NamedTuple):
        agf_magicnum: U32
        ...
    AGF = Layout(Agf, size=224, at={"agf_uuid": 64})

From that come the `struct.Struct` (big-endian), the typed record and the offset of every field; the size and the
offsets named in `at` are asserted when the module is loaded.  Checksums are the one little-endian thing on an XFS
disk: they are declared as `Crc`, opaque bytes here, and read with `stored_crc`.
"""

from __future__ import annotations

from struct import Struct, calcsize
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from .block import Block

U8 = int
U16 = int
U32 = int
U64 = int
S8 = int
S32 = int
S64 = int
Crc = bytes
Uuid = bytes
Bytes12 = bytes

#: How a dtype or a struct spells each annotation.
CODES = {
    "U8": "B",
    "U16": "H",
    "U32": "I",
    "U64": "Q",
    "S8": "b",
    "S32": "i",
    "S64": "q",
    "Crc": "4s",
    "Uuid": "16s",
    "Bytes12": "12s",
}

R = TypeVar("R", bound=tuple[Any, ...])


class Layout(Generic[R]):
    """The struct, size and field offsets of one record type."""

    __slots__ = ("offsets", "record", "size", "struct")

    def __init__(self, record: type[R], *, size: int, at: dict[str, int] | None = None) -> None:
        fields: tuple[str, ...] = record._fields  # type: ignore[attr-defined]
        codes = [CODES[_plain(record.__annotations__[name])] for name in fields]
        self.record = record
        self.struct = Struct(">" + "".join(codes))
        self.size = self.struct.size
        self.offsets: dict[str, int] = {}
        place = 0
        for name, code in zip(fields, codes, strict=True):
            self.offsets[name] = place
            place += calcsize(">" + code)
        if self.size != size:
            raise AssertionError(f"{record.__name__}: {self.size} bytes, declared {size}")
        for name, offset in (at or {}).items():
            if self.offsets[name] != offset:
                raise AssertionError(f"{record.__name__}.{name} at {self.offsets[name]}, declared {offset}")

    def decode(self, block: Block, offset: int = 0) -> R:
        """The record that stands at `offset` of a block."""
        return self.record(*block.unpack(self.struct, offset))

    def decode_bytes(self, data: bytes | memoryview, offset: int = 0) -> R:
        """The record that stands at `offset` of plain bytes."""
        return self.record(*self.struct.unpack_from(data, offset))


def _plain(annotation: object) -> str:
    """The annotation's name: a string already under `from __future__ import annotations`, or a ForwardRef."""
    if isinstance(annotation, str):
        return annotation
    return str(annotation.__forward_arg__)  # type: ignore[attr-defined]


def stored_crc(raw: bytes) -> int:
    """The value of a `Crc` field."""
    return int.from_bytes(raw, "little")


__all__ = ["CODES", "Layout", "NamedTuple", "stored_crc"]
