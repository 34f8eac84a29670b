"""Metadata buffers under replay: read once, changed many times, written back with their LSN and checksum.

The kernel stamps a replayed buffer with the LSN of its transaction, and computes its checksum, when it writes it: each
time the LSN changes from one transaction to the next.  Here that is done when a buffer leaves the cache, with the
same result; until then `Buffer.stamp` says which LSN it will get.  Where stamp and checksum stand follows from the
magic number; a buffer with another magic than its log item announces gets neither, as in the kernel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from struct import Struct

from crc32c import crc32c

from ..device import Device
from ..errors import Corrupt
from ..format import log_items as li
from ..format.block import checksum
from ..format.geometry import Geometry
from ..format.inode import CRC_OFFSET

#: magic -> (offset of the LSN, of the checksum, of the UUID)
_SHORT = (24, 52, 32)
_LONG = (32, 64, 40)
_DIR = (16, 4, 24)
MAGICS: dict[bytes, tuple[int, int, int]] = {
    b"AB3B": _SHORT, b"AB3C": _SHORT, b"IAB3": _SHORT, b"FIB3": _SHORT, b"RMB3": _SHORT, b"R3FC": _SHORT,
    b"BMA3": _LONG, b"MAPR": _LONG, b"RCNT": _LONG,
    b"XAGF": (208, 216, 64), b"XAGI": (320, 312, 296), b"XAFL": (24, 32, 8), b"XFSB": (240, 224, 32),
    b"XSLM": (48, 12, 16), b"XDB3": _DIR, b"XDD3": _DIR, b"XDF3": _DIR,
    b"BMPZ": (24, 4, 32), b"SUMY": (24, 4, 32),
}  # fmt: skip
#: V4's magics of trees, which the kernel also looks for an LSN behind (on V5 only)
_OLD_MAGICS = {b"ABTB": _SHORT, b"ABTC": _SHORT, b"IABT": _SHORT, b"BMAP": _LONG}
#: magic of directory and attribute tree blocks, at 8
DA_MAGICS: dict[bytes, tuple[int, int, int]] = {
    b"\x3d\xf1": (24, 12, 32), b"\x3d\xff": (24, 12, 32), b"\x3e\xbe": (24, 12, 32), b"\x3b\xee": (24, 12, 32),
}  # fmt: skip

#: type announced by the log item -> magics that go with it
_TREES = (b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"RMB3", b"R3FC", b"BMA3", b"MAPR", b"RCNT")
_ANNOUNCED: dict[int, tuple[bytes, ...]] = {
    li.BLFT_BTREE: _TREES, li.BLFT_AGF: (b"XAGF",), li.BLFT_AGFL: (b"XAFL",), li.BLFT_AGI: (b"XAGI",),
    li.BLFT_SYMLINK: (b"XSLM",), li.BLFT_DIR_BLOCK: (b"XDB3",), li.BLFT_DIR_DATA: (b"XDD3",),
    li.BLFT_DIR_FREE: (b"XDF3",), li.BLFT_SB: (b"XFSB",), li.BLFT_RTBITMAP: (b"BMPZ",), li.BLFT_RTSUMMARY: (b"SUMY",),
}  # fmt: skip
_ANNOUNCED_DA: dict[int, bytes] = {
    li.BLFT_DIR_LEAF1: b"\x3d\xf1", li.BLFT_DIR_LEAFN: b"\x3d\xff", li.BLFT_DA_NODE: b"\x3e\xbe",
    li.BLFT_ATTR_LEAF: b"\x3b\xee",
}  # fmt: skip
#: Types whose blocks begin with a head on filesystems with realtime groups only.
_WITHOUT_HEADS = (li.BLFT_RTBITMAP, li.BLFT_RTSUMMARY)
_META_UUID_OFFSET = 248

#: The largest buffer that a log can speak of, in 512-byte blocks.
MOST_BLOCKS = 4096
#: What a buffer takes beside its data.
BUFFER_BYTES = 400
_PUT_CRC = Struct("<I").pack_into
NULL_LSN = (1 << 64) - 1


class Buffer:
    """A run of the disk under replay."""

    __slots__ = ("batch", "crc_offset", "daddr", "data", "dirty", "inodes", "lsn_offset", "stamp")

    def __init__(self, daddr: int, data: bytearray) -> None:
        self.daddr, self.data = daddr, data
        self.dirty = False
        #: LSN to be stamped on writing, 0 for none, and where
        self.stamp = self.lsn_offset = self.crc_offset = 0
        #: number of the batch (transactions of one LSN) that replayed it last
        self.batch = 0
        #: which inodes of a cluster want a new checksum: one bit each
        self.inodes = 0


def seal(raw: bytearray, view: memoryview, inode_bytes: int, marks: int) -> None:
    """New checksums for the inodes that are marked, a bit each.  Very hot."""
    put = _PUT_CRC
    start = 0
    while marks:
        if marks & 1 and raw[start + 4] >= 3:
            put(raw, start + CRC_OFFSET, 0)
            put(raw, start + CRC_OFFSET, crc32c(view[start : start + inode_bytes]))
        marks >>= 1
        start += inode_bytes


class BufferStore:
    """Buffers by address, least recently used first out, dirty ones written to the device as they go.

    Two buffers never overlap here: who asks for a part of another, or for more than it, gets what that one wrote.  A
    buffer is good until the next one is asked for.
    """

    __slots__ = (
        "_block_blocks", "_bytes", "_end_daddr", "_evicted", "_held", "_limit", "_log_end", "_log_start", "_owners",
        "_parts", "_whole", "batch", "before_read", "device", "geo", "remember",
    )  # fmt: skip

    def __init__(self, device: Device, geo: Geometry, limit_bytes: int) -> None:
        self.device, self.geo = device, geo
        self._limit = limit_bytes
        self._held: OrderedDict[int, Buffer] = OrderedDict()
        #: filesystem block -> address of the buffer that covers it
        self._owners: dict[int, int] = {}
        #: filesystem block -> addresses of the buffers, each smaller than a block, that lie in it: a few an AG
        self._parts: dict[int, set[int]] = {}
        self._bytes = 0
        self._whole = geo.block_bytes
        self._block_blocks = geo.block_bytes >> 9
        self._end_daddr = device.size_bytes >> 9
        self._log_start = geo.fsb_to_daddr(geo.log_start) if geo.log_start else 0
        self._log_end = self._log_start + (geo.log_blocks << (geo.block_log - 9)) if geo.log_start else 0
        self.batch = 0
        #: Whether buffers that go now may come back within this batch, and those that did.
        self.remember = False
        self._evicted: set[int] = set()
        #: Called with a range in bytes, before that is read from the device.
        self.before_read: Callable[[int, int], None] | None = None

    def next_batch(self) -> None:
        """The LSN changes: what was replayed so far counts as written."""
        self.batch += 1
        self._evicted.clear()

    def get(self, daddr: int, nblocks: int, where: str, *, fresh: bool = False) -> Buffer:
        """The buffer of `nblocks` 512-byte blocks at `daddr`, read if need be; `fresh`: about to be filled."""
        held = self._held
        found = held.get(daddr)
        if found is not None and len(found.data) == nblocks << 9:
            held.move_to_end(daddr)
            return found
        return self._read(daddr, nblocks, where, fresh)

    def part(self, daddr: int, nblocks: int, offset: int, where: str) -> Buffer:
        """The buffer of that one filesystem block of a larger run in which an offset lies.  Hot."""
        per = self._block_blocks
        if nblocks > per:
            if daddr < 0 or nblocks > MOST_BLOCKS:
                self._check(daddr, nblocks, where)
            daddr += (offset >> 9) // per * per
            nblocks = per
        found = self._held.get(daddr)
        if found is not None and len(found.data) == nblocks << 9:
            self._held.move_to_end(daddr)
            return found
        return self._read(daddr, nblocks, where)

    def _check(self, daddr: int, nblocks: int, where: str) -> None:
        if not self._on_device(daddr, nblocks):
            raise Corrupt("log item", where, "blocks", f"within {self._end_daddr}", f"{daddr}+{nblocks}")

    def _on_device(self, daddr: int, nblocks: int) -> bool:
        return 0 < nblocks <= MOST_BLOCKS and 0 <= daddr <= self._end_daddr - nblocks

    def _in_log(self, daddr: int, nblocks: int) -> bool:
        return daddr < self._log_end and daddr + nblocks > self._log_start

    def usable(self, daddr: int, nblocks: int) -> bool:
        """Whether a range is whole filesystem blocks on the device and outside the log: `_read` would not refuse it."""
        per = self._block_blocks
        return not (daddr % per or nblocks % per or self._in_log(daddr, nblocks)) and self._on_device(daddr, nblocks)

    def let_go(self, start_bytes: int, nbytes: int) -> None:
        """Hold no buffer that lies in a range of whole blocks; those that are dirty are written."""
        first = start_bytes // self._whole
        self._drop_all(range(first, first + nbytes // self._whole))

    def _drop_all(self, blocks: range) -> None:
        """Hold no buffer that covers one of these filesystem blocks, or lies in one."""
        for block in blocks:
            if block in self._owners:
                self._drop(self._owners[block])
            if block in self._parts:
                for part in list(self._parts[block]):
                    self._drop(part)

    def _read(self, daddr: int, nblocks: int, where: str, fresh: bool = False) -> Buffer:
        nbytes = nblocks << 9
        self._check(daddr, nblocks, where)
        if self._in_log(daddr, nblocks):
            raise Corrupt("log item", where, "blocks", "outside the log", f"{daddr}+{nblocks}")
        if self.before_read is not None:
            self.before_read(daddr << 9, nbytes)
        owners, per, held = self._owners, self._block_blocks, self._held
        single = nblocks == per and not daddr % per
        owned = range(daddr // per, daddr // per + 1) if single else self._cover(daddr, nblocks, where)
        self._drop_all(owned)
        if not owned:
            self._make_part(daddr, nblocks)
        found: Buffer | None = None
        room = self._limit - nbytes - BUFFER_BYTES
        while self._bytes > room and held:
            found = self._let_go(held.popitem(last=False)[1])
        if found is not None and len(found.data) == nbytes:
            found.daddr, found.dirty = daddr, False
            found.stamp = found.batch = found.inodes = 0
        else:
            found = Buffer(daddr, bytearray(nbytes))
        if not fresh:
            with memoryview(found.data) as view:
                self.device.pread_into(daddr << 9, (view,))
        if daddr in self._evicted:
            found.batch = self.batch
        held[daddr] = found
        self._bytes += nbytes + BUFFER_BYTES
        if single:
            owners[owned.start] = daddr
        elif not owned:
            self._parts.setdefault(daddr // per, set()).add(daddr)
        else:
            for block in owned:
                owners[block] = daddr
        return found

    def _make_part(self, daddr: int, nblocks: int) -> None:
        """A buffer smaller than a block, an AG header, is about to be: what it lies in, or on, goes."""
        block = daddr // self._block_blocks
        owner = self._owners.get(block)
        if owner is not None:
            self._drop(owner)
        for other in list(self._parts.get(block, ())):
            if other < daddr + nblocks and daddr < other + (len(self._held[other].data) >> 9):
                self._drop(other)

    def _cover(self, daddr: int, nblocks: int, where: str) -> range:
        """The filesystem blocks of a buffer.  A smaller one (an AG header) must lie in a block and owns none."""
        per = self._block_blocks
        if nblocks < per:
            if (daddr % per) + nblocks > per:
                raise Corrupt("log item", where, "blocks", "a part of one block", f"{daddr}+{nblocks}")
            return range(0)
        if daddr % per or nblocks % per:
            raise Corrupt("log item", where, "blocks", f"multiples of {per}", f"{daddr}+{nblocks}")
        return range(daddr // per, (daddr + nblocks) // per)

    def _drop(self, daddr: int) -> Buffer:
        """Write a buffer that is dirty, and forget it; nobody may use it after this."""
        return self._let_go(self._held.pop(daddr))

    def _let_go(self, buffer: Buffer) -> Buffer:
        """A buffer that is no longer among those held."""
        daddr, nbytes = buffer.daddr, len(buffer.data)
        self._bytes -= nbytes + BUFFER_BYTES
        if nbytes == self._whole:
            del self._owners[daddr // self._block_blocks]
        elif nbytes > self._whole:
            per = self._block_blocks
            for block in range(daddr // per, (daddr + (nbytes >> 9)) // per):
                del self._owners[block]
        else:
            block = daddr // self._block_blocks
            self._parts[block].remove(daddr)
            if not self._parts[block]:
                del self._parts[block]
        if buffer.dirty:
            if self.remember and buffer.batch == self.batch:
                self._evicted.add(daddr)
            self._write(buffer)
        return buffer

    def _write(self, buffer: Buffer) -> None:
        self._seal(buffer)
        self.device.pwrite(buffer.daddr << 9, buffer.data)
        buffer.dirty = False

    def _seal(self, buffer: Buffer) -> None:
        """LSN and checksums, as they are written."""
        data = buffer.data
        if buffer.stamp:
            place = buffer.lsn_offset
            data[place : place + 8] = buffer.stamp.to_bytes(8, "big")
            crc = checksum(data, buffer.crc_offset)
            data[buffer.crc_offset : buffer.crc_offset + 4] = crc.to_bytes(4, "little")
        elif buffer.inodes:
            self.seal_inodes(buffer)

    def seal_inodes(self, buffer: Buffer) -> None:
        """New checksums for the inodes that were changed."""
        marks, buffer.inodes = buffer.inodes, 0
        if self.geo.has_crc:
            with memoryview(buffer.data) as view:
                seal(buffer.data, view, self.geo.inode_bytes, marks)

    def flush(self) -> None:
        """Write everything, and hold nothing."""
        for daddr in sorted(self._held):
            self._drop(daddr)

    # -- what the LSN rules ask ----------------------------------------------------------------------------------

    def lsn_of(self, buffer: Buffer, announced: int = 0) -> int:
        """The LSN that a V5 buffer on the disk has, or 0 where it says none (kernel: xlog_recover_get_buf_lsn)."""
        if announced in _WITHOUT_HEADS and not self.geo.has_rtgroups:
            return 0  # plain bits and counts, which may look like anything
        data = buffer.data
        magic = bytes(data[:4])
        spots = MAGICS.get(magic) or _OLD_MAGICS.get(magic)
        geo = self.geo
        if spots is None:
            spots = DA_MAGICS.get(bytes(data[8:10]))
            if spots is None:
                return 0
        elif magic == b"XFSB" and geo.meta_uuid != geo.uuid:
            spots = (spots[0], spots[1], _META_UUID_OFFSET)
        lsn_at, _, uuid_at = spots
        if data[uuid_at : uuid_at + 16] != geo.meta_uuid:
            return 0
        if buffer.stamp and buffer.batch != self.batch:
            return buffer.stamp
        lsn = int.from_bytes(data[lsn_at : lsn_at + 8], "big")
        return 0 if lsn == NULL_LSN else lsn

    def newer(self, buffer: Buffer, lsn: int, announced: int = 0) -> bool:
        """Whether a buffer is not older than a transaction and so must not be replayed over.  V5 only."""
        if buffer.batch == self.batch and self.batch:
            return False
        return self.lsn_of(buffer, announced) >= lsn

    def replayed(self, buffer: Buffer, lsn: int, announced: int) -> None:
        """A buffer item has been replayed into a V5 buffer: it gets this LSN when it is written."""
        buffer.dirty = True
        buffer.batch = self.batch
        data = buffer.data
        magics = _ANNOUNCED.get(announced)
        if announced in _WITHOUT_HEADS and not self.geo.has_rtgroups:
            magics = ()
        if magics is not None:
            magic = bytes(data[:4])
            if magic in magics:
                spots = MAGICS[magic]
                buffer.stamp, buffer.lsn_offset, buffer.crc_offset = lsn, spots[0], spots[1]
                return
        else:
            wanted = _ANNOUNCED_DA.get(announced)
            if wanted is not None and data[8:10] == wanted:
                spots = DA_MAGICS[wanted]
                buffer.stamp, buffer.lsn_offset, buffer.crc_offset = lsn, spots[0], spots[1]
                return
        buffer.stamp = 0
