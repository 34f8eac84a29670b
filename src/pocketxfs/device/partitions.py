"""Partition tables, GPT and MBR, and the XFS partition in them.

The records are decoded by the library pyreadpartitions.  What it does not do is done here, because tables come from
anywhere (seen in its version 1.1.1, each has a test):

- it reads three of an MBR's four slots: each slot is given to it alone;
- it follows the chain of logical partitions by recursion without a bound, and forgets where each link lies: the chain
  is followed here, link by link, with a bound;
- it checks neither CRC nor count nor size of a GPT's entries, knows no second copy, and takes 512-byte sectors for any
  file: header and entries are judged here first (UEFI 2.10, section 5.3), and both sector sizes are tried;
- it decodes names as UTF-16 strictly: names are decoded here.

Numbers are Linux's: GPT by entry, MBR 1 to 4, logical partitions from 5 on.  Limits: no hybrid tables (the GPT counts),
no BSD or Sun labels; on systems without `fcntl` (Windows) the library cannot be imported, and an offset must be given.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import Corrupt, DeviceError, NotXfs, Unsupported
from .base import Device

if TYPE_CHECKING:
    from types import ModuleType

#: Sector sizes that are tried after the device's own: an image keeps those of the disk that it was made for.
SECTOR_SIZES = (512, 4096)
#: Bounds on what a table may ask for.  Linux stops at 256 partitions; a GPT has 128 entries of 128 bytes.
MAX_PARTITIONS = 1024
MAX_ENTRIES_BYTES = 1 << 18
MAX_CHAIN = 256

MBR_BYTES = 512
_EMPTY_SLOT = bytes(16)
_EMPTY_LINK = bytes(510) + b"\x55\xaa"
_PROTECTIVE = 0xEE
_GPT_HEADER = Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY_BYTES = 128
_GPT_NAME_AT = 56


class Partition(NamedTuple):
    """One partition; `size_bytes` as the table says, though the device may end before."""

    number: int
    start_bytes: int
    size_bytes: int
    type: str
    name: str
    scheme: str


class PartitionChoice(Unsupported):
    """Several partitions hold XFS: `partitions` lists them, and the caller must say which."""

    def __init__(self, message: str, found: list[Partition]) -> None:
        super().__init__(message)
        self.partitions = found


def partitions(device: Device) -> list[Partition]:
    """The partitions of a device, in the order of their numbers; none where it has no table.

    Raises `Corrupt` for a table that is there and cannot be true, `DeviceError` where it cannot be read.
    """
    if device.size_bytes < 2 * MBR_BYTES:
        return []
    first = device.pread(0, MBR_BYTES)
    kinds = _slot_kinds(first)
    if kinds is None or _PROTECTIVE in kinds or not any(kinds):
        found = _gpt(device, required=kinds is not None and _PROTECTIVE in kinds)
        if found is not None or kinds is None:
            return found or []
    return _mbr(device, first)


def numbered(device: Device, number: int) -> Partition:
    """The partition of that number."""
    found = partitions(device)
    if not found:
        raise NotXfs(f"{device.name}: there is no partition table, so no partition {number}")
    for one in found:
        if one.number == number:
            if one.start_bytes >= device.size_bytes:
                raise DeviceError(
                    f"{device.name}: partition {number} begins at byte {one.start_bytes}, past the end of the device "
                    f"({device.size_bytes} bytes)"
                )
            return one
    raise NotXfs(f"{device.name}: there is no partition {number}; {_listed(found)}")


def find_xfs(device: Device) -> Partition:
    """The one partition that begins with XFS's magic.  Raises `PartitionChoice` or `NotXfs`, and says what is there."""
    from .magic import what_is

    damage = None
    try:
        found = partitions(device)
    except Corrupt as error:
        found, damage = [], error
    holding = [one for one in found if _begins_xfs(device, one.start_bytes)]
    if len(holding) == 1:
        return holding[0]
    if holding:
        raise PartitionChoice(
            f"{device.name}: {len(holding)} partitions hold XFS, say which: {_listed(holding)}", holding
        )
    if found:
        seen = [
            f"partition {one.number} is {what_is(device, one.start_bytes) or f'not known ({one.type})'}"
            for one in found[:16]
        ]
        if len(found) > 16:
            seen.append(f"and {len(found) - 16} more")
        raise NotXfs(f"{device.name}: no partition holds XFS: " + "; ".join(seen))
    if device.size_bytes == 0:
        raise NotXfs(f"{device.name}: it is empty, 0 bytes")
    what = what_is(device)
    if damage is not None and what is None:
        raise NotXfs(f"{device.name}: no XFS at its beginning, and its partition table is damaged: {damage}")
    if what is None:
        raise NotXfs(f"{device.name}: there is no XFS filesystem at its beginning, and no partition table")
    raise NotXfs(f"{device.name}: not XFS; it looks like {what}" if what[:5] != "empty" else f"{device.name}: {what}")


def _sector_sizes(device: Device) -> list[int]:
    own = device.sector_bytes
    return [own, *(size for size in SECTOR_SIZES if size != own)]


def _begins_xfs(device: Device, start_bytes: int) -> bool:
    return 0 < start_bytes <= device.size_bytes - 4 and device.pread(start_bytes, 4) == b"XFSB"


def _listed(found: list[Partition]) -> str:
    """For a message: `1 (512 MiB, EFI System, "boot"), 2 (...)`."""
    texts = []
    for one in found[:32]:
        size = one.size_bytes
        shown = f"{size >> 30} GiB" if size >> 30 >= 10 else f"{size >> 20} MiB" if size >> 20 else f"{size} bytes"
        texts.append(f"{one.number} ({shown}, {one.type}" + (f", {one.name!r})" if one.name else ")"))
    if len(found) > 32:
        texts.append(f"and {len(found) - 32} more")
    return ", ".join(texts)


def _library() -> ModuleType:
    try:
        import pyreadpartitions
    except ImportError as error:
        raise Unsupported(
            f"partition tables cannot be read here ({error}): give the offset where the partition begins"
        ) from error
    module: ModuleType = pyreadpartitions
    return module


class _Given:
    """The little of a file that the library asks for: wherever it seeks, it reads the given pieces, one a call."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(reversed(pieces))

    def seek(self, _offset: int) -> None:
        return

    def read(self, nbytes: int) -> bytes:
        return self._pieces.pop()[:nbytes] if self._pieces else b""


# MBR (the four slots at byte 446; logical partitions are a chain of such sectors).


def _slot_kinds(sector: bytes) -> list[int] | None:
    """The type bytes of the four slots, or None where this is no MBR but, say, a FAT boot sector."""
    if sector[510:512] != b"\x55\xaa":
        return None
    if any(sector[at] & 0x7F for at in range(446, 510, 16)):
        return None
    return [sector[at + 4] for at in range(446, 510, 16)]


def _slots(sector: bytes) -> list[Any]:
    """The library's records of the four slots, None for an empty one."""
    library = _library()
    try:
        header = library.read_mbr_header(_Given(sector))
        records: list[Any] = []
        for number in (1, 2, 3, 4):
            content = getattr(header, f"partition{number}")
            if content == _EMPTY_SLOT:
                records.append(None)
                continue
            alone = header._replace(partition1=content, partition2=_EMPTY_SLOT, partition3=_EMPTY_SLOT)
            read = library.read_mbr_partitions(_Given(_EMPTY_LINK), alone)
            records.append(read[0] if read else None)
        return records
    except MemoryError:
        raise
    except Exception as error:
        raise Corrupt("MBR", "its sector", "partition slots", "four readable records", repr(error)) from error


def _mbr(device: Device, first: bytes) -> list[Partition]:
    """The partitions in the unit that finds XFS in one of them (an MBR does not tell its own), else in the device's."""
    sizes = _sector_sizes(device)
    found = _mbr_at(device, first, sizes[0])
    if any(_begins_xfs(device, one.start_bytes) for one in found):
        return found
    for sector_bytes in sizes[1:]:
        other = _mbr_at(device, first, sector_bytes)
        if any(_begins_xfs(device, one.start_bytes) for one in other):
            return other
    return found


def _mbr_at(device: Device, first: bytes, sector_bytes: int) -> list[Partition]:
    extended_types = _library().MBR_EXTENDED_TYPE
    found: list[Partition] = []
    chains: list[Any] = []
    for number, record in enumerate(_slots(first), 1):
        if record is None or record.sectors == 0:
            continue
        if record.type in extended_types:
            chains.append(record)
        found.append(_mbr_partition(number, record, record.lba * sector_bytes, sector_bytes))
    for record in chains:
        _follow(device, record.lba, record.sectors, sector_bytes, extended_types, found)
    return found


def _mbr_partition(number: int, record: Any, start_bytes: int, sector_bytes: int) -> Partition:
    kind = f"MBR type {record.type:#04x}" if record.type_str == "Unknown" else str(record.type_str)
    return Partition(number, start_bytes, record.sectors * sector_bytes, kind, "", "MBR")


def _follow(
    device: Device, base: int, sectors: int, sector_bytes: int, extended_types: list[int], found: list[Partition]
) -> None:
    """Add the logical partitions of one extended partition.  A link that leads nowhere ends the chain."""
    seen: set[int] = set()
    number = max(4, max((one.number for one in found), default=4))
    link = base
    while link not in seen and len(seen) < MAX_CHAIN and (link + 1) * sector_bytes <= device.size_bytes:
        seen.add(link)
        sector = device.pread(link * sector_bytes, MBR_BYTES)
        if sector[510:512] != b"\x55\xaa":
            return
        following = None
        for record in _slots(sector):
            if record is None or record.sectors == 0:
                continue
            if record.type in extended_types:
                if following is None:
                    following = base + record.lba
            elif link + record.lba + record.sectors <= base + sectors:
                number += 1
                found.append(_mbr_partition(number, record, (link + record.lba) * sector_bytes, sector_bytes))
        if following is None:
            return
        link = following


# GPT (a header in sector 1 and another in the last, each with an array of entries, each with a CRC).


def _gpt(device: Device, *, required: bool) -> list[Partition] | None:
    """The partitions of the first good header, None where there is none; `Corrupt` where one was to be expected."""
    sizes = _sector_sizes(device)
    damage: Corrupt | None = None
    for first in (True, False):
        for sector_bytes in sizes:
            lba = 1 if first else device.size_bytes // sector_bytes - 1
            if lba < 1 or (lba + 1) * sector_bytes > device.size_bytes:
                continue
            sector = device.pread(lba * sector_bytes, sector_bytes)
            if sector[:8] != b"EFI PART":
                continue
            try:
                return _gpt_at(device, sector, lba, sector_bytes)
            except Corrupt as error:
                damage = damage or error
    if damage is not None:
        raise damage
    if required:
        raise Corrupt("GPT", "sector 1 and the last sector", "signature", "EFI PART", "nothing")
    return None


def _gpt_at(device: Device, sector: bytes, lba: int, sector_bytes: int) -> list[Partition]:
    from zlib import crc32

    where = f"sector {lba} of {sector_bytes} bytes"
    fields = _GPT_HEADER.unpack_from(sector)
    header_bytes, header_crc, own_lba = fields[2], fields[3], fields[5]
    entries_lba, count, entry_bytes, entries_crc = fields[10:14]
    if not _GPT_HEADER.size <= header_bytes <= sector_bytes:
        raise Corrupt("GPT", where, "header size", f"{_GPT_HEADER.size} to {sector_bytes}", header_bytes)
    found_crc = crc32(sector[:16] + bytes(4) + sector[20:header_bytes])
    if found_crc != header_crc:
        raise Corrupt("GPT", where, "header CRC", header_crc, found_crc)
    if own_lba != lba:
        raise Corrupt("GPT", where, "own address", lba, own_lba)
    if entry_bytes < _GPT_ENTRY_BYTES or entry_bytes % 8 or count * entry_bytes > MAX_ENTRIES_BYTES:
        raise Corrupt("GPT", where, "entries", f"at most {MAX_ENTRIES_BYTES} bytes", f"{count} of {entry_bytes} bytes")
    try:
        raw = device.pread(entries_lba * sector_bytes, count * entry_bytes)
    except DeviceError as error:
        raise Corrupt("GPT", where, "address of the entries", "on the device", error.message) from error
    found_crc = crc32(raw)
    if found_crc != entries_crc:
        raise Corrupt("GPT", where, "CRC of the entries", entries_crc, found_crc)
    return _gpt_entries(sector, raw, count, entry_bytes, where, sector_bytes)


def _gpt_entries(
    sector: bytes, raw: bytes, count: int, entry_bytes: int, where: str, sector_bytes: int
) -> list[Partition]:
    library = _library()
    entries = [raw[at : at + _GPT_ENTRY_BYTES] for at in range(0, count * entry_bytes, entry_bytes)]
    nameless = [entry[:_GPT_NAME_AT].ljust(_GPT_ENTRY_BYTES, b"\0") for entry in entries]
    try:
        header = library.read_gpt_header(_Given(sector), lba_size=sector_bytes)
        records = library.read_gpt_partitions(
            _Given(*nameless), header._replace(part_entry_size=_GPT_ENTRY_BYTES), lba_size=sector_bytes
        )
    except MemoryError:
        raise
    except Exception as error:
        raise Corrupt("GPT", where, "entries", f"{count} readable records", repr(error)) from error
    found: list[Partition] = []
    for record in records[:MAX_PARTITIONS]:
        if record.last_lba < record.first_lba or record.first_lba == 0:
            continue
        kind = f"GPT type {record.guid}" if record.type == "Unknown" else str(record.type)
        raw_name = entries[record.index - 1][_GPT_NAME_AT:]
        name = raw_name.decode("utf-16-le", "replace").split("\0", 1)[0]
        size_bytes = (record.last_lba - record.first_lba + 1) * sector_bytes
        found.append(Partition(record.index, record.first_lba * sector_bytes, size_bytes, kind, name, "GPT"))
    return found
