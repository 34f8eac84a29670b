"""The log as a ring of 512-byte blocks on some device: bounds, reads that wrap, records with their judgement.

Reads go through small buffers: nothing here holds more than one record (256 KiB and its headers) or one window.  Where
recovery has given the ring a log buffer, what is larger than a page is read into that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..device import Device
from ..errors import Corrupt, Unsupported
from ..format import features as f
from ..format.geometry import Geometry
from ..format.log import (
    BB,
    BB_SHIFT,
    BIG_RECORD_BYTES,
    HEADER_MAGIC_BYTES,
    MAX_ICLOGS,
    MAX_RECORD_BYTES,
    VERSION_OKBITS,
    Record,
    displaced_words,
    header_blocks,
    record_checksum_is,
    unpack_cycles,
)
from ..memory import Machine
from .logbuffer import LogBuffer

WINDOW_BLOCKS = 256
PAGE_BLOCKS = 8


class Ring:
    """The log of one filesystem."""

    __slots__ = (
        "base_bytes", "blocks", "buffer", "device", "has_crc", "max_record_blocks", "max_record_bytes", "name",
        "outstanding_blocks", "round_bytes", "sector_blocks", "uuid", "v2",
    )  # fmt: skip

    def __init__(self, device: Device, base_bytes: int, nbytes: int, geo: Geometry) -> None:
        self.device, self.base_bytes = device, base_bytes
        self.buffer: LogBuffer | None = None
        self.blocks = nbytes >> BB_SHIFT
        self.uuid = geo.uuid
        self.has_crc = geo.has_crc
        self.v2 = bool(geo.sb.sb_versionnum & f.LOGV2)
        self.name = f"{device.name}, log"
        self.max_record_bytes = MAX_RECORD_BYTES if self.v2 else BIG_RECORD_BYTES
        self.max_record_blocks = self.max_record_bytes >> BB_SHIFT
        #: What can be in flight at once when the power goes.
        self.outstanding_blocks = MAX_ICLOGS * self.max_record_bytes >> BB_SHIFT
        self.sector_blocks = max(1, geo.log_sector_bytes >> BB_SHIFT)
        #: Records are written in multiples of this.
        self.round_bytes = max(BB, geo.sb.sb_logsunit) if self.v2 else BB
        if self.round_bytes > MAX_RECORD_BYTES or self.round_bytes % BB:
            raise Corrupt(
                "superblock", device.name, "sb_logsunit", f"sectors, up to {MAX_RECORD_BYTES}", self.round_bytes
            )
        if nbytes < 64 * BB:
            raise Corrupt("superblock", device.name, "sb_logblocks", "at least 32 KiB of log", nbytes)
        if base_bytes < 0 or base_bytes + nbytes > device.size_bytes:
            raise Corrupt("log", device.name, "place", f"within {device.size_bytes} bytes", f"{base_bytes}+{nbytes}")

    def where(self, block: int) -> str:
        """A place in the log, in words."""
        return f"{self.name}, block {block}"

    def read(self, block: int, count: int) -> bytearray:
        """`count` blocks from `block` on, around the end of the ring where they reach past it."""
        if not 0 <= block < self.blocks or not 0 <= count <= self.blocks:
            raise Corrupt("log", self.name, "block range", f"within {self.blocks} blocks", f"{block}+{count}")
        first = min(count, self.blocks - block)
        if self.buffer is not None and count > PAGE_BLOCKS:
            return self._through(self.buffer, block, first, count)
        held = bytearray(count << BB_SHIFT)
        with memoryview(held) as view:
            self._into(block, view[: first << BB_SHIFT])
            if first < count:
                self._into(0, view[first << BB_SHIFT :])
        return held

    @contextmanager
    def buffered(self, machine: Machine) -> Iterator[None]:
        """Read by way of a log buffer of the machine's while this is open."""
        self.buffer = LogBuffer(machine)
        try:
            yield
        finally:
            self.buffer.free()
            self.buffer = None

    def _through(self, buffer: LogBuffer, block: int, first: int, count: int) -> bytearray:
        """`count` blocks by way of the log buffer, the first `first` of them from `block`, the rest from the start."""
        large = buffer.room(count << BB_SHIFT)
        split = first << BB_SHIFT
        self.device.pread_into(self.base_bytes + (block << BB_SHIFT), large.segments(0, split))
        if first < count:
            self.device.pread_into(self.base_bytes, large.segments(split, (count << BB_SHIFT) - split))
        return bytearray(large.data[: count << BB_SHIFT])

    def _into(self, block: int, view: memoryview) -> None:
        if len(view):
            self.device.pread_into(self.base_bytes + (block << BB_SHIFT), (view,))

    def cycle(self, block: int) -> int:
        """The cycle number that a block shows."""
        data = self.device.pread(self.base_bytes + (block << BB_SHIFT), 8)
        word = data[:4]
        return int.from_bytes(data[4:] if word == HEADER_MAGIC_BYTES else word, "big")

    def windows(self, start: int, count: int) -> Iterator[tuple[int, bytes]]:
        """(block, bytes) pieces of a range that does not wrap."""
        end = start + count
        while start < end:
            some = min(WINDOW_BLOCKS, end - start)
            yield start, self.device.pread(self.base_bytes + (start << BB_SHIFT), some << BB_SHIFT)
            start += some

    def first_with_cycle(self, start: int, count: int, cycle: int) -> int | None:
        """The first block of a range that shows this cycle number."""
        wanted = (cycle & 0xFFFFFFFF).to_bytes(4, "big")
        for block, data in self.windows(start, count):
            for place in range(0, len(data), BB):
                word = data[place : place + 4]
                if word == HEADER_MAGIC_BYTES:
                    word = data[place + 4 : place + 8]
                if word == wanted:
                    return block + (place >> BB_SHIFT)
        return None

    def last_header(self, start: int, end: int) -> int | None:
        """The last block of [start, end) that begins with a record header's magic."""
        while end > start:
            some = min(WINDOW_BLOCKS, end - start)
            end -= some
            data = self.device.pread(self.base_bytes + (end << BB_SHIFT), some << BB_SHIFT)
            for place in range(len(data) - BB, -1, -BB):
                if data[place : place + 4] == HEADER_MAGIC_BYTES:
                    return end + (place >> BB_SHIFT)
        return None

    def first_header(self, start: int, end: int) -> int | None:
        """The first block of [start, end) that begins with a record header's magic."""
        for block, data in self.windows(start, max(0, end - start)):
            for place in range(0, len(data), BB):
                if data[place : place + 4] == HEADER_MAGIC_BYTES:
                    return block + (place >> BB_SHIFT)
        return None

    def record(self, block: int) -> Record:
        """The header at a block, its UUID judged and nothing else."""
        found = Record(block, self.read(block, 1))
        if found.uuid not in (self.uuid, bytes(16)):
            raise Corrupt("log record", self.where(block), "h_fs_uuid", self.uuid.hex(), found.uuid.hex())
        return found

    def header_count(self, record: Record) -> int:
        """Header blocks of a record, as far as this log's version allows more than one."""
        return header_blocks(record.version, record.size) if self.v2 else 1

    def valid(self, record: Record, limit_bytes: int) -> bool:
        """Whether a header can be believed enough to read what it describes (kernel: xlog_valid_rec_header)."""
        if not record.version or record.version & ~VERSION_OKBITS:
            return False
        return 0 < record.length <= limit_bytes

    def after(self, block: int, count: int) -> int:
        """The block `count` blocks further on."""
        return (block + count) % self.blocks

    def distance(self, start: int, end: int) -> int:
        """Blocks from `start` forward to `end`; 0 where they are the same."""
        return (end - start) % self.blocks


class RecordData:
    """One record read whole: its header, and its data with the displaced words put back."""

    __slots__ = ("crc_ok", "data", "next_block", "record")

    def __init__(self, ring: Ring, record: Record, header_count: int) -> None:
        blocks = header_count + record.data_blocks
        raw = ring.read(record.block, blocks)
        split = header_count << BB_SHIFT
        with memoryview(raw) as view:
            header, data = view[:split], view[split : split + record.length]
            # V4 logs may be from before there were checksums: those say 0.
            self.crc_ok = (record.crc == 0 and not ring.has_crc) or record_checksum_is(record.crc, header, data)
            words = displaced_words(header, header_count, record.data_blocks)
            header.release()
            data.release()
        del raw[:split]
        unpack_cycles(raw, words)
        self.record = record
        self.data = raw
        self.next_block = ring.after(record.block, blocks)


def check_format(ring: Ring, record: Record) -> None:
    """Refuse a record that this program cannot read by name."""
    if record.fmt not in (1, 2):
        raise Unsupported(
            f"{ring.where(record.block)}: log written in format {record.fmt} (IRIX?): it can be replayed only there"
        )
