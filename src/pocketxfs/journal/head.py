"""Where the log ends and begins: its head and tail, and whether it is clean (kernel: xlog_find_head, xlog_find_tail).

The head is where the next record would go.  Every block shows a cycle number, one higher on each turn around the
ring, so the head is the place where the number drops.  Up to eight records may be under way at once, each whole or
torn, when the power goes: around the apparent head that much is looked at block by block, the last eight records have
their checksums verified, and the head moves back before the first that fails.

A log that ends with a whole unmount record is clean.  That case, the usual one, takes a handful of reads: such a
record is written alone, after everything before it, so nothing needs to be looked at around it.

Limits: nothing is written; the checksums of records further back are verified when they are replayed.
"""

from __future__ import annotations

from typing import NamedTuple

from ..device import Device
from ..errors import Corrupt
from ..format.geometry import Geometry
from ..format.log import (
    BB,
    BB_SHIFT,
    HEADER_MAGIC_BYTES,
    MAX_ICLOGS,
    OP,
    OP_BYTES,
    UNMOUNT_TRANS,
    Record,
    cycle_of,
    lsn_block,
    lsn_cycle,
    record_checksum_is,
)
from .ring import Ring

#: A binary search goes on until this many blocks are left, which one read takes.
SEARCH_BLOCKS = 1024


class LogState(NamedTuple):
    """What was found.  Blocks are 512-byte blocks of the log."""

    clean: bool
    head_block: int
    tail_block: int
    #: the cycle that the next record written at the head will have
    head_cycle: int
    reason: str
    #: the last whole record, or -1 in a log never written
    last_record_block: int = -1
    #: its LSN and the LSN of the tail that it names
    last_lsn: int = 0
    tail_lsn: int = 0
    #: the first record found torn: the head was moved back to here
    torn_block: int = -1

    @property
    def unmountable(self) -> bool:
        """Whether there is a place for an unmount record: the log has been written before."""
        return self.last_record_block >= 0


def log_state(device: Device, log_base_bytes: int, log_bytes: int, geo: Geometry) -> LogState:
    """Find head, tail and state.  Raises `Corrupt` where this is no log, or one damaged beyond use."""
    return find_state(Ring(device, log_base_bytes, log_bytes, geo))


def find_state(ring: Ring) -> LogState:
    """As `log_state`, of a ring."""
    first, last = ring.cycle(0), ring.cycle(ring.blocks - 1)
    if first == 0:
        return LogState(True, 0, 0, 0, "never written")
    drop = _drop(ring, first, last)
    quick = _unmounted_at(ring, drop % ring.blocks)
    if quick is not None:
        return quick
    return _find_tail(ring, _find_head(ring, first, last, drop))


# -- the head ------------------------------------------------------------------------------------------------------


def _drop(ring: Ring, first: int, last: int) -> int:
    """The first block, as a binary search finds it, that has the last block's cycle number.

    The end of the log where all of it has the same.
    """
    if last == 0 and first != 1:
        raise Corrupt("log", ring.name, "cycle numbers", "first 1 where the last is 0", f"first {first}")
    if first == last:
        return ring.blocks
    low, high = 0, ring.blocks - 1
    while high - low > SEARCH_BLOCKS:
        middle = (low + high) >> 1
        if ring.cycle(middle) == last:
            high = middle
        else:
            low = middle
    base, data = low, ring.read(low, high - low)
    while high - low > 1:
        middle = (low + high) >> 1
        if cycle_of(data, (middle - base) << BB_SHIFT) == last:
            high = middle
        else:
            low = middle
    return high


def _find_head(ring: Ring, first: int, last: int, drop: int) -> int:
    """Verify the drop block by block as far back as records could be under way; then step back over a torn record."""
    window = ring.outstanding_blocks
    head = drop
    if last == 0:
        window = min(window, head)
        start = head - window
        found = ring.first_with_cycle(start, window, 0)
        if found is not None:
            head = found
        back = _back_to_record(ring, start, head, 0)
        if back is None:
            raise Corrupt("log", ring.name, "record header", "one before the head", "none")
        return back
    stop = last - 1 if first == last else last
    if head >= window:
        found = ring.first_with_cycle(head - window, window, stop)
        if found is not None:
            head = found
    else:
        beyond = min(window - head, ring.blocks)
        found = ring.first_with_cycle(ring.blocks - beyond, beyond, stop - 1)
        if found is None:
            found = ring.first_with_cycle(0, head, stop)
        if found is not None:
            head = found
    window = ring.max_record_blocks
    if head >= window:
        back = _back_to_record(ring, head - window, head, 0)
        if back is None:
            raise Corrupt("log", ring.name, "record header", f"one within {window} blocks before {head}", "none")
        head = back
    else:
        back = _back_to_record(ring, 0, head, 0)
        if back is None:
            start = max(0, ring.blocks - (window - head))
            end = _back_to_record(ring, start, ring.blocks, head)
            if end is None:
                raise Corrupt("log", ring.name, "record header", f"one within {window} blocks before {head}", "none")
            if end != ring.blocks:
                head = end
        else:
            head = back
    return 0 if head == ring.blocks else head


def _back_to_record(ring: Ring, start: int, end: int, extra: int) -> int | None:
    """`end`, or the start of the last record before it where that does not reach exactly to `end` (plus `extra`).

    None where there is no record header from block 0 on; where `start` is not 0 that is corruption.
    """
    block = ring.last_header(start, end)
    if block is None:
        if start > 0 and extra == 0:
            raise Corrupt("log", ring.name, "record header", f"one in blocks {start} to {end}", "none")
        return None
    record = ring.record(block)
    header = 1
    if ring.v2:
        header = max(1, -(-record.size // (32 * 1024)))
    if end - block + extra != record.data_blocks + header:
        return block
    return end


# -- the tail ------------------------------------------------------------------------------------------------------


def previous_record(ring: Ring, head: int, tail: int, count: int = 1) -> tuple[int, int, bool]:
    """(headers found, block of the last of them, whether it lies past the end of the ring) back from `head`.

    The search stops at `tail`.  Kernel: xlog_rseek_logrec_hdr.
    """
    found, block, wrapped = 0, -1, False
    end = head
    low = 0 if tail >= head else tail
    while found < count:
        here = ring.last_header(low, end)
        if here is None:
            break
        found, block, end = found + 1, here, here
    if tail >= head:
        end = ring.blocks
        while found < count:
            here = ring.last_header(tail, end)
            if here is None:
                break
            found, block, end, wrapped = found + 1, here, here, True
    return found, block, wrapped


def _is_unmount(ring: Ring, record: Record, head: int) -> bool:
    """Whether a record is an unmount record that ends at the head (kernel: xlog_check_unmount_rec)."""
    count = ring.header_count(record)
    if record.num_ops != 1 or ring.after(record.block, count + record.data_blocks) != head:
        return False
    data = ring.read(ring.after(record.block, count), 1)
    return bool(OP.unpack_from(data)[3] & UNMOUNT_TRANS)


def _unmounted_at(ring: Ring, head: int) -> LogState | None:
    """The state, if a whole unmount record of the right place and cycle ends at `head`; else None."""
    span = 8 + max(1, ring.round_bytes >> BB_SHIFT)
    start = head - span if head >= span else (0 if head else max(0, ring.blocks - span))
    end = head or ring.blocks
    data = ring.read(start, end - start)
    place = len(data) - BB
    while place >= 0 and data[place : place + 4] != HEADER_MAGIC_BYTES:
        place -= BB
    if place < 0:
        return None
    record = Record(start + (place >> BB_SHIFT), data[place : place + BB])
    count = ring.header_count(record)
    whole = data[place:]
    if (
        record.uuid != ring.uuid
        or record.num_ops != 1
        or not ring.valid(record, ring.max_record_bytes)
        or len(whole) != (count + record.data_blocks) << BB_SHIFT
        or lsn_block(record.lsn) != record.block
        or record.lsn >> 32 != record.cycle
    ):
        return None
    split = count << BB_SHIFT
    if not OP.unpack_from(whole, split)[3] & UNMOUNT_TRANS or record.length < OP_BYTES:
        return None
    with memoryview(whole) as view, view[:split] as header, view[split : split + record.length] as body:
        if record.crc and not record_checksum_is(record.crc, header, body):
            return None
    return _clean(ring, record, head)


def _clean(ring: Ring, record: Record, head: int, torn: int = -1) -> LogState:
    cycle = record.cycle + (head <= record.block)
    return LogState(True, head, head, cycle, "unmounted", record.block, record.lsn, record.tail_lsn, torn)


def _find_tail(ring: Ring, head: int) -> LogState:
    """From a head to the tail that its last record names; verifies the checksums before the head."""
    found, block, wrapped = previous_record(ring, head, head)
    if not found:
        raise Corrupt("log", ring.name, "record header", "one somewhere before the head", "none")
    record = ring.record(block)
    if _is_unmount(ring, record, head):
        return _clean(ring, record, head)
    torn = -1
    bad = _first_bad_record(ring, head, lsn_block(record.tail_lsn))
    if bad is not None:
        torn = head = bad
        found, block, wrapped = previous_record(ring, bad, lsn_block(record.tail_lsn))
        if not found:
            raise Corrupt("log record", ring.where(bad), "checksum", "a whole record before it", "none")
        record = ring.record(block)
        if _is_unmount(ring, record, head):
            return _clean(ring, record, head, torn)
    tail = lsn_block(record.tail_lsn)
    cycle = record.cycle + wrapped
    if tail >= ring.blocks:
        raise Corrupt("log record", ring.where(block), "h_tail_lsn", f"a block below {ring.blocks}", tail)
    if tail == head and torn >= 0:
        # More than eight records are damaged, or all there are: not what a crash leaves.
        raise Corrupt("log record", ring.where(torn), "checksum", "a whole record where the tail is", "a torn one")
    if tail == head:
        return LogState(True, head, tail, cycle, "nothing to replay", block, record.lsn, record.tail_lsn, torn)
    room_before_tail(ring, head, cycle, record.tail_lsn)
    used = ring.distance(tail, head)
    reason = f"{used * BB >> 10} KiB of changes not yet written back"
    return LogState(False, head, tail, cycle, reason, block, record.lsn, record.tail_lsn, torn)


def room_before_tail(ring: Ring, head: int, cycle: int, tail_lsn: int) -> int:
    """Blocks from the head on to the tail, which must be on the same turn around the ring, or on the last."""
    tail_cycle, tail = lsn_cycle(tail_lsn), lsn_block(tail_lsn)
    if cycle == tail_cycle and head >= tail:
        return tail + ring.blocks - head
    if cycle == tail_cycle + 1 and head <= tail:
        return tail - head
    found = f"block {tail} of cycle {tail_cycle}"
    raise Corrupt("log record", ring.name, "h_tail_lsn", f"one behind block {head} of cycle {cycle}", found)


def _first_bad_record(ring: Ring, head: int, tail: int) -> int | None:
    """The first of the last eight records before the head that is not whole (kernel: xlog_verify_head)."""
    if tail >= ring.blocks:
        tail = head
    found, block, _ = previous_record(ring, head, tail, MAX_ICLOGS)
    if not found:
        return None
    limit = ring.max_record_bytes
    left = ring.distance(block, head) or ring.blocks
    while left > 0:
        header = ring.read(block, 1)
        if header[:4] != HEADER_MAGIC_BYTES:
            return block
        record = Record(block, header)
        count = ring.header_count(record)
        if not ring.valid(record, limit) or count + record.data_blocks > min(left, ring.blocks):
            return block
        raw = ring.read(block, count + record.data_blocks)
        split = count << BB_SHIFT
        with memoryview(raw) as view, view[:split] as head_part, view[split : split + record.length] as body:
            if record.crc and not record_checksum_is(record.crc, head_part, body):
                return block
        block = ring.after(block, count + record.data_blocks)
        left -= count + record.data_blocks
    return None
