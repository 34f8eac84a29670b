"""Disk images by hand: partition tables as the specifications have them, bytes only, no tool."""

from __future__ import annotations

from struct import pack
from uuid import UUID
from zlib import crc32

LINUX_DATA = UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
XFS = b"XFSB"


def slot(kind: int, lba: int, sectors: int, status: int = 0) -> bytes:
    """One of the four records of an MBR."""
    return pack("<B3xB3xII", status, kind, lba, sectors)


def mbr(*slots: bytes) -> bytes:
    """A sector with up to four records."""
    return bytes(446) + b"".join(slots).ljust(64, b"\0") + b"\x55\xaa"


def gpt_entry(first: int, last: int, name: str | bytes = "", kind: UUID = LINUX_DATA, size: int = 128) -> bytes:
    """One entry; a name may be given as raw UTF-16."""
    raw = name if isinstance(name, bytes) else name.encode("utf-16-le")
    head = kind.bytes_le + bytes(range(16)) + pack("<QQQ", first, last, 0)
    return (head + raw.ljust(72, b"\0")).ljust(size, b"\0")


def gpt_header(
    entries: bytes,
    lba: int,
    other: int,
    entries_lba: int,
    count: int | None = None,
    entry_bytes: int = 128,
    header_bytes: int = 92,
    signature: bytes = b"EFI PART",
) -> bytes:
    """A header over these entries, its CRC right."""
    number = len(entries) // entry_bytes if count is None else count

    def made(crc: int) -> bytes:
        return signature + pack(
            "<IIIIQQQQ16sQIII",
            0x10000,
            header_bytes,
            crc,
            0,
            lba,
            other,
            34,
            max(lba, other) - 34,
            bytes(16),
            entries_lba,
            number,
            entry_bytes,
            crc32(entries),
        )

    return made(crc32(made(0).ljust(header_bytes, b"\0")[:header_bytes]))


def gpt_image(
    entries: list[bytes], sectors: int, sector_bytes: int = 512, entry_bytes: int = 128, room: int = 128
) -> bytearray:
    """A whole image with the protective MBR, both headers and both arrays."""
    image = bytearray(sectors * sector_bytes)
    image[:512] = mbr(slot(0xEE, 1, sectors - 1))
    array = b"".join(entries).ljust(room * entry_bytes, b"\0")
    array_sectors = -(-len(array) // sector_bytes)
    last = sectors - 1
    second = last - array_sectors
    header = gpt_header(array, 1, last, 2, entry_bytes=entry_bytes)
    backup = gpt_header(array, last, 1, second, entry_bytes=entry_bytes)
    image[sector_bytes : sector_bytes + len(header)] = header
    image[2 * sector_bytes : 2 * sector_bytes + len(array)] = array
    image[second * sector_bytes : second * sector_bytes + len(array)] = array
    image[last * sector_bytes : last * sector_bytes + len(backup)] = backup
    return image


def put(image: bytearray, offset: int, data: bytes) -> bytearray:
    """Write into an image, which keeps its length."""
    assert offset + len(data) <= len(image)
    image[offset : offset + len(data)] = data
    return image
