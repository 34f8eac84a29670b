"""The headers of an allocation group: AGF, AGI and AGFL (format document: "Allocation Groups"; kernel: xfs_format.h).

Sectors 1, 2 and 3 of each AG (sector 0 is a superblock).  Each verifier judges one sector: magic, CRC, UUID, own AG
number, and every field that says where or how many.  Hints that the kernel does not trust either (agi_newino,
agi_dirino) are left alone.  Limit: on V4 an AGFL has no header, and its unused entries hold anything.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from ..errors import Corrupt
from .block import Block
from .geometry import NULL_AGBLOCK, NULL_AGINO, Geometry
from .layout import U32, U64, Crc, Layout, Uuid, stored_crc

XFS_AGF_MAGIC = 0x58414746  # "XAGF"
XFS_AGI_MAGIC = 0x58414749  # "XAGI"
XFS_AGFL_MAGIC = 0x5841464C  # "XAFL"
AG_VERSION = 1
AGF_SECTOR, AGI_SECTOR, AGFL_SECTOR = 1, 2, 3
#: The kernel's bound on the height of a tree rooted in an AG header (XFS_BTREE_MAXLEVELS).
AG_MAX_LEVELS = 9
MIN_AG_BLOCKS = 64


class Agf(NamedTuple):
    """struct xfs_agf up to its spare words."""

    agf_magicnum: U32
    agf_versionnum: U32
    agf_seqno: U32
    agf_length: U32
    agf_bno_root: U32
    agf_cnt_root: U32
    agf_rmap_root: U32
    agf_bno_level: U32
    agf_cnt_level: U32
    agf_rmap_level: U32
    agf_flfirst: U32
    agf_fllast: U32
    agf_flcount: U32
    agf_freeblks: U32
    agf_longest: U32
    agf_btreeblks: U32
    agf_uuid: Uuid
    agf_rmap_blocks: U32
    agf_refcount_blocks: U32
    agf_refcount_root: U32
    agf_refcount_level: U32


class AgfTail(NamedTuple):
    """The end of struct xfs_agf, at 208."""

    agf_lsn: U64
    agf_crc: Crc
    agf_spare2: U32


class Agi(NamedTuple):
    """struct xfs_agi up to its unlinked buckets."""

    agi_magicnum: U32
    agi_versionnum: U32
    agi_seqno: U32
    agi_length: U32
    agi_count: U32
    agi_root: U32
    agi_level: U32
    agi_freecount: U32
    agi_newino: U32
    agi_dirino: U32


class AgiTail(NamedTuple):
    """struct xfs_agi after its unlinked buckets, at 296."""

    agi_uuid: Uuid
    agi_crc: Crc
    agi_pad32: U32
    agi_lsn: U64
    agi_free_root: U32
    agi_free_level: U32
    agi_iblocks: U32
    agi_fblocks: U32


class Agfl(NamedTuple):
    """struct xfs_agfl (V5 only; on V4 the sector is the array alone)."""

    agfl_magicnum: U32
    agfl_seqno: U32
    agfl_uuid: Uuid
    agfl_lsn: U64
    agfl_crc: Crc


AGF = Layout(
    Agf,
    size=96,
    at={"agf_bno_root": 16, "agf_flfirst": 40, "agf_uuid": 64, "agf_rmap_blocks": 80, "agf_refcount_root": 88},
)
AGF_TAIL = Layout(AgfTail, size=16, at={"agf_crc": 8})
AGF_TAIL_OFFSET = 208
AGF_CRC_OFFSET = AGF_TAIL_OFFSET + AGF_TAIL.offsets["agf_crc"]
AGI = Layout(Agi, size=40, at={"agi_count": 16, "agi_root": 20, "agi_newino": 32})
AGI_BUCKETS = 64
AGI_UNLINKED = Struct(f">{AGI_BUCKETS}I")
AGI_UNLINKED_OFFSET = AGI.size
AGI_TAIL = Layout(AgiTail, size=48, at={"agi_crc": 16, "agi_free_root": 32, "agi_fblocks": 44})
AGI_TAIL_OFFSET = AGI_UNLINKED_OFFSET + AGI_UNLINKED.size
AGI_CRC_OFFSET = AGI_TAIL_OFFSET + AGI_TAIL.offsets["agi_crc"]
AGFL = Layout(Agfl, size=36, at={"agfl_uuid": 8, "agfl_lsn": 24, "agfl_crc": 32})
AGFL_CRC_OFFSET = AGFL.offsets["agfl_crc"]
assert (AGF_CRC_OFFSET, AGI_TAIL_OFFSET, AGI_CRC_OFFSET) == (216, 296, 312)


def header_daddr(geo: Geometry, agno: int, sector: int) -> int:
    """512-byte address of an AG's header sector."""
    return geo.agb_to_daddr(agno, 0) + (sector * geo.sector_bytes >> 9)


def agfl_size(geo: Geometry) -> int:
    """Entries in an AGFL sector."""
    return (geo.sector_bytes - (AGFL.size if geo.has_crc else 0)) >> 2


class _Judge:
    """One header under judgement: its names for errors, and what all three share."""

    __slots__ = ("agno", "block", "geo", "structure", "where")

    def __init__(self, structure: str, block: Block, geo: Geometry) -> None:
        self.structure, self.block, self.geo = structure, block, geo
        self.agno = (block.daddr >> geo.block_sectors_log) // geo.ag_blocks
        self.where = f"AG {self.agno}"

    def need(self, ok: bool, field: str, expected: object, found: object) -> None:
        if not ok:
            raise Corrupt(self.structure, self.where, field, expected, found)

    def magic(self, field: str, expected: int, found: int) -> None:
        if expected != found:
            raise Corrupt(self.structure, self.where, field, f"{expected:#x}", f"{found:#x}")

    def v5(self, prefix: str, crc: bytes, crc_offset: int, uuid: bytes) -> None:
        want, found = stored_crc(crc), self.block.checksum(crc_offset)
        self.need(want == found, f"{prefix}_crc", want, found)
        if uuid != self.geo.meta_uuid:
            raise Corrupt(self.structure, self.where, f"{prefix}_uuid", self.geo.meta_uuid.hex(), uuid.hex())

    def length(self, field: str, found: int) -> None:
        # as the kernel: all AGs are alike but the last, which may be shorter
        geo = self.geo
        if found != geo.ag_blocks:
            last = self.agno == geo.ag_count - 1
            self.need(last and MIN_AG_BLOCKS <= found < geo.ag_blocks, field, geo.ag_size_blocks(self.agno), found)

    def root(self, field: str, root: int, level_field: str, level: int, length: int) -> None:
        self.need(1 <= level <= AG_MAX_LEVELS, level_field, f"1 to {AG_MAX_LEVELS}", level)
        low = self.geo.ag_header_blocks
        self.need(low <= root < length, field, f"a block from {low} to {length - 1}", root)


def verify_agf(block: Block, geo: Geometry) -> None:
    """Raise `Corrupt` unless this is a believable AGF (xfs_agf_verify)."""
    judge = _Judge("AGF", block, geo)
    need = judge.need
    agf = AGF.decode(block)
    judge.magic("agf_magicnum", XFS_AGF_MAGIC, agf.agf_magicnum)
    if geo.has_crc:
        judge.v5("agf", AGF_TAIL.decode(block, AGF_TAIL_OFFSET).agf_crc, AGF_CRC_OFFSET, agf.agf_uuid)
    need(agf.agf_versionnum == AG_VERSION, "agf_versionnum", AG_VERSION, agf.agf_versionnum)
    need(agf.agf_seqno == judge.agno, "agf_seqno", judge.agno, agf.agf_seqno)
    length = agf.agf_length
    judge.length("agf_length", length)
    slots = agfl_size(geo)
    need(agf.agf_flfirst < slots, "agf_flfirst", f"below {slots}", agf.agf_flfirst)
    need(agf.agf_fllast < slots, "agf_fllast", f"below {slots}", agf.agf_fllast)
    need(agf.agf_flcount <= slots, "agf_flcount", f"at most {slots}", agf.agf_flcount)
    need(agf.agf_freeblks <= length, "agf_freeblks", f"at most {length}", agf.agf_freeblks)
    need(agf.agf_longest <= agf.agf_freeblks, "agf_longest", f"at most {agf.agf_freeblks}", agf.agf_longest)
    judge.root("agf_bno_root", agf.agf_bno_root, "agf_bno_level", agf.agf_bno_level, length)
    judge.root("agf_cnt_root", agf.agf_cnt_root, "agf_cnt_level", agf.agf_cnt_level, length)
    if geo.lazy_count:
        need(agf.agf_btreeblks <= length, "agf_btreeblks", f"at most {length}", agf.agf_btreeblks)
    if geo.has_rmapbt:
        judge.root("agf_rmap_root", agf.agf_rmap_root, "agf_rmap_level", agf.agf_rmap_level, length)
        need(agf.agf_rmap_blocks <= length, "agf_rmap_blocks", f"at most {length}", agf.agf_rmap_blocks)
    if geo.has_reflink:
        judge.root("agf_refcount_root", agf.agf_refcount_root, "agf_refcount_level", agf.agf_refcount_level, length)
        need(agf.agf_refcount_blocks <= length, "agf_refcount_blocks", f"at most {length}", agf.agf_refcount_blocks)


def verify_agi(block: Block, geo: Geometry) -> None:
    """Raise `Corrupt` unless this is a believable AGI (xfs_agi_verify)."""
    judge = _Judge("AGI", block, geo)
    need = judge.need
    agi = AGI.decode(block)
    tail = AGI_TAIL.decode(block, AGI_TAIL_OFFSET)
    judge.magic("agi_magicnum", XFS_AGI_MAGIC, agi.agi_magicnum)
    if geo.has_crc:
        judge.v5("agi", tail.agi_crc, AGI_CRC_OFFSET, tail.agi_uuid)
    need(agi.agi_versionnum == AG_VERSION, "agi_versionnum", AG_VERSION, agi.agi_versionnum)
    need(agi.agi_seqno == judge.agno, "agi_seqno", judge.agno, agi.agi_seqno)
    length = agi.agi_length
    judge.length("agi_length", length)
    inodes = length << geo.inopblog
    need(agi.agi_count <= inodes, "agi_count", f"at most {inodes}", agi.agi_count)
    need(agi.agi_freecount <= agi.agi_count, "agi_freecount", f"at most {agi.agi_count}", agi.agi_freecount)
    judge.root("agi_root", agi.agi_root, "agi_level", agi.agi_level, length)
    if geo.has_finobt:
        judge.root("agi_free_root", tail.agi_free_root, "agi_free_level", tail.agi_free_level, length)
    if geo.has_inobtcnt:
        need(tail.agi_iblocks <= length, "agi_iblocks", f"at most {length}", tail.agi_iblocks)
        need(tail.agi_fblocks <= length, "agi_fblocks", f"at most {length}", tail.agi_fblocks)
    first, end = geo.ag_header_blocks << geo.inopblog, length << geo.inopblog
    for bucket, agino in enumerate(unlinked_buckets(block)):
        if agino != NULL_AGINO and not first <= agino < end:
            need(False, f"agi_unlinked[{bucket}]", "none, or an inode of this AG", agino)


def verify_agfl(block: Block, geo: Geometry) -> None:
    """Raise `Corrupt` unless this is a believable AGFL (xfs_agfl_verify); a V4 one cannot be judged."""
    if not geo.has_crc:
        return
    judge = _Judge("AGFL", block, geo)
    head = AGFL.decode(block)
    judge.magic("agfl_magicnum", XFS_AGFL_MAGIC, head.agfl_magicnum)
    judge.v5("agfl", head.agfl_crc, AGFL_CRC_OFFSET, head.agfl_uuid)
    judge.need(head.agfl_seqno == judge.agno, "agfl_seqno", judge.agno, head.agfl_seqno)
    length = geo.ag_size_blocks(judge.agno)
    for slot, agb in enumerate(agfl_slots(block, geo)):
        if agb != NULL_AGBLOCK and agb >= length:
            judge.need(False, f"agfl_bno[{slot}]", f"none, or a block below {length}", agb)


def unlinked_buckets(block: Block) -> tuple[int, ...]:
    """Heads of the 64 unlinked lists of an AGI; NULL_AGINO where empty."""
    return block.unpack(AGI_UNLINKED, AGI_UNLINKED_OFFSET)


def agfl_slots(block: Block, geo: Geometry) -> tuple[int, ...]:
    """All entries of an AGFL, in use or not."""
    return block.unpack(Struct(f">{agfl_size(geo)}I"), AGFL.size if geo.has_crc else 0)


def agfl_active(agf: Agf, slots: tuple[int, ...]) -> list[int]:
    """The blocks that an AG keeps for its free-space trees: `agf_flcount` entries from `agf_flfirst`, round the end."""
    size = len(slots)
    return [slots[(agf.agf_flfirst + i) % size] for i in range(agf.agf_flcount)]
