"""Each kind of log item, replayed (kernel: the *_item_recover.c files).

A buffer item says which 128-byte chunks of a buffer were logged, and brings them.  An inode item (see `inodes`) brings
the core as the kernel holds it, and forks.  Both leave alone what is newer on the disk: V5 blocks and inodes carry the
LSN of their last change, V4 inodes a flush counter.  An inode chunk's creation is logged as its parameters.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Corrupt
from ..format import log_items as li
from ..format import superblock
from ..format.block import checksum
from ..format.geometry import NULL_AGBLOCK, Geometry
from ..format.inode import NEXT_UNLINKED_OFFSET
from .buffers import NULL_LSN, Buffer, BufferStore
from .fetch import Region
from .inodes import Counts, InodeReplay
from .spool import LastSeen

#: What no transaction changes about a filesystem.
_FIXED = (
    "sb_magicnum", "sb_blocksize", "sb_uuid", "sb_logstart", "sb_rootino", "sb_agblocks", "sb_logblocks", "sb_sectsize",
    "sb_inodesize", "sb_blocklog", "sb_agblklog",
)  # fmt: skip


class Applier(InodeReplay):
    """Replays items into buffers."""

    __slots__ = ("create", "quotas_off", "superblock_changed")

    def __init__(self, store: BufferStore, geo: Geometry, cancels: LastSeen, quotas_off: int) -> None:
        super().__init__(store, geo, cancels)
        self.quotas_off = quotas_off
        self.superblock_changed = False
        #: Takes new free inodes (where, how many bytes, the first one's number, the generation) instead of the store.
        self.create: Callable[[int, int, int, int], None] | None = None

    # -- buffers -------------------------------------------------------------------------------------------------

    def buffer(self, order: li.Abi, regions: list[Region], lsn: int, where: str = "") -> None:
        """A buffer item; a cancellation changes nothing."""
        flags, nblocks, daddr, bits = order.buf(regions[0], where)
        if flags & li.BLF_CANCEL:
            return
        counts, store = self.counts, self.store
        if self.any_cancels and self.cancelled(daddr, nblocks):
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
            first = max(0, -(-(start - NEXT_UNLINKED_OFFSET) // size))
            for number in range(first, len(data) // size):
                place = number * size + NEXT_UNLINKED_OFFSET
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
        self.counts.icreates += 1
        ino = geo.make_ino(agno, agbno << geo.inopblog)
        if self.create is not None and store.usable(start, clusters.stop - start):
            self.create(start << 9, (clusters.stop - start) << 9, ino, gen)
            return
        per_block, many = 1 << geo.block_sectors_log, 1 << geo.inopblog
        for daddr in range(start, clusters.stop, per_block):
            buffer = store.get(daddr, per_block, where, fresh=True)
            buffer.data[:] = self.free_inodes(ino, many, gen)
            ino += many
            buffer.inodes = (1 << many) - 1
            buffer.stamp = 0
            buffer.dirty = True
            buffer.batch = store.batch

    def free_inodes(self, ino: int, many: int, gen: int) -> bytes:
        """New free inodes, without their checksums."""
        geo = self.geo
        raw = bytearray(geo.inode_bytes)
        raw[:5] = b"IN\0\0" + bytes((3 if self._v5 else 2,))
        raw[92:100] = gen.to_bytes(4, "big") + b"\xff\xff\xff\xff"
        if not self._v5:
            return bytes(raw) * many
        raw[160:176] = geo.meta_uuid
        before, after = bytes(raw[:152]), bytes(raw[160:])
        return b"".join([before + number.to_bytes(8, "big") + after for number in range(ino, ino + many)])

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


__all__ = ["Applier", "Counts"]
