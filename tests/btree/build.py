"""Write B+trees by hand: any tree, either version, any fan-out, over a device in memory."""

from __future__ import annotations

import struct
from typing import get_type_hints

from pocketxfs.btree.engine import AgBtree, InodeBtree
from pocketxfs.buffer import BufferCache, BufferOps
from pocketxfs.device import Device
from pocketxfs.format import btree as fmt
from pocketxfs.format import features
from pocketxfs.format.block import checksum
from pocketxfs.format.geometry import Geometry
from pocketxfs.format.superblock import Superblock
from pocketxfs.memory import Machine, profile

UUID = bytes(range(16))
AG_BLOCKS = 1 << 15
AG_COUNT = 2
AGNO = 1
INO = 0x1234
RG_EXTENTS = 1 << 12


def make_geo(block_log=10, v5=True, inode_log=None, sparse=True):
    """A geometry from a superblock that only has what it needs."""
    hints = get_type_hints(Superblock)
    sizes = {"sb_fname": 12, "sb_crc": 4}
    fields = {name: bytes(sizes.get(name, 16)) if kind is bytes else 0 for name, kind in hints.items()}
    inode_log = inode_log or (9 if v5 else 8)
    ro = features.RO_FINOBT | features.RO_RMAPBT | features.RO_REFLINK | features.RO_INOBTCNT
    incompat = features.IN_FTYPE | features.IN_METADIR | (features.IN_SPINODES if sparse else 0)
    fields.update(
        sb_magicnum=0x58465342, sb_blocksize=1 << block_log, sb_blocklog=block_log, sb_sectsize=512, sb_sectlog=9,
        sb_inodesize=1 << inode_log, sb_inodelog=inode_log, sb_inopblock=1 << (block_log - inode_log),
        sb_inopblog=block_log - inode_log, sb_agblocks=AG_BLOCKS, sb_agcount=AG_COUNT,
        sb_agblklog=AG_BLOCKS.bit_length() - 1, sb_dblocks=AG_BLOCKS * AG_COUNT, sb_versionnum=5 if v5 else 4,
        sb_uuid=UUID, sb_rblocks=RG_EXTENTS * 4, sb_rextsize=1, sb_rgextents=RG_EXTENTS, sb_rgblklog=12,
        sb_features_ro_compat=ro if v5 else 0, sb_features_incompat=incompat if v5 else 0,
    )  # fmt: skip
    return Geometry(Superblock(**fields))


def key_of(tree, record):
    """The low key of a raw record, raw."""
    if tree.key is tree.rec:
        return record
    if tree is fmt.RMAPBT or tree is fmt.RTRMAPBT:
        return (record[0], record[2], record[3] & ~(1 << 61))
    if tree is fmt.BMBT:
        return (record[0] >> 9 & fmt.STARTOFF_MASK,)
    return (record[0],)


def high_of(record):
    return (record[0] + record[1] - 1, record[2], record[3] & ~(1 << 61))


class Slice(Device):
    """A large device with some bytes from `start` on, and zeros elsewhere."""

    __slots__ = ("data", "start")

    def __init__(self, size_bytes, start, data):
        super().__init__("slice", size_bytes)
        self.start, self.data = start, data

    def pread_into(self, offset_bytes, segments):
        at = offset_bytes - self.start
        for segment in segments:
            self.check_range(at + self.start, len(segment))
            inside = self.data[at : at + len(segment)] if at >= 0 else b""
            segment[:] = bytes(inside) + bytes(len(segment) - len(inside))
            at += len(segment)

    def pwrite(self, offset_bytes, data):
        raise AssertionError("read only")

    def close(self):
        pass


class Disk:
    """The beginning of one AG, full of zeros and whatever trees are put on it."""

    def __init__(self, geo, first_block=16, nblocks=512):
        self.geo = geo
        self.start = geo.agb_to_daddr(AGNO, 0) << 9
        self.data = bytearray(nblocks << geo.block_log)
        self.next = first_block
        #: (tree, block number) of each block, by level, in order
        self.made = {}

    def offset(self, tree, number):
        daddr = self.geo.fsb_to_daddr(number) if tree.is_long else self.geo.agb_to_daddr(AGNO, number)
        return (daddr << 9) - self.start

    def seal(self, tree, number):
        """Set the CRC to what it should be."""
        if not self.geo.has_crc:
            return
        at = self.offset(tree, number)
        crc_at = fmt.LONG5_CRC_OFFSET if tree.is_long else fmt.SHORT5_CRC_OFFSET
        block = self.data[at : at + self.geo.block_bytes]
        struct.pack_into("<I", self.data, at + crc_at, checksum(block, crc_at))

    def header(self, tree, number, level, numrecs, left, right):
        none = fmt.NULL_FSBLOCK if tree.is_long else 0xFFFFFFFF
        left, right = none if left is None else left, none if right is None else right
        at = self.offset(tree, number)
        magic = tree.magic5 if self.geo.has_crc else tree.magic4
        if not self.geo.has_crc:
            layout = fmt.LONG4 if tree.is_long else fmt.SHORT4
            layout.pack_into(self.data, at, magic, level, numrecs, left, right)
        elif tree.is_long:
            fmt.LONG5.pack_into(
                self.data, at, magic, level, numrecs, left, right, self.start + at >> 9, 7, UUID, INO, b""
            )
        else:
            fmt.SHORT5.pack_into(
                self.data, at, magic, level, numrecs, left, right, self.start + at >> 9, 7, UUID, AGNO, b""
            )
        return at + tree.header_bytes(self.geo)

    def put(self, tree, at, room, level, entries):
        """Records, or (low key, high key, pointer) of each child, where a header ends."""
        if level == 0:
            for i, record in enumerate(entries):
                tree.rec.pack_into(self.data, at + i * tree.rec_bytes, *record)
            return
        ptrs = at + tree.maxrecs(room, level) * tree.node_key_bytes
        for i, (low, high, pointer) in enumerate(entries):
            tree.key.pack_into(self.data, at + i * tree.node_key_bytes, *low)
            if tree.repeats:
                tree.key.pack_into(self.data, at + i * tree.node_key_bytes + tree.key.size, *high)
            tree.ptr.pack_into(self.data, ptrs + i * tree.ptr_bytes, pointer)

    def blocks_of(self, tree, level, entries, fill):
        """Write entries into blocks of `fill` each; returns the entries of the level above."""
        groups = [entries[i : i + fill] for i in range(0, len(entries), fill)] or [[]]
        numbers = list(range(self.next, self.next + len(groups)))
        self.next += len(groups)
        if tree.is_long:
            numbers = [AGNO << self.geo.ag_block_log | number for number in numbers]
        above = []
        for i, (number, group) in enumerate(zip(numbers, groups, strict=True)):
            left = numbers[i - 1] if i else None
            right = numbers[i + 1] if i + 1 < len(numbers) else None
            at = self.header(tree, number, level, len(group), left, right)
            self.put(tree, at, self.geo.block_bytes - tree.header_bytes(self.geo), level, group)
            self.seal(tree, number)
            if group:
                above.append(self.above(tree, level, group, number))
        self.made.setdefault(tree, {})[level] = numbers
        return above, numbers

    def above(self, tree, level, group, number):
        if level:
            highs = [high for _, high, _ in group if high is not None]
            return (group[0][0], max(highs) if highs else None, number)
        high = max(high_of(record) for record in group) if tree.repeats else None
        return (key_of(tree, group[0]), high, number)

    def ag_tree(self, tree, records, leaf_fill=5, node_fill=3):
        """(root block, levels)."""
        entries, numbers = self.blocks_of(tree, 0, list(records), leaf_fill)
        level = 0
        while len(numbers) > 1:
            level += 1
            entries, numbers = self.blocks_of(tree, level, entries, node_fill)
        return numbers[0], level + 1

    def inode_tree(self, tree, records, leaf_fill=5, node_fill=3, fork_bytes=336):
        """The fork."""
        room = fork_bytes - fmt.IROOT.size
        records = list(records)
        fork = bytearray(fork_bytes)
        if tree is not fmt.BMBT and len(records) <= tree.maxrecs(room, 0):
            level, entries = 0, records
        else:
            level = 1
            entries, _ = self.blocks_of(tree, 0, records, leaf_fill)
            while len(entries) > min(node_fill, tree.maxrecs(room, level)):
                entries, _ = self.blocks_of(tree, level, entries, node_fill)
                level += 1
        fmt.IROOT.pack_into(fork, 0, level, len(entries))
        data, self.data = self.data, fork
        self.put(tree, fmt.IROOT.size, room, level, entries)
        self.data = data
        return bytes(fork)

    def cache(self, backing="contiguous", ram=1 << 20):
        machine = Machine(profile("x86_64", ram))
        device = Slice(self.geo.dblocks << self.geo.block_log, self.start, memoryview(bytes(self.data)))
        return BufferCache(machine, device, self.geo, backing)


def ops_of(tree):
    return BufferOps(tree.name, tree.kind, 2, tree.verify)


def open_ag(cache, tree, root, levels):
    return AgBtree(cache, tree, ops_of(tree), AGNO, root, levels)


def open_inode(cache, tree, fork):
    return InodeBtree(cache, tree, ops_of(tree), INO, fork)


def close(cache):
    """Everything given back, nothing held."""
    assert all(buf.holds == 0 for buf in cache._table.values()), "a walk left a buffer held"
    cache.release_all()
    if not cache.backing.maps:
        assert cache.machine.used_bytes == 0
    cache.machine.close()
    assert cache.machine.used_bytes == 0


def sample(tree, count, geo, seed=1):
    """Raw records that a tree may hold."""
    import random

    rng = random.Random(seed)
    records = []
    at = geo.ag_header_blocks
    if tree is fmt.CNTBT:
        starts = [(at + 4 * i, rng.randrange(1, 4)) for i in range(count)]
        return sorted(starts, key=lambda r: (r[1], r[0]))
    if tree in (fmt.INOBT, fmt.FINOBT):
        step = max(64, geo.inopblock)
        first = -(-(geo.ag_header_blocks << geo.inopblog) // step) * step
        for i in range(count):
            free = rng.getrandbits(64)
            if geo.has_sparse and i % 3 == 0:
                holes = rng.choice([0xFF00, 0x00FF, 0x0F0F])
                have = sum(0xF << (4 * b) for b in range(16) if not holes >> b & 1)
                word = holes << 16 | 32 << 8 | (free & have).bit_count()
            elif geo.has_sparse:
                word = 64 << 8 | free.bit_count()
            else:
                word = free.bit_count()
            records.append((first + i * 2 * step, word, free))
        return records
    if tree in (fmt.RMAPBT, fmt.RTRMAPBT):
        at = 0
        for i in range(count):
            length = rng.randrange(1, 4)
            owner = rng.choice([1000 + i, (1 << 64) - 5])
            flags = rng.choice([0, 1 << 61, 1 << 63, 1 << 62])
            records.append((at, length, owner, flags | rng.randrange(1 << 40)))
            if i % 4 == 0:  # shared: another owner of the same blocks
                records.append((at, length, owner, flags & ~(1 << 61) | (1 << 50)))
            at += length if i % 3 else 0
        return sorted(records, key=lambda r: (r[0], r[2], r[3] & ~(1 << 61)))[:count]
    if tree in (fmt.REFCOUNTBT, fmt.RTREFCOUNTBT):
        for i in range(count):
            length = rng.randrange(1, 3)
            staging = i > count * 3 // 4
            records.append((at | (fmt.REFC_COWFLAG if staging else 0), length, 1 if staging else rng.randrange(2, 9)))
            at += length + rng.randrange(2)
        return records
    if tree is fmt.BMBT:
        offset = 0
        for _ in range(count):
            offset += rng.randrange(3)
            length = rng.randrange(1, 4)
            start = AGNO << geo.ag_block_log | rng.randrange(100, AG_BLOCKS - 10)
            hi = rng.getrandbits(1) << 63 | offset << 9 | start >> 43
            records.append((hi, (start & (1 << 43) - 1) << 21 | length))
            offset += length
        return records
    for _ in range(count):  # bnobt
        length = rng.randrange(1, 4)
        records.append((at, length))
        at += length + rng.randrange(2)
    return records
