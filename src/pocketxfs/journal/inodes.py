"""Inode items, replayed: the core as the kernel holds it, the forks, and new owners (kernel: xfs_inode_item_recover.c).

This is the whole story, told slowly; nearly all items of a log take the way through `clusters`.
"""

from __future__ import annotations

from struct import Struct

from ..errors import Corrupt
from ..format import log_items as li
from ..format.block import checksum
from ..format.geometry import Geometry
from ..format.inode import (
    DIFLAG2_NREXT64,
    FMT_BTREE,
    FMT_EXTENTS,
    FMT_LOCAL,
    FMT_META_BTREE,
    NEXT_UNLINKED_OFFSET,
    S_IFDIR,
    S_IFMT,
    S_IFREG,
)
from .buffers import NULL_LSN, BufferStore
from .fetch import Region
from .spool import LastSeen

#: the attribute fork's flags -> the data fork's
_AS_DFORK = {li.ILOG_ADATA: li.ILOG_DDATA, li.ILOG_AEXT: li.ILOG_DEXT, li.ILOG_ABROOT: li.ILOG_DBROOT}
_BLOCK_HEAD = Struct(">4xHH")  # magic, bb_level, bb_numrecs
_LONG_HEADER_V4, _LONG_HEADER_V5 = 24, 72
_METAFILE_RTRMAP = 7
_LEVEL_NUMRECS = Struct(">HH")


class Counts:
    """What a replay did, for its report."""

    __slots__ = (
        "buffers", "buffers_cancelled", "buffers_newer", "dquots", "dquots_off", "icreates", "icreates_cancelled",
        "inodes", "inodes_cancelled", "inodes_newer", "unlinked_buffers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.buffers = self.buffers_cancelled = self.buffers_newer = self.unlinked_buffers = 0
        self.inodes = self.inodes_cancelled = self.inodes_newer = 0
        self.icreates = self.icreates_cancelled = self.dquots = self.dquots_off = 0

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {name: getattr(self, name) for name in self.__slots__}


class InodeReplay:
    """Replays inode items into buffers; what kinds of items share is here too."""

    __slots__ = (
        "_cancels", "_core_bytes", "_header_bytes", "_inode_bytes", "_literal_at", "_literal_bytes", "_v5",
        "any_cancels", "counts", "geo", "held_cancels", "number", "store",
    )  # fmt: skip

    def __init__(self, store: BufferStore, geo: Geometry, cancels: LastSeen) -> None:
        self.store, self.geo = store, geo
        self._cancels = cancels
        #: whether the log cancels any buffer; transactions by buffer, where that is not in a file
        self.any_cancels, self.held_cancels = bool(cancels), cancels.held
        self._v5 = geo.has_crc
        self._core_bytes = li.DINODE3_BYTES if geo.has_crc else li.DINODE2_BYTES
        self.counts = Counts()
        #: the transaction under replay
        self.number = 0
        self._literal_at, self._literal_bytes = geo.inode_core_bytes, geo.literal_bytes
        self._inode_bytes = geo.inode_bytes
        self._header_bytes = _LONG_HEADER_V5 if geo.has_crc else _LONG_HEADER_V4

    def cancelled(self, daddr: int, nblocks: int) -> bool:
        """Whether this transaction or a later one frees a buffer: then nothing is replayed into it."""
        return self.any_cancels and self._cancels.get(daddr, nblocks) >= self.number

    def inode(self, order: li.Abi, regions: list[Region], lsn: int, where: str = "") -> None:
        """An inode item (kernel: xlog_recover_inode_commit_pass2).  Hot."""
        form = order.inode(regions[0], where)
        count, fields, _, _, ino, _, daddr, nblocks, offset = form
        counts, store = self.counts, self.store
        if self.any_cancels:
            held = self.held_cancels
            last = self._cancels.get(daddr, nblocks) if held is None else held.get((daddr, nblocks), 0)
            if last >= self.number:
                counts.inodes_cancelled += 1
                return
        size = self._inode_bytes
        if offset < 0 or offset % size or offset + size > nblocks << 9:
            raise Corrupt("inode log item", where, "ilf_boffset", f"an inode within {nblocks << 9} bytes", offset)
        # Of the cluster only the block with the inode: logs touch inodes here and there.
        buffer = store.part(daddr, nblocks, offset, where)
        data = buffer.data
        offset -= (buffer.daddr - daddr) << 9
        if data[offset] != 0x49 or data[offset + 1] != 0x4E:
            raise Corrupt("inode", f"inode {ino}, {where}", "di_magic", "IN", data[offset : offset + 2].hex())
        if len(regions) < 2:
            raise Corrupt("inode log item", where, "regions", "at least 2", len(regions))
        core = regions[1]
        if len(core) != self._core_bytes:
            raise Corrupt("inode log item", where, "length of the core", self._core_bytes, len(core))
        if self._v5:
            disk_lsn = int.from_bytes(data[offset + 112 : offset + 120], "big") if data[offset + 4] >= 3 else 0
            if disk_lsn <= lsn or disk_lsn == NULL_LSN:
                flags2 = core[order.flags2_at]
                big = flags2 >> 3 & 1
                shape = order.dinodes[big]
                values = shape.whole.unpack_from(core)
                self._judge_core(form, values, shape.size_at, flags2, len(regions), where)
                unlinked = data[offset + NEXT_UNLINKED_OFFSET : offset + NEXT_UNLINKED_OFFSET + 4]
                li.DISK[big].whole.pack_into(data, offset, *values)
                data[offset + NEXT_UNLINKED_OFFSET : offset + NEXT_UNLINKED_OFFSET + 4] = unlinked
                data[offset + 112 : offset + 120] = lsn.to_bytes(8, "big")
                if count > 2 or fields & li.ILOG_DEV:
                    self._forks(form, regions, data, offset, where)
                counts.inodes += 1
            else:
                counts.inodes_newer += 1
        else:
            logged = order.pair.unpack_from(core, 28)[1]
            on_disk = int.from_bytes(data[offset + 30 : offset + 32], "big")
            if logged < on_disk and not (on_disk == li.DI_MAX_FLUSH and logged < li.DI_MAX_FLUSH >> 1):
                counts.inodes_newer += 1
                return
            shape = order.dinodes[0]
            values = shape.core.unpack_from(core)
            self._judge_core(form, values, shape.size_at, 0, len(regions), where)
            # The flush counter starts again at 0.
            li.DISK[0].core.pack_into(data, offset, *values[:10], 0, *values[11:])
            if count > 2 or fields & li.ILOG_DEV:
                self._forks(form, regions, data, offset, where)
            counts.inodes += 1
        buffer.inodes |= 1 << (offset // size)
        buffer.dirty = True
        buffer.batch = store.batch
        buffer.stamp = 0
        if fields & (li.ILOG_DOWNER | li.ILOG_AOWNER) and data[offset + 2 : offset + 4] != b"\0\0":
            # A copy: the buffer may have to make room for those of the tree.
            self._owners(form, data[offset : offset + size], where)

    def _judge_core(
        self, form: li.InodeFormat, core: li.Core, size_at: int, flags2: int, regions: int, where: str
    ) -> None:
        """What the kernel wants of a logged core before it replays it."""
        magic, mode, version, data_format = core[:4]
        _, nblocks, _, nextents, anextents, forkoff = core[size_at : size_at + 6]
        kind = mode & S_IFMT
        bad: tuple[str, object, object] | None = None
        if magic != 0x494E:
            bad = ("di_magic", "IN", hex(magic))
        elif kind == S_IFREG and data_format not in (FMT_EXTENTS, FMT_BTREE, FMT_META_BTREE):
            bad = ("di_format", "extents or btree", data_format)
        elif kind == S_IFDIR and data_format not in (FMT_LOCAL, FMT_EXTENTS, FMT_BTREE):
            bad = ("di_format", "local, extents or btree", data_format)
        elif version != 3 if self._v5 else version > 2:
            bad = ("di_version", 3 if self._v5 else "1 or 2", version)
        elif (forkoff << 3) >= self._literal_bytes:
            bad = ("di_forkoff", f"below {self._literal_bytes >> 3}", forkoff)
        elif form[0] > 4 or form[0] != regions:
            bad = ("ilf_size", regions, form[0])
        else:
            if flags2 & DIFLAG2_NREXT64:
                if anextents or not self.geo.has_nrext64:
                    bad = ("di_nrext64_pad", 0, anextents)
                nextents, anextents = core[10], nextents
            elif version == 3 and core[10]:
                bad = ("di_v3_pad", 0, core[10])
            if bad is None and nextents + anextents > nblocks and data_format != FMT_META_BTREE:
                bad = ("di_nextents", f"at most {nblocks}", nextents + anextents)
        if bad is not None:
            raise Corrupt("inode log item", f"inode {form[4]}, {where}", *bad)

    def _forks(self, form: li.InodeFormat, regions: list[Region], data: bytearray, offset: int, where: str) -> None:
        """What an inode item brings beside the core."""
        fields = form[1]
        literal = offset + self._literal_at
        end = offset + self.geo.inode_bytes
        if fields & li.ILOG_DEV:
            data[literal : literal + 4] = form[5].to_bytes(4, "big")
        if form[0] == 2:
            return
        forkoff = data[offset + 82] << 3
        attr_at = literal + forkoff
        index = 2
        if fields & li.ILOG_DFORK:
            split = attr_at if forkoff else end
            self._fork(fields & li.ILOG_DFORK, regions, index, data, literal, split, offset, where)
            index = 3
        if fields & li.ILOG_AFORK:
            if not forkoff:
                raise Corrupt("inode log item", where, "di_forkoff", "not 0 where an attribute fork is logged", 0)
            self._fork(_AS_DFORK.get(fields & li.ILOG_AFORK, 0), regions, index, data, attr_at, end, -1, where)

    def _fork(
        self,
        kind: int,
        regions: list[Region],
        index: int,
        data: bytearray,
        start: int,
        end: int,
        inode: int,
        where: str,
    ) -> None:
        """One logged fork into its room in the inode."""
        if index >= len(regions):
            raise Corrupt("inode log item", where, "regions", "one for each fork", len(regions))
        region = regions[index]
        if kind == li.ILOG_DDATA or kind == li.ILOG_DEXT:
            if start + len(region) > end:
                raise Corrupt("inode log item", where, "fork length", f"at most {end - start}", len(region))
            data[start : start + len(region)] = region
        elif kind == li.ILOG_DBROOT:
            self._root(region, data, start, end, inode, where)
        else:
            raise Corrupt("inode log item", where, "ilf_fields", "one form for each fork", hex(kind))

    def _root(self, region: Region, data: bytearray, start: int, end: int, inode: int, where: str) -> None:
        """A logged B+tree root, a long-form block, into the inode's form of one (kernel: xfs_bmbt_to_bmdr)."""
        head = self._header_bytes
        length = len(region)
        if length < head:
            raise Corrupt("inode log item", where, "root length", f"at least {head}", length)
        level, numrecs = _BLOCK_HEAD.unpack_from(region)
        key, record = 8, 0
        if inode >= 0 and data[inode + 5] == FMT_META_BTREE:
            # Realtime metadata trees: a root may be a leaf, and keys are larger in the reverse map's.
            metatype = int.from_bytes(data[inode + 6 : inode + 8], "big")
            key, record = (40, 24) if metatype == _METAFILE_RTRMAP else (4, 12)
        room = end - start - 4
        if level == 0:
            if not record:
                raise Corrupt("inode log item", where, "root level", "at least 1", 0)
            used = numrecs * record
            if head + used > length or used > room:
                raise Corrupt("inode log item", where, "root records", f"at most {room // record}", numrecs)
            data[start + 4 : start + 4 + used] = region[head : head + used]
        else:
            source_most = (length - head) // (key + 8)
            target_most = room // (key + 8)
            if numrecs > source_most or numrecs > target_most:
                raise Corrupt(
                    "inode log item", where, "root records", f"at most {min(source_most, target_most)}", numrecs
                )
            keys, pointers = numrecs * key, numrecs * 8
            data[start + 4 : start + 4 + keys] = region[head : head + keys]
            place, to = head + source_most * key, start + 4 + target_most * key
            data[to : to + pointers] = region[place : place + pointers]
        _LEVEL_NUMRECS.pack_into(data, start, level, numrecs)

    def _owners(self, form: li.InodeFormat, data: bytearray, where: str) -> None:
        """Extents were swapped between files: the blocks of the fork's B+tree get their new owner."""
        forkoff = data[82] << 3
        literal = self._literal_at
        if form[1] & li.ILOG_DOWNER and data[5] == FMT_BTREE:
            self._change_owner(data, literal, (forkoff or self.geo.literal_bytes), form[4], where)
        if form[1] & li.ILOG_AOWNER and forkoff and data[83] == FMT_BTREE:
            self._change_owner(data, literal + forkoff, self.geo.literal_bytes - forkoff, form[4], where)

    def _change_owner(self, data: bytearray, start: int, room: int, ino: int, where: str) -> None:
        """Level by level along the siblings (kernel: xfs_btree_change_owner)."""
        geo = self.geo
        level, numrecs = _LEVEL_NUMRECS.unpack_from(data, start)
        if not numrecs:
            return
        pointers = start + 4 + (room - 4) // 16 * 8
        first = int.from_bytes(data[pointers : pointers + 8], "big")
        block_bytes, head = geo.block_bytes, self._header_bytes
        most = (block_bytes - head) // 16
        seen = 0
        for depth in range(level - 1, -1, -1):
            block, first = first, 0
            while block != NULL_LSN:
                if not geo.fsb_valid(block) or seen > geo.dblocks:
                    raise Corrupt("bmbt block", where, "pointer", "a block of the filesystem", hex(block))
                seen += 1
                buffer = self.store.get(geo.fsb_to_daddr(block), block_bytes >> 9, where)
                raw = buffer.data
                if raw[:4] != b"BMA3" or int.from_bytes(raw[4:6], "big") != depth:
                    raise Corrupt(
                        "bmbt block",
                        f"block {block:#x}, {where}",
                        "magic and level",
                        f"BMA3, {depth}",
                        bytes(raw[:6]).hex(),
                    )
                if not first and depth:
                    place = head + most * 8
                    first = int.from_bytes(raw[place : place + 8], "big")
                following = int.from_bytes(raw[16:24], "big")
                owner = ino.to_bytes(8, "big")
                if raw[56:64] != owner:
                    raw[56:64] = owner
                    if not buffer.stamp:
                        crc = checksum(raw, 64)
                        raw[64:68] = crc.to_bytes(4, "little")
                    buffer.dirty = True
                block = following
