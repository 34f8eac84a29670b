"""Items read again from their places in the log, whole: regions put together where they go on in later records."""

from __future__ import annotations

from collections import OrderedDict

from ..errors import Corrupt
from ..format.log import CONTINUE_TRANS, FMT_LINUX_LE, HEADER_MAGIC_BYTES, OP, OP_BYTES, WAS_CONT_TRANS, Record
from ..format.log_items import MAX_ITEM_BYTES, Abi, abi
from .ring import RecordData, Ring
from .scan import BLOCK_SHIFT, CROSSES, OFFSET_MASK, OFFSET_SHIFT, place_block, place_offset

Region = memoryview | bytearray
#: Records held at least: an item goes on from one into the next.
KEPT_RECORDS = 2


class Fetcher:
    """Reads items by place.  Keeps the records read last, as many as `limit_bytes` hold and `KEPT_RECORDS` at least.

    The log was scanned before: what is read here has been verified, and is verified again as it is read.
    """

    __slots__ = ("_bytes", "_ends", "_kept", "_limit", "_now", "_ring", "_view", "order")

    def __init__(self, ring: Ring, limit_bytes: int) -> None:
        self._ring = ring
        self._limit = limit_bytes
        self._kept: OrderedDict[int, RecordData] = OrderedDict()
        self._bytes = 0
        self._now: RecordData | None = None
        self._view = memoryview(b"")
        self.order: Abi = abi(FMT_LINUX_LE)
        #: record -> where its operations end; padding behind them can hold anything
        self._ends: dict[int, int] = {}

    def _load(self, block: int) -> RecordData:
        kept = self._kept
        found = kept.get(block)
        if found is None:
            header = self._ring.read(block, 1)
            record = Record(block, header)
            count = self._ring.header_count(record)
            if header[:4] != HEADER_MAGIC_BYTES or not self._ring.valid(record, self._ring.max_record_bytes):
                raise Corrupt("log record", self._ring.where(block), "header", "the one that was scanned", "another")
            found = RecordData(self._ring, record, count)
            if not found.crc_ok:
                raise Corrupt("log record", self._ring.where(block), "h_crc", "the one that was scanned", "another")
            while len(kept) >= KEPT_RECORDS and self._bytes + len(found.data) > self._limit:
                old, gone = kept.popitem(last=False)
                self._bytes -= len(gone.data)
                self._ends.pop(old, None)
            kept[block] = found
            self._bytes += len(found.data)
        else:
            kept.move_to_end(block)
        self._now = found
        self._view = memoryview(found.data)
        self.order = abi(found.record.fmt)
        return found

    def _end(self, data: RecordData) -> int:
        """Where the operations of a record end."""
        block = data.record.block
        end = self._ends.get(block)
        if end is None:
            place, ops, length = 0, data.record.num_ops, data.record.length
            while ops and place < length:
                ops -= 1
                place += OP_BYTES + OP.unpack_from(data.data, place)[1]
            end = self._ends[block] = min(place, length)
        return end

    def regions(self, place: int, end: int = 0) -> list[Region]:
        """The regions of the item at a place; `order` then says in what byte order they are.  Hot.

        `end` comes with a place that `CROSSES`: where the operations of its record end.
        """
        block = (place & ~CROSSES) >> BLOCK_SHIFT
        now = self._now
        if now is None or now.record.block != block:
            now = self._load(block)
        view = self._view
        offset = place >> OFFSET_SHIFT & OFFSET_MASK
        unpack = OP.unpack_from
        tid, length, _, flags = unpack(view, offset)
        body = offset + OP_BYTES
        following = body + length
        wanted = self.order.pair.unpack_from(view, body)[1]
        regions: list[Region] = [view[body:following]]
        if not place & CROSSES:
            while len(regions) < wanted:
                got, length, _, flags = unpack(view, following)
                body = following + OP_BYTES
                following = body + length
                if got == tid and length:
                    regions.append(view[body:following])
            return regions
        # What is collected over records is copied: views would hold on to more records than there is memory for.
        regions[0] = bytearray(regions[0])
        total = length
        open_region = flags & CONTINUE_TRANS
        while len(regions) < wanted or open_region:
            if total > MAX_ITEM_BYTES:
                raise Corrupt("log item", self.where(place), "length", f"at most {MAX_ITEM_BYTES} bytes", total)
            if following >= end:
                now = self._load(now.next_block)
                view, end, following = self._view, self._end(now), 0
                continue
            got, length, _, flags = unpack(view, following)
            body = following + OP_BYTES
            following = body + length
            if got != tid:
                continue
            total += length
            if flags & WAS_CONT_TRANS:
                regions[-1] += view[body:following]  # type: ignore[operator]
                open_region = flags & CONTINUE_TRANS
            elif length:
                regions.append(bytearray(view[body:following]))
                open_region = flags & CONTINUE_TRANS
        return regions

    def where(self, place: int) -> str:
        """A place, in words."""
        return f"{self._ring.where(place_block(place))}, byte {place_offset(place)} of its data"
