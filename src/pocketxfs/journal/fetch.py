"""Items read again from their places in the log, whole: regions put together where they go on in later records."""

from __future__ import annotations

from collections import OrderedDict

from ..errors import Corrupt
from ..format.log import CONTINUE_TRANS, FMT_LINUX_LE, HEADER_MAGIC_BYTES, OP, OP_BYTES, WAS_CONT_TRANS, Record
from ..format.log_items import MAX_ITEM_BYTES, Abi, abi
from .ring import RecordData, Ring
from .scan import BLOCK_SHIFT, CROSSES, OFFSET_MASK, OFFSET_SHIFT, place_block, place_offset

Region = bytes | bytearray | memoryview
#: Records held at least: an item goes on from one into the next.
KEPT_RECORDS = 2


class Fetcher:
    """Reads items by place.  Keeps the records read last, as many as `limit_bytes` hold and `KEPT_RECORDS` at least.

    The log was scanned before: what is read here has been verified, and is verified again as it is read.
    """

    __slots__ = ("_bytes", "_kept", "_limit", "_now", "_ring", "_view", "order")

    def __init__(self, ring: Ring, limit_bytes: int) -> None:
        self._ring = ring
        self._limit = limit_bytes
        self._kept: OrderedDict[int, tuple[RecordData, bytes]] = OrderedDict()
        self._bytes = 0
        self._now: RecordData | None = None
        self._view = b""
        self.order: Abi = abi(FMT_LINUX_LE)

    def _load(self, block: int) -> RecordData:
        kept = self._kept
        found = kept.get(block)
        if found is None:
            header = self._ring.read(block, 1)
            record = Record(block, header)
            count = self._ring.header_count(record)
            if header[:4] != HEADER_MAGIC_BYTES or not self._ring.valid(record, self._ring.max_record_bytes):
                raise Corrupt("log record", self._ring.where(block), "header", "the one that was scanned", "another")
            while len(kept) >= KEPT_RECORDS and self._bytes + record.length > self._limit:
                _, (_, gone) = kept.popitem(last=False)
                self._bytes -= len(gone)
            data = RecordData(self._ring, record, count)
            if not data.crc_ok:
                raise Corrupt("log record", self._ring.where(block), "h_crc", "the one that was scanned", "another")
            # Parts of bytes are made faster than views, and hold on to nothing.
            found = kept[block] = data, bytes(data.data)
            data.data = bytearray()
            self._bytes += len(found[1])
        else:
            kept.move_to_end(block)
        self._now, self._view = found
        self.order = abi(found[0].record.fmt)
        return found[0]

    def regions(self, place: int, end: int = 0) -> list[Region]:
        """The regions of the item at a place; `order` then says in what byte order they are.  Hot.

        `end` comes with a place that `CROSSES`: where the operations of its record end; padding can hold anything.
        """
        block = (place & ~CROSSES) >> BLOCK_SHIFT
        now = self._now
        if now is None or now.record.block != block:
            now = self._load(block)
        data = self._view
        offset = place >> OFFSET_SHIFT & OFFSET_MASK
        unpack = OP.unpack_from
        tid, length, _, flags = unpack(data, offset)
        body = offset + OP_BYTES
        following = body + length
        left = self.order.pair.unpack_from(data, body)[1] - 1
        regions: list[Region] = [data[body:following]]
        if not place & CROSSES:
            while left > 0:
                got, length, _, flags = unpack(data, following)
                body = following + OP_BYTES
                following = body + length
                if got == tid and length:
                    regions.append(data[body:following])
                    left -= 1
            return regions
        total = length
        ops = -1  # of the record, left to look at; of the first, `end` tells
        open_region = flags & CONTINUE_TRANS
        while left > 0 or open_region:
            if total > MAX_ITEM_BYTES:
                raise Corrupt("log item", self.where(place), "length", f"at most {MAX_ITEM_BYTES} bytes", total)
            if following >= end or ops == 0:
                now = self._load(now.next_block)
                data, end, following, ops = self._view, now.record.length, 0, now.record.num_ops
                continue
            got, length, _, flags = unpack(data, following)
            ops -= 1
            body = following + OP_BYTES
            following = body + length
            if got != tid:
                continue
            total += length
            if flags & WAS_CONT_TRANS:
                regions[-1] = bytes(regions[-1]) + data[body:following]
                open_region = flags & CONTINUE_TRANS
            elif length:
                regions.append(data[body:following])
                left -= 1
                open_region = flags & CONTINUE_TRANS
        return regions

    def record(self, place: int) -> bytes:
        """The data of the record that a place is in; `order` then says in what byte order."""
        block = place >> BLOCK_SHIFT
        now = self._now
        if now is None or now.record.block != block:
            self._load(block)
        return self._view

    def where(self, place: int) -> str:
        """A place, in words."""
        return f"{self._ring.where(place_block(place))}, byte {place_offset(place)} of its data"
