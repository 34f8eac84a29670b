"""B+tree blocks: headers, a description of each tree, and what makes a block believable.

Format document: "B+trees" and the chapter of each tree; kernel: xfs_format.h, xfs_btree.c.  A block is a header, then
records (level 0), or keys and then pointers, which begin where the largest possible number of keys would end.  The
trees of free space, inodes, reverse map and reference counts have 32-bit pointers within their AG; those rooted in an
inode have 64-bit ones.  Interior blocks of the reverse maps carry two keys a pointer, the lowest and the highest below.

Everything that a block alone can show is judged here, once when it is read: magic, CRC, UUID, own address, owner AG,
level, count, siblings, order and range of records and keys.  What needs its neighbours (owner inode, level below the
parent's, order between blocks) is judged by `btree.engine` on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import add, le, lt
from struct import Struct
from typing import Any

from ..errors import Corrupt
from .block import Block
from .geometry import NULL_AGBLOCK, Geometry
from .layout import stored_crc

#: magic level numrecs leftsib rightsib
SHORT4 = Struct(">IHHII")
LONG4 = Struct(">IHHQQ")
#: ... blkno lsn uuid owner crc
SHORT5 = Struct(">IHHIIQQ16sI4s")
LONG5 = Struct(">IHHQQQQ16sQ4s4x")
SHORT5_CRC_OFFSET, LONG5_CRC_OFFSET = 52, 64
#: level numrecs: the header of a root that lies in an inode (xfs_bmdr_block and its like).
IROOT = Struct(">HH")
assert (SHORT4.size, LONG4.size, SHORT5.size, LONG5.size, IROOT.size) == (16, 24, 56, 72, 4)

PTR32, PTR64 = Struct(">I"), Struct(">Q")
NULL_FSBLOCK = (1 << 64) - 1
#: Higher than any tree of 64-bit pointers that can be built; the kernel's own bound differs by geometry.
LONG_MAX_LEVELS = 16
SHORT_MAX_LEVELS = 9

#: A refcount record whose start has this bit is a staging extent of copy on write.
REFC_COWFLAG = 1 << 31
INODES_PER_CHUNK = 64
BLOCKCOUNT_MASK = (1 << 21) - 1
STARTOFF_MASK = (1 << 54) - 1
RMAP_OFFSET_MASK = (1 << 54) - 1
#: Flags of a decoded reverse mapping, from the top of rm_offset.
RMAP_UNWRITTEN, RMAP_BMBT_BLOCK, RMAP_ATTR_FORK = 1, 2, 4
_RMAP_UNWRITTEN_BIT = 1 << 61

#: rm_owner where it is no inode: XFS_RMAP_OWN_FS and so on.
RMAP_OWNERS = {
    (1 << 64) - 3: "fs", (1 << 64) - 4: "log", (1 << 64) - 5: "ag", (1 << 64) - 6: "inobt",
    (1 << 64) - 7: "inodes", (1 << 64) - 8: "refcount", (1 << 64) - 9: "cow",
}  # fmt: skip

Raw = tuple[Any, ...]
#: What keys are compared as.
Key = Any


class Place:
    """Where a block under judgement stands, and how far its records may reach.  `limit` is the first block past it."""

    __slots__ = ("agno", "geo", "limit", "low", "tree", "where")

    def __init__(self, tree: Tree, where: str, agno: int, low: int, limit: int, geo: Geometry) -> None:
        self.tree, self.where, self.agno, self.geo = tree, where, agno, geo
        self.low, self.limit = low, limit

    def bad(self, field: str, expected: object = None, found: object = None) -> Corrupt:
        return Corrupt(self.tree.name, self.where, field, expected, found)


class Tree:
    """All that the engine needs to know about one kind of tree.

    `rec_key` and `node_key` turn an unpacked record or key into what is compared; `judge` checks the raw records of a
    leaf, `follows` whether one record may come right after another, `decode` turns the bytes of records into values.
    """

    __slots__ = (
        "decode", "follows", "is_long", "judge", "key", "kind", "magic4", "magic5", "max_levels", "name", "node_key",
        "node_key_bytes", "ptr", "ptr_bytes", "rec", "rec_bytes", "rec_key", "repeats",
    )  # fmt: skip

    def __init__(
        self, name: str, magic4: int, magic5: int, *, is_long: bool, rec: Struct, key: Struct,
        rec_key: Callable[[Raw], Key], node_key: Callable[[Raw], Key], follows: Callable[[Raw, Raw], bool],
        judge: Callable[[Sequence[Raw], Place], None], decode: Callable[[memoryview | bytes, Geometry], Iterable[Raw]],
        two_keys: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.kind, self.magic4, self.magic5 = f"{name} block", name, magic4, magic5
        self.is_long, self.rec, self.key = is_long, rec, key
        self.rec_key, self.node_key, self.follows, self.judge, self.decode = rec_key, node_key, follows, judge, decode
        self.rec_bytes = rec.size
        self.node_key_bytes = key.size * (2 if two_keys else 1)
        self.ptr = PTR64 if is_long else PTR32
        self.ptr_bytes = self.ptr.size
        self.max_levels = LONG_MAX_LEVELS if is_long else SHORT_MAX_LEVELS
        #: Keys of an interior block may repeat: reverse mappings that begin at one block.
        self.repeats = two_keys

    def header_bytes(self, geo: Geometry) -> int:
        """Length of the header."""
        if self.is_long:
            return 72 if geo.has_crc else 24
        return 56 if geo.has_crc else 16

    def maxrecs(self, room: int, level: int) -> int:
        """Records, or keys with pointers, that fit `room` bytes after a header."""
        return room // (self.node_key_bytes + self.ptr_bytes) if level else room // self.rec_bytes

    def verify(self, block: Block, geo: Geometry) -> None:
        """Judge a block by itself.  Raises `Corrupt`."""
        (verify_long if self.is_long else verify_short)(self, block, geo)

    def __repr__(self) -> str:
        return f"<Tree {self.kind}>"


# -- verifiers -------------------------------------------------------------------------------------------------


def verify_short(tree: Tree, block: Block, geo: Geometry) -> None:
    """xfs_btree_sblock_verify and the rest of what one block of an AG's tree shows."""
    agno, agb = divmod(block.daddr >> geo.block_sectors_log, geo.ag_blocks)
    length = geo.ag_size_blocks(agno)
    low = geo.ag_header_blocks
    place = Place(tree, f"AG {agno} block {agb}", agno, low, length, geo)
    if geo.has_crc:
        magic, level, numrecs, left, right, blkno, _, uuid, owner, crc = block.unpack(SHORT5, 0)
        _judge_magic(place, tree.magic5, magic)
        _judge_v5(place, block, SHORT5_CRC_OFFSET, crc, uuid, blkno)
        if owner != agno:
            raise place.bad("owner", f"AG {agno}", owner)
    else:
        magic, level, numrecs, left, right = block.unpack(SHORT4, 0)
        _judge_magic(place, tree.magic4, magic)
    for field, sibling in (("leftsib", left), ("rightsib", right)):
        if sibling != NULL_AGBLOCK and (sibling == agb or not low <= sibling < length):
            raise place.bad(field, f"none, or another block from {low} to {length - 1}", sibling)
    _judge_content(place, block, level, numrecs)


def verify_long(tree: Tree, block: Block, geo: Geometry) -> None:
    """xfs_btree_lblock_verify and the rest of what one block of an inode's tree shows; the owner needs the inode."""
    fsb = geo.daddr_to_fsb(block.daddr)
    agno, agb = geo.split_fsb(fsb)
    # records name blocks of the device, or of a realtime group
    limit = geo.rgroup_blocks if tree is not BMBT else 0
    place = Place(tree, f"AG {agno} block {agb}", agno, 0, limit, geo)
    if geo.has_crc:
        magic, level, numrecs, left, right, blkno, _, uuid, _, crc = block.unpack(LONG5, 0)
        _judge_magic(place, tree.magic5, magic)
        _judge_v5(place, block, LONG5_CRC_OFFSET, crc, uuid, blkno)
    else:
        magic, level, numrecs, left, right = block.unpack(LONG4, 0)
        _judge_magic(place, tree.magic4, magic)
    for field, sibling in (("leftsib", left), ("rightsib", right)):
        if sibling != NULL_FSBLOCK and (sibling == fsb or not geo.fsb_valid(sibling)):
            raise place.bad(field, "none, or another block of the filesystem", sibling)
    _judge_content(place, block, level, numrecs)


def _judge_magic(place: Place, expected: int, found: int) -> None:
    if found != expected or not expected:
        raise place.bad("magic", f"{expected:#x}", f"{found:#x}")


def _judge_v5(place: Place, block: Block, crc_offset: int, crc: bytes, uuid: bytes, blkno: int) -> None:
    want, found = stored_crc(crc), block.checksum(crc_offset)
    if want != found:
        raise place.bad("crc", want, found)
    if uuid != place.geo.meta_uuid:
        raise place.bad("uuid", place.geo.meta_uuid.hex(), uuid.hex())
    if blkno != block.daddr:
        raise place.bad("blkno", block.daddr, blkno)


def _judge_content(place: Place, block: Block, level: int, numrecs: int) -> None:
    tree = place.tree
    if level >= tree.max_levels:
        raise place.bad("level", f"below {tree.max_levels}", level)
    base = tree.header_bytes(place.geo)
    most = tree.maxrecs(block.nbytes - base, level)
    if numrecs > most:
        raise place.bad("numrecs", f"at most {most}", numrecs)
    if level == 0:
        judge_records(place, block.view(base, numrecs * tree.rec_bytes))
    elif numrecs == 0:
        raise place.bad("numrecs", "at least 1 above the leaves", 0)
    else:
        judge_keys(place, block.view(base, numrecs * tree.node_key_bytes))


def judge_records(place: Place, data: memoryview | bytes) -> None:
    """Order and range of the records of a leaf."""
    place.tree.judge(list(place.tree.rec.iter_unpack(data)), place)


def judge_keys(place: Place, data: memoryview | bytes) -> None:
    """Order of the keys of an interior block; of two keys the high one is not below the low one."""
    tree = place.tree
    keys = [tree.node_key(key) for key in tree.key.iter_unpack(data)]
    if tree.repeats:
        highs = keys[1::2]
        keys = keys[::2]
        for index, (low, high) in enumerate(zip(keys, highs, strict=True)):
            if high[0] < low[0]:
                raise place.bad(f"high key {index}", f"not below its low key {low}", high)
    if not all(map(le if tree.repeats else lt, keys, keys[1:])):
        _first_unordered(place, "key", keys, tree.repeats)


def _first_unordered(place: Place, what: str, keys: Sequence[Any], may_repeat: bool) -> None:
    for index in range(1, len(keys)):
        before, this = keys[index - 1], keys[index]
        if this < before or (this == before and not may_repeat):
            raise place.bad(f"order of {what} {index}", f"after {before}", this)


def _extents(place: Place, starts: Sequence[int], counts: Sequence[int], low: int, limit: int) -> list[int]:
    """Every extent at least a block and within [low, limit); returns where each ends."""
    ends = list(map(add, starts, counts))
    if min(counts) <= 0 or min(starts) < low or max(ends) > limit:
        for index, (start, count) in enumerate(zip(starts, counts, strict=True)):
            if count <= 0 or start < low or start + count > limit:
                raise place.bad(f"record {index}", f"blocks from {low} to {limit - 1}", f"{start}+{count}")
    return ends


def _apart(place: Place, starts: Sequence[int], ends: Sequence[int]) -> None:
    """Each extent begins where the one before it ends, or later."""
    if not all(map(le, ends, starts[1:])):
        for index in range(1, len(starts)):
            if starts[index] < ends[index - 1]:
                raise place.bad(f"order of record {index}", f"a start of at least {ends[index - 1]}", starts[index])


def _judge_bno(records: Sequence[Raw], place: Place) -> None:
    if records:
        starts, counts = zip(*records, strict=True)
        _apart(place, starts, _extents(place, starts, counts, place.low, place.limit))


def _judge_cnt(records: Sequence[Raw], place: Place) -> None:
    if records:
        starts, counts = zip(*records, strict=True)
        _extents(place, starts, counts, place.low, place.limit)
        keys = list(zip(counts, starts, strict=True))
        if not all(map(lt, keys, keys[1:])):
            _first_unordered(place, "record", keys, False)


def _judge_ino(records: Sequence[Raw], place: Place) -> None:
    geo = place.geo
    low, limit = place.low << geo.inopblog, place.limit << geo.inopblog
    step = min(geo.inopblock, INODES_PER_CHUNK) - 1
    end = low
    for index, (startino, holemask, count, freecount, free) in enumerate(decode_inobt(records, geo)):
        if startino < end or startino & step or startino + INODES_PER_CHUNK > limit:
            raise place.bad(f"startino of record {index}", f"aligned, from {end} to {limit}", startino)
        end = startino + INODES_PER_CHUNK
        if holemask:
            if count != INODES_PER_CHUNK - (holemask.bit_count() << 2):
                raise place.bad(f"count of record {index}", f"what holemask {holemask:#x} leaves", count)
            free &= _present(holemask)
        elif count != INODES_PER_CHUNK:
            raise place.bad(f"count of record {index}", INODES_PER_CHUNK, count)
        if free.bit_count() != freecount:
            raise place.bad(f"freecount of record {index}", free.bit_count(), freecount)


def _present(holemask: int) -> int:
    """Bits of the inodes that a sparse chunk has: each bit of the mask stands for four that it has not."""
    mask = 0
    for bit in range(16):
        if not holemask >> bit & 1:
            mask |= 0xF << (bit << 2)
    return mask


def _judge_rmap(records: Sequence[Raw], place: Place) -> None:
    if records:
        starts, counts, _, _ = zip(*records, strict=True)
        # the AG's own headers are mapped too, so the lowest block is 0
        _extents(place, starts, counts, 0, place.limit)
        keys = list(map(_rmap_key, records))
        if not all(map(le, keys, keys[1:])):
            _first_unordered(place, "record", keys, True)


def _judge_refc(records: Sequence[Raw], place: Place) -> None:
    if records:
        starts, counts, _ = zip(*records, strict=True)
        blocks = [start & ~REFC_COWFLAG for start in starts]
        _extents(place, blocks, counts, place.low, place.limit)
        _apart(place, starts, list(map(add, starts, counts)))
        for index, (start, _, refcount) in enumerate(records):
            if (refcount != 1) if start & REFC_COWFLAG else (refcount < 2):
                raise place.bad(f"refcount of record {index}", "1 if staging, else at least 2", refcount)


def _judge_bmap(records: Sequence[Raw], place: Place) -> None:
    if records:
        starts = [hi >> 9 & STARTOFF_MASK for hi, _ in records]
        counts = [lo & BLOCKCOUNT_MASK for _, lo in records]
        if not min(counts):
            raise place.bad(f"blockcount of record {counts.index(0)}", "at least 1", 0)
        _apart(place, starts, list(map(add, starts, counts)))


# -- decoding --------------------------------------------------------------------------------------------------


def decode_inobt(raw: Iterable[Raw], geo: Geometry) -> Iterable[Raw]:
    """(startino, holemask, count, freecount, free): without sparse chunks the middle word is the free count alone."""
    if geo.has_sparse:
        return ((start, word >> 16, word >> 8 & 0xFF, word & 0xFF, free) for start, word, free in raw)
    return ((start, 0, INODES_PER_CHUNK, word, free) for start, word, free in raw)


def _decode_ino(data: memoryview | bytes, geo: Geometry) -> Iterable[Raw]:
    return decode_inobt(_INO_REC.iter_unpack(data), geo)


def _decode_rmap(data: memoryview | bytes, geo: Geometry) -> Iterable[Raw]:
    """(startblock, blockcount, owner, offset, flags)."""
    return (
        (start, count, owner, offset & RMAP_OFFSET_MASK, offset >> 61)
        for start, count, owner, offset in _RMAP_REC.iter_unpack(data)
    )


def _decode_refc(data: memoryview | bytes, geo: Geometry) -> Iterable[Raw]:
    """(startblock, blockcount, refcount, staging)."""
    return (
        (start & ~REFC_COWFLAG, count, refcount, start >> 31 == 1)
        for start, count, refcount in _REFC_REC.iter_unpack(data)
    )


def _decode_bmap(data: memoryview | bytes, geo: Geometry) -> Iterable[Raw]:
    """(startoff, startblock, blockcount, unwritten)."""
    return (
        (hi >> 9 & STARTOFF_MASK, (hi & 0x1FF) << 43 | lo >> 21, lo & BLOCKCOUNT_MASK, hi >> 63 == 1)
        for hi, lo in _BMAP_REC.iter_unpack(data)
    )


def _rmap_key(raw: Raw) -> Key:
    # the unwritten flag is no part of the key: it changes without the record moving
    return (raw[0], raw[-2], raw[-1] & ~_RMAP_UNWRITTEN_BIT)


def _first(raw: Raw) -> Key:
    return raw[0]


def _extent_follows(before: Raw, after: Raw) -> bool:
    return bool(before[0] + before[1] <= after[0])


# -- the trees -------------------------------------------------------------------------------------------------

_ALLOC_REC = Struct(">II")
_INO_REC = Struct(">IIQ")
_RMAP_REC = Struct(">IIQQ")
_RMAP_KEY = Struct(">IQQ")
_REFC_REC = Struct(">III")
_BMAP_REC = Struct(">QQ")
assert (_INO_REC.size, _RMAP_REC.size, _RMAP_KEY.size, _REFC_REC.size, _BMAP_REC.size) == (16, 24, 20, 12, 16)


def _decode_alloc(data: memoryview | bytes, geo: Geometry) -> Iterable[Raw]:
    """(startblock, blockcount)."""
    return _ALLOC_REC.iter_unpack(data)


def _count_start(raw: Raw) -> Key:
    return (raw[1], raw[0])


def _count_follows(before: Raw, after: Raw) -> bool:
    return (before[1], before[0]) < (after[1], after[0])


def _chunk_follows(before: Raw, after: Raw) -> bool:
    return bool(before[0] + INODES_PER_CHUNK <= after[0])


def _rmap_follows(before: Raw, after: Raw) -> bool:
    return bool(_rmap_key(before) <= _rmap_key(after))


def _bmap_follows(before: Raw, after: Raw) -> bool:
    end = (before[0] >> 9 & STARTOFF_MASK) + (before[1] & BLOCKCOUNT_MASK)
    return bool(end <= after[0] >> 9 & STARTOFF_MASK)


def _startoff(raw: Raw) -> Key:
    return raw[0] >> 9 & STARTOFF_MASK


BNOBT = Tree(
    "bnobt", 0x41425442, 0x41423342, is_long=False, rec=_ALLOC_REC, key=_ALLOC_REC, rec_key=_first, node_key=_first,
    follows=_extent_follows, judge=_judge_bno, decode=_decode_alloc,
)  # fmt: skip
CNTBT = Tree(
    "cntbt", 0x41425443, 0x41423343, is_long=False, rec=_ALLOC_REC, key=_ALLOC_REC, rec_key=_count_start,
    node_key=_count_start, follows=_count_follows, judge=_judge_cnt, decode=_decode_alloc,
)  # fmt: skip
INOBT = Tree(
    "inobt", 0x49414254, 0x49414233, is_long=False, rec=_INO_REC, key=PTR32, rec_key=_first, node_key=_first,
    follows=_chunk_follows, judge=_judge_ino, decode=_decode_ino,
)  # fmt: skip
FINOBT = Tree(
    "finobt", 0x46494254, 0x46494233, is_long=False, rec=_INO_REC, key=PTR32, rec_key=_first, node_key=_first,
    follows=_chunk_follows, judge=_judge_ino, decode=_decode_ino,
)  # fmt: skip
RMAPBT = Tree(
    "rmapbt", 0, 0x524D4233, is_long=False, rec=_RMAP_REC, key=_RMAP_KEY, rec_key=_rmap_key, node_key=_rmap_key,
    follows=_rmap_follows, judge=_judge_rmap, decode=_decode_rmap, two_keys=True,
)  # fmt: skip
REFCOUNTBT = Tree(
    "refcountbt", 0, 0x52334643, is_long=False, rec=_REFC_REC, key=PTR32, rec_key=_first, node_key=_first,
    follows=_extent_follows, judge=_judge_refc, decode=_decode_refc,
)  # fmt: skip
BMBT = Tree(
    "bmbt", 0x424D4150, 0x424D4133, is_long=True, rec=_BMAP_REC, key=PTR64, rec_key=_startoff, node_key=_first,
    follows=_bmap_follows, judge=_judge_bmap, decode=_decode_bmap,
)  # fmt: skip
RTRMAPBT = Tree(
    "rtrmapbt", 0, 0x4D415052, is_long=True, rec=_RMAP_REC, key=_RMAP_KEY, rec_key=_rmap_key, node_key=_rmap_key,
    follows=_rmap_follows, judge=_judge_rmap, decode=_decode_rmap, two_keys=True,
)  # fmt: skip
RTREFCOUNTBT = Tree(
    "rtrefcountbt", 0, 0x52434E54, is_long=True, rec=_REFC_REC, key=PTR32, rec_key=_first, node_key=_first,
    follows=_extent_follows, judge=_judge_refc, decode=_decode_refc,
)  # fmt: skip
TREES = (BNOBT, CNTBT, INOBT, FINOBT, RMAPBT, REFCOUNTBT, BMBT, RTRMAPBT, RTREFCOUNTBT)
