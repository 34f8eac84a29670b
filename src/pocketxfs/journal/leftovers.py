"""What a crash leaves beside intents: inodes unlinked while open, and blocks staged for copy-on-write.

The kernel frees both when it has replayed a log.  Here they are found and counted, each AG on its own; all pointers
are followed within bounds, and damage found on the way is an error.  Also here: the AGs' counts, summed.
"""

from __future__ import annotations

from typing import Any

from ..device import Device
from ..errors import Corrupt
from ..format import ag
from ..format.geometry import NULL_AGBLOCK, NULL_AGINO, Geometry

#: Inodes and extents listed one by one; more are only counted.
LISTED = 64
_NEXT_UNLINKED = 96
_SHORT_HEADER = 56
_COW_FLAG = 1 << 31
_REFCOUNT_RECORD = 12
_MAX_LEVELS = 9


class Leftovers:
    """Unlinked inodes and copy-on-write staging extents."""

    __slots__ = ("staging", "staging_blocks", "staging_extents", "unlinked", "unlinked_count")

    def __init__(self) -> None:
        #: inode numbers, the first `LISTED`
        self.unlinked: list[int] = []
        self.unlinked_count = 0
        #: (AG, block, blocks), the first `LISTED`
        self.staging: list[tuple[int, int, int]] = []
        self.staging_extents = self.staging_blocks = 0

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.unlinked_count or self.staging_extents)

    def words(self) -> list[str]:
        """A line for each kind."""
        found = []
        if self.unlinked_count:
            listed = ", ".join(map(str, self.unlinked[:8]))
            more = ", ..." if self.unlinked_count > 8 else ""
            found.append(f"{self.unlinked_count} unlinked inodes to be freed: {listed}{more}")
        if self.staging_extents:
            found.append(
                f"{self.staging_blocks} blocks in {self.staging_extents} extents staged for copy-on-write, to be freed"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "unlinked_inodes": self.unlinked_count,
            "unlinked_inodes_listed": self.unlinked,
            "staging_extents": self.staging_extents,
            "staging_blocks": self.staging_blocks,
        }


def _header(device: Device, geo: Geometry, agno: int, sector: int, magic: bytes, name: str) -> bytes:
    data = device.pread((agno * geo.ag_blocks << geo.block_log) + sector * geo.sector_bytes, geo.sector_bytes)
    if data[:4] != magic:
        raise Corrupt(name, f"AG {agno}", "magic", magic.decode(), data[:4].hex())
    return data


def sum_counters(device: Device, geo: Geometry) -> tuple[int, int, int]:
    """(inodes, free inodes, free blocks) over all AGs."""
    icount = ifree = fdblocks = 0
    for agno in range(geo.ag_count):
        agf = ag.AGF.decode_bytes(_header(device, geo, agno, ag.AGF_SECTOR, b"XAGF", "AGF"))
        agi = ag.AGI.decode_bytes(_header(device, geo, agno, ag.AGI_SECTOR, b"XAGI", "AGI"))
        icount += agi.agi_count
        ifree += agi.agi_freecount
        fdblocks += agf.agf_freeblks + agf.agf_flcount + agf.agf_btreeblks
    return icount, ifree, fdblocks


def find_leftovers(device: Device, geo: Geometry) -> Leftovers:
    """Look through all AGs."""
    found = Leftovers()
    for agno in range(geo.ag_count):
        _unlinked(device, geo, agno, found)
        if geo.has_reflink:
            _staging(device, geo, agno, found)
    return found


def _unlinked(device: Device, geo: Geometry, agno: int, found: Leftovers) -> None:
    agi = _header(device, geo, agno, ag.AGI_SECTOR, b"XAGI", "AGI")
    most = ag.AGI.decode_bytes(agi).agi_count
    seen = 0
    for bucket, first in enumerate(ag.AGI_UNLINKED.unpack_from(agi, ag.AGI_UNLINKED_OFFSET)):
        agino = first
        while agino != NULL_AGINO:
            ino = geo.make_ino(agno, agino)
            where = f"AG {agno}, unlinked bucket {bucket}"
            if agino > geo.agino_mask or not geo.ino_valid(ino):
                raise Corrupt("unlinked list", where, "inode", "one of this AG", agino)
            seen += 1
            if seen > most:
                raise Corrupt("unlinked list", where, "length", f"at most {most} inodes", "more: it may be a ring")
            if len(found.unlinked) < LISTED:
                found.unlinked.append(ino)
            agb, index = agino >> geo.inopblog, agino & (geo.inopblock - 1)
            place = (geo.agb_to_daddr(agno, agb) << 9) + (index << geo.inode_log)
            raw = device.pread(place, 100)
            if raw[:2] != b"IN":
                raise Corrupt("inode", f"inode {ino}, {where}", "di_magic", "IN", raw[:2].hex())
            agino = int.from_bytes(raw[_NEXT_UNLINKED : _NEXT_UNLINKED + 4], "big")
    found.unlinked_count += seen


def _staging(device: Device, geo: Geometry, agno: int, found: Leftovers) -> None:
    """Staging extents sort last in the refcount B+tree: follow its right edge, then leaf by leaf to the left."""
    agf = ag.AGF.decode_bytes(_header(device, geo, agno, ag.AGF_SECTOR, b"XAGF", "AGF"))
    block, level = agf.agf_refcount_root, agf.agf_refcount_level
    where = f"AG {agno}, refcount B+tree"
    if not 0 < level <= _MAX_LEVELS:
        raise Corrupt("AGF", f"AG {agno}", "agf_refcount_level", f"1 to {_MAX_LEVELS}", level)
    room = geo.block_bytes - _SHORT_HEADER
    pointers = room // 8
    records = room // _REFCOUNT_RECORD
    seen = 0
    depth = level - 1
    while True:
        if not 0 < block < geo.ag_size_blocks(agno) or seen > geo.ag_blocks:
            raise Corrupt("refcount B+tree block", where, "pointer", "a block of the AG", block)
        seen += 1
        raw = device.pread(geo.agb_to_daddr(agno, block) << 9, geo.block_bytes)
        numrecs = int.from_bytes(raw[6:8], "big")
        if raw[:4] != b"R3FC" or int.from_bytes(raw[4:6], "big") != depth:
            raise Corrupt(
                "refcount B+tree block", f"{where}, block {block}", "magic and level", f"R3FC, {depth}", raw[:6].hex()
            )
        if numrecs > (pointers if depth else records):
            raise Corrupt(
                "refcount B+tree block", f"{where}, block {block}", "bb_numrecs", f"at most {records}", numrecs
            )
        if depth:
            if not numrecs:
                raise Corrupt("refcount B+tree block", f"{where}, block {block}", "bb_numrecs", "at least 1", 0)
            place = _SHORT_HEADER + pointers * 4 + (numrecs - 1) * 4
            block = int.from_bytes(raw[place : place + 4], "big")
            depth -= 1
            continue
        index = numrecs - 1
        while index >= 0:
            place = _SHORT_HEADER + index * _REFCOUNT_RECORD
            start = int.from_bytes(raw[place : place + 4], "big")
            if not start & _COW_FLAG:
                return
            blocks = int.from_bytes(raw[place + 4 : place + 8], "big")
            found.staging_extents += 1
            found.staging_blocks += blocks
            if len(found.staging) < LISTED:
                found.staging.append((agno, start & ~_COW_FLAG, blocks))
            index -= 1
        block = int.from_bytes(raw[8:12], "big")
        if block == NULL_AGBLOCK:
            return
