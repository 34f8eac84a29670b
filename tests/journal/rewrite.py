"""A log written again as another machine would have written it: big-endian, or 32-bit x86 with its padding.

The operations of a live log are taken out, what is in the byte order of its writer is put into the other form, and
records are written around it from the same place on, with the same record boundaries.  Struct strings here stand on
their own, beside those of `format.log_items`, which they test.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pocketxfs.format.log import (
    BB,
    CONTINUE_TRANS,
    CRC_OFFSET,
    CYCLE_DATA_OFFSET,
    OP,
    OP_BYTES,
    WAS_CONT_TRANS,
    make_lsn,
    pack_cycles,
    record_checksum,
)
from pocketxfs.journal.ring import RecordData

from .damage import Target

BUF, INODE, DQUOT, ICREATE, EFI, EFD = 0x123C, 0x123B, 0x123D, 0x123F, 0x1236, 0x1237
_HEADS = {BUF: "HHHHqI", DQUOT: "HHIqiI", ICREATE: "HH24s"}
_INODE64, _INODE32 = "HHIHHIQI12sqii", "HHIHHQI12sqii"
_CORE = "HHBBHIIIHHQ{}QQIIHBBIHHI4s4s"
_TAIL = "QQQI12s{}Q16s"


class Op(NamedTuple):
    """One operation of a record."""

    tid: int
    client: int
    flags: int
    data: bytes


class Writer(NamedTuple):
    """A machine that writes logs."""

    big: bool = False
    i386: bool = False

    @property
    def order(self) -> str:
        return ">" if self.big else "<"

    def again(self, layout: str, data: bytes) -> bytes:
        """Packed values in this machine's order; "s" stays as it is."""
        return struct.pack(self.order + layout, *struct.unpack("<" + layout, data))

    def first(self, kind: int, data: bytes) -> bytes:
        """The region that an item begins with."""
        if kind == INODE:
            values = struct.unpack("<" + _INODE64, data)
            if self.i386:
                return struct.pack(self.order + _INODE32, *values[:5], *values[6:])
            return struct.pack(self.order + _INODE64, *values)
        if kind in (EFI, EFD):
            count = struct.unpack_from("<I", data, 4)[0]
            extents = [struct.unpack_from("<QI", data, 16 + 16 * index) for index in range(count)]
            rest = "QI" if self.i386 else "QI4x"
            return self.again("HHIQ", data[:16]) + b"".join(struct.pack(self.order + rest, *one) for one in extents)
        layout = _HEADS[kind]
        size = struct.calcsize("<" + layout)
        if kind == BUF:
            layout += f"{(len(data) - size) // 4}I"
        return self.again(layout, data)

    def core(self, data: bytes) -> bytes:
        """A logged inode core."""
        bigtime = len(data) > 96 and struct.unpack_from("<Q", data, 120)[0] & 8
        times, created = ("QQQ", "Q") if bigtime else ("6I", "2I")
        if len(data) == 96:
            return self.again(_CORE.format(times)[:-4], data)
        return self.again(_CORE.format(times), data[:104]) + self.again(_TAIL.format(created), data[104:])


class _Transaction:
    """Where an open transaction is: what its next region will be."""

    def __init__(self) -> None:
        self.started = False
        self.kind = self.left = self.index = 0


def records(target: Target) -> Iterator[list[Op]]:
    """The operations of each live record."""
    for found in target.records:
        data = RecordData(target.ring, found.record, found.header_blocks).data
        ops = []
        for place, length in found.ops:
            tid, _, client, flags = OP.unpack_from(data, place)
            ops.append(Op(tid, client, flags, bytes(data[place + OP_BYTES : place + OP_BYTES + length])))
        yield ops


def convert(records: list[list[Op]], writer: Writer) -> list[list[Op]]:
    """The same operations from another machine.  A region that goes on in the next record is put together first."""
    opened: dict[int, _Transaction] = {}
    found: list[list[Op]] = [list(ops) for ops in records]
    for number, ops in enumerate(records):
        for index, op in enumerate(ops):
            if not op.data or op.flags & WAS_CONT_TRANS or op.client != 0x69:
                continue
            pieces = [(number, index)]
            if op.flags & CONTINUE_TRANS:
                pieces += _rest(records, number, op.tid)
            whole = b"".join(records[at][where].data for at, where in pieces)
            state = opened.setdefault(op.tid, _Transaction())
            whole = _region(whole, state, writer)
            lengths = [len(records[at][where].data) for at, where in pieces]
            lengths[-1] += len(whole) - sum(lengths)
            for (at, where), length in zip(pieces, lengths, strict=True):
                found[at][where] = records[at][where]._replace(data=whole[:length])
                whole = whole[length:]
    return found


def _rest(records: list[list[Op]], number: int, tid: int) -> Iterator[tuple[int, int]]:
    for later in range(number + 1, len(records)):
        for index, op in enumerate(records[later]):
            if op.tid == tid and op.flags & WAS_CONT_TRANS:
                yield later, index
                if not op.flags & CONTINUE_TRANS:
                    return
                break


def _region(data: bytes, state: _Transaction, writer: Writer) -> bytes:
    if not state.started:
        state.started = True
        return writer.again("IIII", data)
    if not state.left:
        state.kind, regions = struct.unpack_from("<HH", data)
        state.left, state.index = regions - 1, 0
        return writer.first(state.kind, data)
    state.left -= 1
    state.index += 1
    if state.kind == INODE and state.index == 1:
        return writer.core(data)
    return data  # as it is on the disk


def rewritten(target: Target, writer: Writer) -> bytes:
    """The image with its log written by another machine."""
    image = bytearray(target.image)
    ring = target.ring
    block, cycle = target.state.tail_block, target.records[0].record.cycle
    for found, ops in zip(target.records, convert(list(records(target)), writer), strict=True):
        body = b"".join(OP.pack(op.tid, len(op.data), op.client, op.flags) + op.data for op in ops)
        old = found.record
        count = found.header_blocks
        blocks = old.data_blocks if not writer.i386 else -(-len(body) // BB)
        length = old.length if not writer.i386 else len(body)
        data = bytearray(blocks * BB)
        data[: len(body)] = body
        words = pack_cycles(data, cycle)
        header = bytearray(ring.read(old.block, count))
        struct.pack_into(">I", header, 12, length)
        struct.pack_into(">Q", header, 16, make_lsn(cycle, block))
        struct.pack_into(">Q", header, 24, make_lsn(cycle, target.state.tail_block))
        struct.pack_into(">I", header, 300, 2 if writer.big else 1)
        assert count == 1
        header[CYCLE_DATA_OFFSET : CYCLE_DATA_OFFSET + len(words)] = words
        with memoryview(header) as view, memoryview(data) as rest:
            crc = record_checksum(view, rest[:length], i386=writer.i386)
        header[CRC_OFFSET : CRC_OFFSET + 4] = crc.to_bytes(4, "little") if old.crc else bytes(4)
        place = ring.base_bytes + block * BB
        image[place : place + len(header) + len(data)] = header + data
        block += count + blocks
    # what is left of longer records behind the new head has a cycle that says so
    while block < target.state.head_block:
        place = ring.base_bytes + block * BB
        image[place : place + BB] = (cycle - 1).to_bytes(4, "big") + bytes(BB - 4)
        block += 1
    return bytes(image)
