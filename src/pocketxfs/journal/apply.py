"""Each kind of log item, replayed (kernel: the *_item_recover.c files).

A buffer item says which 128-byte chunks of a buffer were logged, and brings them.  An inode item brings the core as the
kernel holds it, and forks.  Both leave alone what is newer on the disk: V5 blocks and inodes carry the LSN of their
last change, V4 inodes a flush counter.  An inode chunk's creation is logged as its parameters.
"""

from __future__ import annotations

from struct import Struct

from ..errors import Corrupt
from ..format import log_items as li
from ..format import superblock
from ..format.block import checksum
from ..format.geometry import NULL_AGBLOCK, Geometry
from .buffers import NULL_LSN, Buffer, BufferStore
from .fetch import Region
from .spool import LastSeen

_NEXT_UNLINKED = 96
_FMT_LOCAL, _FMT_EXTENTS, _FMT_BTREE, _FMT_META_BTREE = 1, 2, 3, 5
#: the attribute fork's flags -> the data fork's
_AS_DFORK = {li.ILOG_ADATA: li.ILOG_DDATA, li.ILOG_AEXT: li.ILOG_DEXT, li.ILOG_ABROOT: li.ILOG_DBROOT}
_FORKS = li.ILOG_DFORK | li.ILOG_AFORK
_PLAIN_DATA = (li.ILOG_DDATA, li.ILOG_DEXT)
_S_IFMT, _S_IFREG, _S_IFDIR = 0o170000, 0o100000, 0o040000
_BLOCK_HEAD = Struct(">4xHH")  # magic, bb_level, bb_numrecs
_LONG_HEADER_V4, _LONG_HEADER_V5 = 24, 72
_METAFILE_RTRMAP = 7
_LEVEL_NUMRECS = Struct(">HH")
#: What no transaction changes about a filesystem.
_FIXED = (
    "sb_magicnum", "sb_blocksize", "sb_uuid", "sb_logstart", "sb_rootino", "sb_agblocks", "sb_logblocks", "sb_sectsize",
    "sb_inodesize", "sb_blocklog", "sb_agblklog",
)  # fmt: skip


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


class Applier:
    """Replays items into buffers."""

    __slots__ = (
        "_any_cancels", "_cancels", "_core_bytes", "_header_bytes", "_held_cancels", "_inode_bytes", "_literal_at",
        "_literal_bytes", "_v5", "counts", "geo", "number", "quotas_off", "store", "superblock_changed",
    )  # fmt: skip

    def __init__(self, store: BufferStore, geo: Geometry, cancels: LastSeen, quotas_off: int) -> None:
        self.store, self.geo = store, geo
        self._cancels, self._any_cancels = cancels, bool(cancels)
        self._v5 = geo.has_crc
        self._core_bytes = li.DINODE3_BYTES if geo.has_crc else li.DINODE2_BYTES
        self.quotas_off = quotas_off
        self.counts = Counts()
        #: the transaction under replay
        self.number = 0
        self._literal_at, self._literal_bytes = geo.inode_core_bytes, geo.literal_bytes
        self._inode_bytes = geo.inode_bytes
        self._held_cancels = cancels.held
        self._header_bytes = _LONG_HEADER_V5 if geo.has_crc else _LONG_HEADER_V4
        self.superblock_changed = False

    def cancelled(self, daddr: int, nblocks: int) -> bool:
        """Whether this transaction or a later one frees a buffer: then nothing is replayed into it."""
        return self._any_cancels and self._cancels.get(daddr, nblocks) >= self.number

    # -- buffers -------------------------------------------------------------------------------------------------

    def buffer(self, order: li.Abi, regions: list[Region], lsn: int, where: str = "") -> None:
        """A buffer item; a cancellation changes nothing."""
        flags, nblocks, daddr, bits = order.buf(regions[0], where)
        if flags & li.BLF_CANCEL:
            return
        counts, store = self.counts, self.store
        if self._any_cancels and self.cancelled(daddr, nblocks):
            counts.buffers_cancelled += 1
            return
        buffer = store.get(daddr, nblocks, where)
        geo = self.geo
        if flags & li.BLF_INODE_BUF:
            self._unlinked(regions, buffer, bits, where)
            counts.unlinked_buffers += 1
            return
        if geo.has_crc and store.newer(buffer, lsn, flags >> li.BLFT_SHIFT):
            counts.buffers_newer += 1
            return
        if flags & li.BLF_DQUOT_BUF:
            off = (
                (li.DQ_USER if flags & li.BLF_UDQUOT_BUF else 0)
                | (li.DQ_PROJ if flags & li.BLF_PDQUOT_BUF else 0)
                | (li.DQ_GROUP if flags & li.BLF_GDQUOT_BUF else 0)
            )
            if self.quotas_off & off:
                counts.dquots_off += 1
                return
            self._copy(regions, buffer, bits, where, dquots=True)
            buffer.dirty = True
            buffer.batch = store.batch
            buffer.stamp = 0
        else:
            if buffer.inodes:
                # Inodes changed before this: their checksums are made before anything is laid over them.
                store.seal_inodes(buffer)
            self._copy(regions, buffer, bits, where)
            if geo.has_crc:
                store.replayed(buffer, lsn, flags >> li.BLFT_SHIFT)
            else:
                buffer.dirty = True
            if daddr == 0:
                self._superblock(buffer.data, where)
        counts.buffers += 1

    def _superblock(self, data: bytearray, where: str) -> None:
        """The primary superblock was replayed: what comes after it may lie where the filesystem has grown to.

        Kernel: xlog_recover_do_primary_sb_buffer.
        """
        self.superblock_changed = True
        new, old = superblock.decode(bytes(data)), self.geo.sb
        for name in _FIXED:
            if getattr(new, name) != getattr(old, name):
                raise Corrupt("superblock in the log", where, name, getattr(old, name), getattr(new, name))
        if (new.sb_dblocks, new.sb_agcount) == (old.sb_dblocks, old.sb_agcount):
            return
        if new.sb_agcount < old.sb_agcount:
            raise Corrupt("superblock in the log", where, "sb_agcount", f"at least {old.sb_agcount}", new.sb_agcount)
        whole = bytearray(data)
        if self._v5:
            crc = checksum(whole, superblock.SB_CRC_OFFSET)
            whole[superblock.SB_CRC_OFFSET : superblock.SB_CRC_OFFSET + 4] = crc.to_bytes(4, "little")
        self.geo = Geometry(superblock.verify(bytes(whole), where))

    def _copy(self, regions: list[Region], buffer: Buffer, bits: int, where: str, dquots: bool = False) -> None:
        """Lay the logged chunks over the buffer (kernel: xlog_recover_do_reg_buffer)."""
        data = buffer.data
        size = len(data)
        index, count = 1, len(regions)
        bit = 0
        while bits:
            skip = (bits & -bits).bit_length() - 1
            bits >>= skip
            bit += skip
            run = (~bits & (bits + 1)).bit_length() - 1
            if index >= count:
                raise Corrupt("buffer log item", where, "regions", "one for each logged run", count - 1)
            region = regions[index]
            length = len(region)
            if length < run << li.BLF_SHIFT:
                run = length >> li.BLF_SHIFT
            nbytes = run << li.BLF_SHIFT
            start = bit << li.BLF_SHIFT
            if not run or start + nbytes > size:
                raise Corrupt("buffer log item", where, "logged chunk", f"within {size} bytes", f"{start}+{length}")
            if not dquots or self._dquot_ok(region):
                data[start : start + nbytes] = region if length == nbytes else region[:nbytes]
            index += 1
            bit += run
            bits >>= run
        if index != count:
            raise Corrupt("buffer log item", where, "regions", index, count)

    @staticmethod
    def _dquot_ok(region: Region) -> bool:
        """Whether a region begins with a dquot; the kernel passes over one that does not."""
        return len(region) >= li.DISK_DQUOT_BYTES and region[0] == 0x44 and region[1] == 0x51

    def _unlinked(self, regions: list[Region], buffer: Buffer, bits: int, where: str) -> None:
        """From a logged inode buffer only the unlinked pointers count (kernel: xlog_recover_do_inode_buffer)."""
        size = self.geo.inode_bytes
        data = buffer.data
        index = 0
        bit = 0
        store = self.store
        while bits:
            skip = (bits & -bits).bit_length() - 1
            bits >>= skip
            bit += skip
            run = (~bits & (bits + 1)).bit_length() - 1
            index += 1
            if index >= len(regions):
                raise Corrupt("buffer log item", where, "regions", "one for each logged run", len(regions) - 1)
            region = regions[index]
            start, nbytes = bit << li.BLF_SHIFT, run << li.BLF_SHIFT
            if len(region) < nbytes or start + nbytes > len(data):
                raise Corrupt(
                    "buffer log item", where, "logged chunk", f"within {len(data)} bytes", f"{start}+{nbytes}"
                )
            first = max(0, -(-(start - _NEXT_UNLINKED) // size))
            for number in range(first, len(data) // size):
                place = number * size + _NEXT_UNLINKED
                if place >= start + nbytes:
                    break
                pointer = bytes(region[place - start : place - start + 4])
                if pointer == b"\0\0\0\0":
                    raise Corrupt("buffer log item", where, "di_next_unlinked", "not 0", 0)
                data[place : place + 4] = pointer
                buffer.inodes |= 1 << number
            bit += run
            bits >>= run
        buffer.dirty = True
        buffer.batch = store.batch
        buffer.stamp = 0

    # -- inodes --------------------------------------------------------------------------------------------------

    def inode(self, order: li.Abi, regions: list[Region], lsn: int, where: str = "") -> None:
        """An inode item (kernel: xlog_recover_inode_commit_pass2).  Hot."""
        form = order.inode(regions[0], where)
        count, fields, _, _, ino, _, daddr, nblocks, offset = form
        counts, store = self.counts, self.store
        if self._any_cancels:
            held = self._held_cancels
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
                unlinked = data[offset + _NEXT_UNLINKED : offset + _NEXT_UNLINKED + 4]
                li.DISK[big].whole.pack_into(data, offset, *values)
                data[offset + _NEXT_UNLINKED : offset + _NEXT_UNLINKED + 4] = unlinked
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
        kind = mode & _S_IFMT
        bad: tuple[str, object, object] | None = None
        if magic != 0x494E:
            bad = ("di_magic", "IN", hex(magic))
        elif kind == _S_IFREG and data_format not in (_FMT_EXTENTS, _FMT_BTREE, _FMT_META_BTREE):
            bad = ("di_format", "extents or btree", data_format)
        elif kind == _S_IFDIR and data_format not in (_FMT_LOCAL, _FMT_EXTENTS, _FMT_BTREE):
            bad = ("di_format", "local, extents or btree", data_format)
        elif version != 3 if self._v5 else version > 2:
            bad = ("di_version", 3 if self._v5 else "1 or 2", version)
        elif (forkoff << 3) >= self._literal_bytes:
            bad = ("di_forkoff", f"below {self._literal_bytes >> 3}", forkoff)
        elif form[0] > 4 or form[0] != regions:
            bad = ("ilf_size", regions, form[0])
        else:
            if flags2 & 0x10:
                if anextents or not self.geo.has_nrext64:
                    bad = ("di_nrext64_pad", 0, anextents)
                nextents, anextents = core[10], nextents
            elif version == 3 and core[10]:
                bad = ("di_v3_pad", 0, core[10])
            if bad is None and nextents + anextents > nblocks and data_format != _FMT_META_BTREE:
                bad = ("di_nextents", f"at most {nblocks}", nextents + anextents)
        if bad is not None:
            raise Corrupt("inode log item", f"inode {form[4]}, {where}", *bad)

    def _forks(self, form: li.InodeFormat, regions: list[Region], data: bytearray, offset: int, where: str) -> None:
        """What an inode item brings beside the core."""
        fields = form[1]
        literal = offset + self._literal_at
        if form[0] == 3 and fields & _FORKS in _PLAIN_DATA and not fields & li.ILOG_DEV:
            region = regions[2]  # the usual case: a data fork in the inode, and nothing else
            forkoff = data[offset + 82] << 3
            end = literal + forkoff if forkoff else offset + self._inode_bytes
            if literal + len(region) <= end:
                data[literal : literal + len(region)] = region
                return
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
        if inode >= 0 and data[inode + 5] == _FMT_META_BTREE:
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
        if form[1] & li.ILOG_DOWNER and data[5] == _FMT_BTREE:
            self._change_owner(data, literal, (forkoff or self.geo.literal_bytes), form[4], where)
        if form[1] & li.ILOG_AOWNER and forkoff and data[83] == _FMT_BTREE:
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

    # -- the rest ------------------------------------------------------------------------------------------------

    def icreate(self, regions: list[Region], where: str = "") -> None:
        """A new inode chunk: free inodes written over its blocks (kernel: xlog_recover_icreate_commit_pass2)."""
        geo, store = self.geo, self.store
        region = regions[0]
        if len(region) != li.ICREATE_BYTES or len(regions) != 1:
            raise Corrupt("icreate log item", where, "length", li.ICREATE_BYTES, len(region))
        agno, agbno, count, isize, length, gen = li.ICREATE.unpack_from(region)
        if agno >= geo.ag_count or isize != geo.inode_bytes or not 0 < agbno < geo.ag_blocks or agbno == NULL_AGBLOCK:
            raise Corrupt(
                "icreate log item", where, "AG, block, inode size", f"below {geo.ag_count}", (agno, agbno, isize)
            )
        if not 0 < count <= max(64, geo.inopblock) or length << geo.inopblog != count:
            raise Corrupt("icreate log item", where, "inodes, blocks", "a chunk", (count, length))
        if agbno + length > geo.ag_size_blocks(agno):
            raise Corrupt(
                "icreate log item", where, "blocks", f"within {geo.ag_size_blocks(agno)}", f"{agbno}+{length}"
            )
        per = min(geo.cluster_blocks, length)
        if length % per:
            raise Corrupt("icreate log item", where, "blocks", f"a multiple of {per}", length)
        start = geo.agb_to_daddr(agno, agbno)
        step = per << geo.block_sectors_log
        clusters = range(start, start + (length << geo.block_sectors_log), step)
        if any(self.cancelled(daddr, step) for daddr in clusters):
            self.counts.icreates_cancelled += 1
            return
        size = geo.inode_bytes
        start_of, end_of = self._free_inode(gen)
        ino = geo.make_ino(agno, agbno << geo.inopblog)
        per_block = 1 << geo.block_sectors_log
        for daddr in range(start, clusters.stop, per_block):
            buffer = store.get(daddr, per_block, where, fresh=True)
            data = buffer.data
            many = len(data) // size
            data[:] = b"".join(
                [
                    start_of + (number if self._v5 else 0).to_bytes(8, "big") + end_of
                    for number in range(ino, ino + many)
                ]
            )
            ino += many
            buffer.inodes = (1 << many) - 1
            buffer.stamp = 0
            buffer.dirty = True
            buffer.batch = store.batch
        self.counts.icreates += 1

    def _free_inode(self, gen: int) -> tuple[bytes, bytes]:
        """A new free inode, what stands before its number and after it."""
        geo = self.geo
        raw = bytearray(geo.inode_bytes)
        raw[:5] = b"IN\0\0" + bytes((3 if self._v5 else 2,))
        raw[92:100] = gen.to_bytes(4, "big") + b"\xff\xff\xff\xff"
        if self._v5:
            raw[160:176] = geo.meta_uuid
        return bytes(raw[:152]), bytes(raw[160:])

    def dquot(self, order: li.Abi, regions: list[Region], lsn: int, where: str = "") -> None:
        """A dquot (kernel: xlog_recover_dquot_commit_pass2); replayed whether or not quotas will be used."""
        form = order.dquot(regions[0], where)
        if len(regions) < 2 or len(regions[1]) < li.DISK_DQUOT_BYTES:
            raise Corrupt("dquot log item", where, "length", f"at least {li.DISK_DQUOT_BYTES}", "less")
        logged = regions[1]
        if self.quotas_off & logged[3] & 7:
            self.counts.dquots_off += 1
            return
        if logged[0] != 0x44 or logged[1] != 0x51 or int.from_bytes(logged[4:8], "big") != form.id:
            raise Corrupt("dquot log item", where, "magic and id", f"DQ, {form.id}", bytes(logged[:8]).hex())
        geo = self.geo
        if not 0 < form.nblocks <= 64:
            raise Corrupt("dquot log item", where, "qlf_len", "1", form.nblocks)
        buffer = self.store.get(form.daddr, form.nblocks << geo.block_sectors_log, where)
        data, offset = buffer.data, form.boffset
        whole = li.DQBLK_BYTES if geo.has_crc else li.DISK_DQUOT_BYTES
        if offset + max(whole, len(logged)) > len(data):
            raise Corrupt("dquot log item", where, "qlf_boffset", f"within {len(data)} bytes", offset)
        if data[offset : offset + 2] != b"DQ":
            raise Corrupt("dquot", where, "magic on the disk", "DQ", bytes(data[offset : offset + 2]).hex())
        if geo.has_crc:
            place = offset + li.DQBLK_LSN_OFFSET
            disk_lsn = int.from_bytes(data[place : place + 8], "big")
            if disk_lsn and disk_lsn != NULL_LSN and disk_lsn >= lsn:
                return
        data[offset : offset + len(logged)] = logged
        if geo.has_crc:
            crc = checksum(memoryview(data)[offset : offset + li.DQBLK_BYTES], li.DQBLK_CRC_OFFSET)
            place = offset + li.DQBLK_CRC_OFFSET
            data[place : place + 4] = crc.to_bytes(4, "little")
        buffer.dirty = True
        buffer.batch = self.store.batch
        buffer.stamp = 0
        self.counts.dquots += 1
