"""The dabtree: node blocks and the headers that directory leaves and attribute leaves share.

Format document: "Directories" (node and leaf directories) and "Extended Attributes"; kernel: xfs_da_format.h.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from ..errors import Corrupt
from .block import Block
from .geometry import Geometry

XFS_DA_NODE_MAGIC, XFS_DA3_NODE_MAGIC = 0xFEBE, 0x3EBE
XFS_DIR2_LEAF1_MAGIC, XFS_DIR3_LEAF1_MAGIC = 0xD2F1, 0x3DF1
XFS_DIR2_LEAFN_MAGIC, XFS_DIR3_LEAFN_MAGIC = 0xD2FF, 0x3DFF
XFS_ATTR_LEAF_MAGIC, XFS_ATTR3_LEAF_MAGIC = 0xFBEE, 0x3BEE
NODE_MAGICS = (XFS_DA_NODE_MAGIC, XFS_DA3_NODE_MAGIC)
DIR_LEAF_MAGICS = (XFS_DIR2_LEAF1_MAGIC, XFS_DIR3_LEAF1_MAGIC, XFS_DIR2_LEAFN_MAGIC, XFS_DIR3_LEAFN_MAGIC)
ATTR_LEAF_MAGICS = (XFS_ATTR_LEAF_MAGIC, XFS_ATTR3_LEAF_MAGIC)
#: More levels than any tree of 2^32 blocks needs; the kernel's own bound.
MAX_DEPTH = 5

#: forw back magic
BLKINFO = Struct(">IIH2x")
#: forw back magic crc blkno lsn uuid owner
BLKINFO3 = Struct(">IIH2x4sQQ16sQ")
CRC_OFFSET = 12
#: In both versions: two 16-bit numbers after the header proper (count, and level or stale).
COUNTS = Struct(">HH")
#: hash, and an address (leaf) or a block below (node)
PAIR = Struct(">II")


class DaHeader(NamedTuple):
    """What every dabtree block says of itself.

    `nentries` is what the disk calls count; `second` is the level of a node, the stale count of a leaf.
    """

    magic: int
    forw: int
    back: int
    owner: int | None
    nentries: int
    second: int
    first_entry: int


def header(block: Block, geo: Geometry) -> DaHeader:
    """The header of a node or leaf block, both versions."""
    if geo.has_crc:
        forw, back, magic, _crc, _blkno, _lsn, _uuid, owner = block.unpack(BLKINFO3, 0)
        count, second = block.unpack(COUNTS, 56)
        return DaHeader(magic, forw, back, owner, count, second, 64)
    forw, back, magic = block.unpack(BLKINFO, 0)
    count, second = block.unpack(COUNTS, 12)
    return DaHeader(magic, forw, back, None, count, second, 16)


def verify_common(block: Block, geo: Geometry, structure: str) -> None:
    """CRC, own address and UUID of a V5 block; nothing to check on V4."""
    if not geo.has_crc:
        return
    _forw, _back, _magic, crc, blkno, _lsn, uuid, _owner = block.unpack(BLKINFO3, 0)
    where = f"daddr {block.daddr:#x}"
    stored, found = int.from_bytes(crc, "little"), block.checksum(CRC_OFFSET)
    if stored != found:
        raise Corrupt(structure, where, "crc", stored, found)
    if blkno != block.daddr:
        raise Corrupt(structure, where, "blkno", block.daddr, blkno)
    if uuid != geo.meta_uuid:
        raise Corrupt(structure, where, "uuid", geo.meta_uuid.hex(), uuid.hex())


def _magic(block: Block) -> int:
    return int(block.unpack(BLKINFO, 0)[2])


def verify_dir_da(block: Block, geo: Geometry) -> None:
    """A block of a directory's index: node, or leaf of either form."""
    magic = _magic(block)
    wanted = (
        (XFS_DA3_NODE_MAGIC, XFS_DIR3_LEAF1_MAGIC, XFS_DIR3_LEAFN_MAGIC)
        if geo.has_crc
        else (XFS_DA_NODE_MAGIC, XFS_DIR2_LEAF1_MAGIC, XFS_DIR2_LEAFN_MAGIC)
    )
    if magic not in wanted:
        raise Corrupt("directory index block", f"daddr {block.daddr:#x}", "magic", "a node or leaf", f"{magic:#x}")
    verify_common(block, geo, "directory index block")
    _verify_counts(block, geo, "directory index block")


def verify_attr_node(block: Block, geo: Geometry) -> None:
    """A node of an attribute tree."""
    verify_common(block, geo, "attribute node")
    _verify_counts(block, geo, "attribute node")


def _verify_counts(block: Block, geo: Geometry, structure: str) -> None:
    head = header(block, geo)
    where = f"daddr {block.daddr:#x}"
    room = block.nbytes - head.first_entry
    if head.magic in (XFS_DIR2_LEAF1_MAGIC, XFS_DIR3_LEAF1_MAGIC):
        (bests,) = block.unpack(_U32, block.nbytes - 4)
        room -= 4 + 2 * bests
    if head.nentries * 8 > room or room < 0:
        raise Corrupt(structure, where, "count", f"at most {max(room, 0) >> 3}", head.nentries)
    if head.magic in NODE_MAGICS:
        if not 1 <= head.second < MAX_DEPTH:
            raise Corrupt(structure, where, "level", f"1 to {MAX_DEPTH - 1}", head.second)
        if head.nentries == 0:
            raise Corrupt(structure, where, "count", "at least 1", 0)
    elif head.second > head.nentries:
        raise Corrupt(structure, where, "stale", f"at most {head.nentries}", head.second)


_U32 = Struct(">I")


def pair(block: Block, first_entry: int, index: int) -> tuple[int, int]:
    """Entry `index` of a node or a directory leaf: (hash, block or address)."""
    hashval, value = block.unpack(PAIR, first_entry + 8 * index)
    return hashval, value


def lower_bound(block: Block, first_entry: int, count: int, wanted: int) -> int:
    """Index of the first entry whose hash is not below `wanted`; `count` where there is none."""
    low, high = 0, count
    unpack, layout = block.unpack, PAIR
    while low < high:
        middle = (low + high) >> 1
        if unpack(layout, first_entry + 8 * middle)[0] < wanted:
            low = middle + 1
        else:
            high = middle
    return low
