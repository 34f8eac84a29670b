"""The first pass over a dirty log: every record verified, its operations put together to items and transactions.

What comes out is a `Plan`: the committed transactions in the order of their commits, and in each the places of its
items, sorted as the kernel replays them (buffers and new inode chunks; then inodes, dquots, intents; then buffers
that carry unlinked pointers).  A place is a number, so the plan of any log fits in bounded memory and a temporary
file; the items themselves are read again when they are replayed.  Also found here: which buffers are cancelled, after
which transaction (kernel: the cancel table), and which quotas were switched off.

Kernel: xlog_do_recovery_pass, xlog_recover_process_data, xlog_recover_reorder_trans, xlog_verify_tail.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from ..errors import Corrupt
from ..format.log import (
    BB_SHIFT,
    BIG_RECORD_BYTES,
    CLIENT_LOG,
    CLIENT_TRANSACTION,
    COMMIT_TRANS,
    CONTINUE_TRANS,
    END_TRANS,
    HEADER_MAGIC_BYTES,
    MAX_ICLOGS,
    OP,
    OP_BYTES,
    START_TRANS,
    UNMOUNT_TRANS,
    WAS_CONT_TRANS,
    Record,
    lsn_cycle,
    make_lsn,
)
from ..format.log_items import (
    BLF_CANCEL,
    BLF_INODE_BUF,
    DQ_GROUP,
    DQ_PROJ,
    DQ_USER,
    GQUOTA_ACCT,
    ITEM_NAMES,
    LI_BUF,
    LI_ICREATE,
    LI_QUOTAOFF,
    MAX_REGIONS,
    PQUOTA_ACCT,
    TRANS_HEADER_BYTES,
    TRANS_HEADER_MAGIC,
    UQUOTA_ACCT,
    Abi,
    abi,
)
from .head import LogState
from .ring import RecordData, Ring, check_format
from .spool import LastSeen, Spool

#: A place: whether the item goes on in a later record; block of the record's header; offset in its data; low byte of
#: the item's type.  Behind one that goes on stands, as a number of its own, where the record's operations end: what
#: follows them is padding and can hold anything.
CROSSES = 1 << 63
OFFSET_SHIFT = 8
BLOCK_SHIFT = 26
OFFSET_MASK = (1 << (BLOCK_SHIFT - OFFSET_SHIFT)) - 1

PHASES = 3
#: Transactions open at once; the kernel writes a handful.
MAX_OPEN = 1 << 12
#: Items of a transaction kept in memory; the more transactions are open at once, the fewer of each.
HELD_ITEMS = 16384
LEAST_HELD_ITEMS = 64
#: Bytes of a buffer item that its classification takes.
_BUF_NEEDED = 20

Tick = Callable[[int], None]


def place_block(place: int) -> int:
    """The record of a place."""
    return (place & ~CROSSES) >> BLOCK_SHIFT


def place_offset(place: int) -> int:
    """The offset of a place in its record's data."""
    return place >> OFFSET_SHIFT & OFFSET_MASK


def place_type(place: int) -> int:
    """The item type at a place."""
    return 0x1200 | place & 0xFF


class Commit:
    """A committed transaction of the plan: `count` places from `start` of the spool."""

    __slots__ = ("count", "lsn", "more_with_lsn", "number", "start")

    def __init__(self, number: int, lsn: int, start: int, count: int) -> None:
        self.number, self.lsn, self.start, self.count = number, lsn, start, count
        #: Whether the next transaction has the same LSN (kernel: buffers are written when the LSN changes).
        self.more_with_lsn = False


class Plan:
    """What a replay does."""

    __slots__ = (
        "_heads", "bytes", "cancelled", "cancels", "items", "open_left", "places", "quotas_off", "records",
        "tail_block", "transactions",
    )  # fmt: skip

    def __init__(self, limit_bytes: int) -> None:
        self.places = Spool(limit_bytes // 4)
        #: (LSN, places) of each transaction
        self._heads = Spool(limit_bytes // 8)
        #: (daddr, blocks) of a cancelled buffer -> number of the last transaction that cancels it
        self.cancels = LastSeen(limit_bytes // 2)
        self.quotas_off = 0
        self.records = self.bytes = self.transactions = self.items = self.cancelled = 0
        #: Transactions whose commit never reached the disk.
        self.open_left = 0
        self.tail_block = 0

    def add(self, lsn: int, count: int) -> None:
        """A transaction is complete; its places have been appended."""
        self._heads.append(lsn)
        self._heads.append(count)
        self.transactions += 1

    def commits(self) -> Iterator[Commit]:
        """The transactions in order."""
        waiting: Commit | None = None
        numbers = self._heads.run(0, self._heads.length)
        start = 0
        for number, lsn in enumerate(numbers, 1):
            count = next(numbers)
            commit = Commit(number, lsn, start, count)
            start += count
            if waiting is not None:
                waiting.more_with_lsn = waiting.lsn == lsn
                yield waiting
            waiting = commit
        if waiting is not None:
            yield waiting

    def close(self) -> None:
        """Let go of the temporary files."""
        self.places.close()
        self._heads.close()
        self.cancels.close()


class _Transaction:
    """One that has been started and not yet committed."""

    __slots__ = (
        "_most", "crossed", "ends", "goes_on", "header", "held", "last_phase", "left", "lsn", "spools", "split",
        "split_end", "split_place", "started", "tid",
    )  # fmt: skip

    def __init__(self, tid: int, lsn: int, most: int) -> None:
        self.tid, self.lsn = tid, lsn
        #: items of one phase in memory
        self._most = most
        self.header = b""
        self.started = False
        #: regions that the item under way still wants
        self.left = 0
        #: whether the last region goes on in a later record, and whether that of its item has been noted
        self.goes_on = self.crossed = False
        #: ends of records among the places
        self.ends = 0
        self.last_phase = -1
        #: places by phase, and behind them (daddr, blocks) of what it cancels, flattened
        self.held = [array("Q") for _ in range(PHASES + 1)]
        self.spools: list[Spool] | None = None
        #: the beginning of a first region that goes on in the next record, too short to tell what it is
        self.split: bytearray | None = None
        self.split_place = self.split_end = 0

    def add(self, phase: int, place: int) -> None:
        held = self.held[phase]
        if len(held) >= self._most:
            self._spill(phase)
        held.append(place)
        if place & CROSSES:
            held.append(self.split_end)
            self.ends += 1
        self.last_phase = phase

    def crosses(self, end: int) -> None:
        """The last item goes on in a later record; the operations of this one end at `end`."""
        self.goes_on = False
        if self.crossed:
            return
        self.crossed = True
        if self.split is not None:
            self.split_place |= CROSSES
            self.split_end = end
        elif self.last_phase >= 0:
            held = self.held[self.last_phase]
            held[-1] |= CROSSES
            held.append(end)
            self.ends += 1

    def cancel(self, daddr: int, nblocks: int) -> None:
        held = self.held[PHASES]
        held.append(daddr)
        held.append(nblocks)
        self.last_phase = -1
        if len(held) >= self._most:
            self._spill(PHASES)

    def _spill(self, phase: int) -> None:
        if self.spools is None:
            self.spools = [Spool(self._most) for _ in range(PHASES + 1)]
        self.spools[phase].extend(self.held[phase])
        del self.held[phase][:]

    def parts(self, phase: int) -> Iterator[array[int]]:
        """What one phase holds, in pieces."""
        if self.spools is not None:
            spool = self.spools[phase]
            for start in range(0, spool.length, self._most):
                yield spool.slice(start, min(spool.length, start + self._most))
        yield self.held[phase]

    def close(self) -> None:
        if self.spools is not None:
            for spool in self.spools:
                spool.close()
            self.spools = None


class _BadRecord(Exception):
    """A record that cannot be read whole: where, and why."""

    def __init__(self, block: int, error: Corrupt) -> None:
        super().__init__(block)
        self.block, self.error = block, error


def scan(
    ring: Ring, state: LogState, limit_bytes: int, tick: Tick | None = None, *, keep_cancels: bool = False
) -> Plan:
    """The plan for a dirty log.  Raises `Corrupt` for damage in mid-log, `Unsupported` for a foreign format.

    With `keep_cancels` the cancellations have places too, for who wants to show them.  Records torn at the tail (a
    record at the head was being written over them) move the tail up, as in the kernel.
    """
    tail = _first_record(ring, state.tail_block, state.head_block)
    reach = MAX_ICLOGS * (_log_buffer_bytes(ring, state) >> BB_SHIFT)
    held = max(LEAST_HELD_ITEMS, min(HELD_ITEMS, limit_bytes >> 5))
    while True:
        scanner = _Scanner(ring, Plan(limit_bytes), keep_cancels, held)
        try:
            scanner.run(tail, state, tick)
        except _BadRecord as bad:
            scanner.close()
            if (ring.distance(state.head_block, bad.block) or ring.blocks) > reach or bad.block == state.head_block:
                raise bad.error from None
            tail = _first_record(ring, ring.after(bad.block, 1), state.head_block)
            continue
        except BaseException:
            scanner.close()
            raise
        return scanner.plan


def _log_buffer_bytes(ring: Ring, state: LogState) -> int:
    """The size of the log buffers that the last record came from: eight of them can be torn at once."""
    if not ring.v2 or state.last_record_block < 0:
        return BIG_RECORD_BYTES
    size = ring.record(state.last_record_block).size
    return min(max(size, BIG_RECORD_BYTES), ring.max_record_bytes)


def _first_record(ring: Ring, start: int, head: int) -> int:
    """The first record header from `start` on, before the head."""
    if start <= head:
        found = ring.first_header(start, head)
    else:
        found = ring.first_header(start, ring.blocks)
        if found is None:
            found = ring.first_header(0, head)
    if found is None:
        raise Corrupt("log", ring.where(start), "record header", "one between tail and head", "none")
    return found


def records(ring: Ring, start: int, state: LogState) -> Iterator[RecordData]:
    """The records from `start` to the head, each read whole and verified; raises `_BadRecord`.

    Stricter than the kernel in one thing: a record must say that it stands where it does, in the cycle of that place,
    for its LSN decides what is replayed over.
    """
    block, head = start, state.head_block
    left = ring.distance(start, head)
    while left > 0:
        where = ring.where(block)
        header = ring.read(block, 1)
        if header[:4] != HEADER_MAGIC_BYTES:
            raise _BadRecord(block, Corrupt("log record", where, "h_magicno", "0xfeedbabe", header[:4].hex()))
        record = Record(block, header)
        count = ring.header_count(record)
        if not ring.valid(record, ring.max_record_bytes):
            raise _BadRecord(
                block,
                Corrupt(
                    "log record", where, "version, length", "1 or 2, 1 to 256 KiB", (record.version, record.length)
                ),
            )
        if record.uuid != ring.uuid:
            raise Corrupt("log record", where, "h_fs_uuid", ring.uuid.hex(), record.uuid.hex())
        if count + record.data_blocks > left:
            raise _BadRecord(block, Corrupt("log record", where, "h_len", f"at most {left} blocks", record.data_blocks))
        check_format(ring, record)
        data = RecordData(ring, record, count)
        lsn = make_lsn(state.head_cycle - (block >= head), block)
        if data.crc_ok and (record.lsn != lsn or record.cycle != lsn_cycle(lsn)):
            found = f"{record.lsn:#x} of cycle {record.cycle}"
            raise _BadRecord(block, Corrupt("log record", where, "h_lsn, h_cycle", hex(lsn), found))
        if not data.crc_ok:
            raise _BadRecord(
                block, Corrupt("log record", where, "h_crc", "that of what the record holds", hex(record.crc))
            )
        yield data
        left -= count + record.data_blocks
        block = data.next_block


class _Scanner:
    __slots__ = ("_held", "_keep_cancels", "_open", "plan", "ring")

    def __init__(self, ring: Ring, plan: Plan, keep_cancels: bool, held: int) -> None:
        self._keep_cancels, self._held = keep_cancels, held
        self.ring, self.plan = ring, plan
        self._open: dict[int, _Transaction] = {}

    def close(self) -> None:
        for transaction in self._open.values():
            transaction.close()
        self.plan.close()

    def run(self, tail: int, state: LogState, tick: Tick | None) -> None:
        plan = self.plan
        plan.tail_block = tail
        for data in records(self.ring, tail, state):
            self._record(data)
            plan.records += 1
            plan.bytes += data.record.length
            if tick is not None:
                tick(data.record.length)
        for transaction in self._open.values():
            plan.open_left += transaction.started
            transaction.close()
        self._open.clear()

    def _record(self, record_data: RecordData) -> None:
        """Every operation of one record.  Hot."""
        record, data = record_data.record, record_data.data
        order = abi(record.fmt)
        end, ops = record.length, record.num_ops
        base = record.block << BLOCK_SHIFT
        opened = self._open
        unpack = OP.unpack_from
        pair = order.pair.unpack_from
        place = 0
        last_tid = -1
        transaction: _Transaction | None = None
        while ops and place < end:
            ops -= 1
            body = place + OP_BYTES
            if body > end:
                raise self._bad(record, place, "operation header", f"within {end} bytes", body)
            tid, length, client, flags = unpack(data, place)
            following = body + length
            if following > end:
                raise self._bad(record, place, "oh_len", f"at most {end - body}", length)
            if tid != last_tid:
                transaction = opened.get(tid)
                last_tid = tid
            if flags == 0 and transaction is not None and transaction.left > 0 and length:
                transaction.left -= 1
                place = following
                continue
            if client != CLIENT_TRANSACTION and client != CLIENT_LOG:
                raise self._bad(record, place, "oh_clientid", "0x69 or 0xaa", client)
            if transaction is None:
                # What began before the tail has no start here, and nothing of it matters.
                if flags & START_TRANS:
                    if len(opened) >= MAX_OPEN:
                        raise self._bad(record, place, "transactions", f"at most {MAX_OPEN} under way", len(opened))
                    most = max(LEAST_HELD_ITEMS, self._held // (len(opened) + 1))
                    transaction = opened[tid] = _Transaction(tid, record.lsn, most)
                place = following
                continue
            flags &= ~END_TRANS
            if flags & WAS_CONT_TRANS:
                flags &= ~CONTINUE_TRANS
            if flags == 0 or flags == CONTINUE_TRANS:
                if length == 0:
                    pass
                elif not transaction.started:
                    self._header(transaction, data[body:following], order, record, place)
                elif transaction.left:
                    transaction.left -= 1
                else:
                    if transaction.split is not None:
                        self._classify_split(transaction, order, record, place)
                    if length < 4:
                        raise self._bad(record, place, "item", "at least 4 bytes", length)
                    kind, regions = pair(data, body)
                    if not 0 < regions <= MAX_REGIONS:
                        raise self._bad(record, place, "regions of an item", f"1 to {MAX_REGIONS}", regions)
                    transaction.left = regions - 1
                    transaction.crossed = False
                    where = base | place << OFFSET_SHIFT | kind & 0xFF
                    if kind in (LI_BUF, LI_QUOTAOFF):
                        if length < _BUF_NEEDED and flags:
                            transaction.split = data[body:following]
                            transaction.split_place = where
                        else:
                            self._classify(transaction, order, kind, data[body : body + 24], where, record, place)
                    elif kind in ITEM_NAMES:
                        transaction.add(0 if kind == LI_ICREATE else 1, where)
                    else:
                        raise self._bad(record, place, "item type", "a known one", hex(kind))
                    if not flags:
                        # The rest of the item, which nearly always follows at once.
                        place, left = following, regions - 1
                        while left and ops and place + OP_BYTES <= end:
                            got, length, _, flags = unpack(data, place)
                            following = place + OP_BYTES + length
                            if flags or got != tid or not length or following > end:
                                break
                            ops -= 1
                            left -= 1
                            place = following
                        transaction.left = left
                        continue
                if flags:
                    transaction.goes_on = True
            elif flags == WAS_CONT_TRANS:
                if not transaction.started:
                    self._header(transaction, data[body:following], order, record, place)
                else:
                    if transaction.split is not None and len(transaction.split) < 24:
                        transaction.split += data[body : min(following, body + 24)]
            elif flags == COMMIT_TRANS:
                self._commit(transaction, order, record, place)
                transaction = None
            elif flags == UNMOUNT_TRANS:
                opened.pop(tid).close()
                transaction = None
            else:
                raise self._bad(record, place, "oh_flags", "a known combination", hex(flags))
            place = following
        for transaction in opened.values():
            if transaction.left or transaction.goes_on:
                transaction.crosses(place)

    def _header(self, transaction: _Transaction, part: bytearray, order: Abi, record: Record, place: int) -> None:
        """The transaction's own header, which may come in parts."""
        transaction.header += bytes(part)
        found = transaction.header
        if len(found) > TRANS_HEADER_BYTES:
            raise self._bad(record, place, "transaction header", TRANS_HEADER_BYTES, len(found))
        if len(found) >= 4 and order.word.unpack_from(found)[0] != TRANS_HEADER_MAGIC:
            raise self._bad(record, place, "th_magic", hex(TRANS_HEADER_MAGIC), found[:4].hex())
        transaction.started = len(found) == TRANS_HEADER_BYTES

    def _classify_split(self, transaction: _Transaction, order: Abi, record: Record, place: int) -> None:
        part, where = transaction.split, transaction.split_place
        transaction.split = None
        if part is not None:
            self._classify(transaction, order, place_type(where), part, where, record, place)

    def _classify(
        self,
        transaction: _Transaction,
        order: Abi,
        kind: int,
        region: bytearray,
        where: int,
        record: Record,
        place: int,
    ) -> None:
        """A buffer item or a quotaoff: both say in their first region what this pass wants to know."""
        plan = self.plan
        if kind == LI_QUOTAOFF:
            if len(region) < 8:
                raise self._bad(record, place, "quotaoff item", "at least 8 bytes", len(region))
            flags = order.quotaoff.unpack_from(region)[0]
            plan.quotas_off |= (
                (DQ_USER if flags & UQUOTA_ACCT else 0)
                | (DQ_PROJ if flags & PQUOTA_ACCT else 0)
                | (DQ_GROUP if flags & GQUOTA_ACCT else 0)
            )
            transaction.add(1, where)
            return
        if len(region) < _BUF_NEEDED:
            raise self._bad(record, place, "buffer item", f"at least {_BUF_NEEDED} bytes", len(region))
        flags, nblocks, daddr, _ = order.buf_head.unpack_from(region)
        if flags & BLF_CANCEL:
            if daddr < 0:
                raise self._bad(record, place, "blf_blkno", "at least 0", daddr)
            transaction.cancel(daddr, nblocks)
            if self._keep_cancels:
                transaction.add(PHASES - 1, where)
            return
        transaction.add(2 if flags & BLF_INODE_BUF else 0, where)

    def _commit(self, transaction: _Transaction, order: Abi, record: Record, place: int) -> None:
        if transaction.split is not None:
            self._classify_split(transaction, order, record, place)
        if transaction.left:
            raise self._bad(record, place, "transaction", "whole items", f"{transaction.left} regions missing")
        if not transaction.started:
            raise self._bad(record, place, "transaction", "a header", "none")
        del self._open[transaction.tid]
        plan = self.plan
        number = plan.transactions + 1
        count = 0
        for phase in range(PHASES):
            for part in transaction.parts(phase):
                plan.places.extend(part)
                count += len(part)
        for part in transaction.parts(PHASES):
            for index in range(0, len(part), 2):
                plan.cancels.put(part[index], part[index + 1], number)
            plan.cancelled += len(part) >> 1
        transaction.close()
        plan.items += count - transaction.ends
        plan.add(transaction.lsn, count)

    def _bad(self, record: Record, place: int, field: str, expected: object, found: object) -> Corrupt:
        return Corrupt(
            "log record", f"{self.ring.where(record.block)}, byte {place} of its data", field, expected, found
        )
