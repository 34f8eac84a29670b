"""Recovery of an image in place: the replay written to the device, then the log closed as an unmount leaves it.

Everything is first replayed into an overlay: a log that cannot be replayed changes nothing.  Then, each step flushed
before the next begins:

1. the changed sectors whose LSN, if they have one, speaks for themselves alone: inodes of 512 bytes are such;
2. those whose LSN speaks for more: the heads of V5 blocks, and of larger inodes.  Where the power goes before this, a
   second recovery finds old LSNs and replays over everything again; where it goes within it, a head that says it is new
   has new content behind it;
3. the log in front of its head, where records may lie that were torn, is overwritten with empty ones of the last
   cycle, and an unmount record is written at the head.

Step 3 waits where something is left that needs allocators (`Report.unfinished`): the log then stays dirty, Linux
replays it once more without effect, and finishes what is pending.

Kernel: xlog_clear_stale_blocks, xfs_log_unmount_write, xlog_sync.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..device import Device, Overlay
from ..errors import Corrupt, Unsupported
from ..format import features as f
from ..format.geometry import Geometry
from ..format.log import (
    BB,
    BB_SHIFT,
    BIG_RECORD_BYTES,
    CLIENT_LOG,
    CRC_OFFSET,
    CYCLE_DATA_OFFSET,
    CYCLE_WORDS,
    FMT_LINUX_LE,
    HEADER_MAGIC,
    OP,
    OP_BYTES,
    RECORD_HEAD,
    RECORD_TAIL,
    RECORD_TAIL_OFFSET,
    UNMOUNT_MAGIC,
    UNMOUNT_TRANS,
    VERSION_1,
    VERSION_2,
    header_blocks,
    make_lsn,
    pack_cycles,
    record_checksum,
)
from ..memory import Machine
from .buffers import DA_MAGICS, MAGICS
from .clusters import window_bytes
from .head import LogState, find_state, room_before_tail
from .recovery import (
    OVERLAY_SHIFT,
    OWNER,
    Report,
    Tick,
    check_log_features,
    clear_log_features,
    log_ring,
    replay_onto,
)
from .ring import Ring

CHUNK_BYTES = 256 << 10
_UNMOUNT_TID = 0xB0C0D0D0
_INODE_HEAD = b"IN"


class Borrowed(Device):
    """Another's device, for reading; closing it does nothing."""

    __slots__ = ("_below",)

    def __init__(self, below: Device) -> None:
        super().__init__(below.name, below.size_bytes, sector_bytes=below.sector_bytes)
        self._below = below

    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        self._below.pread_into(offset_bytes, segments)

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        self.check_writable()

    def close(self) -> None:
        return


class Recovery:
    """What `recover` did: the replay's report, and whether the log was closed."""

    __slots__ = ("closed", "report", "sectors_written")

    def __init__(self, report: Report, sectors_written: int, closed: bool) -> None:
        self.report, self.sectors_written, self.closed = report, sectors_written, closed


def recover(
    device: Device, geo: Geometry, machine: Machine, logdev: Device | None = None, *, tick: Tick | None = None
) -> Recovery:
    """Replay the log of a writable device onto it.  A clean one is left alone.

    Raises `Corrupt` and `Unsupported`, always before anything is written, and `DeviceError`.
    """
    unknown = geo.sb.sb_features_ro_compat & ~sum(f.RO_COMPAT_BITS) if geo.has_crc else 0
    if unknown:
        named = ", ".join(f.names(unknown, f.RO_COMPAT_BITS))
        raise Unsupported(f"{device.name}: feature {named}: this version cannot write to it")
    device.check_writable()
    if logdev is not None:
        logdev.check_writable()
    ring = log_ring(device, geo, logdev)
    state = find_state(ring)
    if state.clean:
        return Recovery(Report(state), 0, True)
    check_log_features(geo, device.name)
    limit = max(64 << 10, machine.profile.ram_bytes >> OVERLAY_SHIFT)
    machine.charge(OWNER, limit)
    try:
        overlay = Overlay(Borrowed(device), limit_bytes=limit, block_bytes=window_bytes(geo))
        try:
            with machine.fs_region("log recovery"), ring.buffered(machine):
                report = replay_onto(overlay, ring, state, geo, machine, tick=tick)
            if not report.unfinished:
                clear_log_features(overlay, geo)
            written = _write_back(overlay, device, geo)
        finally:
            overlay.close()
    finally:
        machine.uncharge(OWNER, limit)
    if report.unfinished:
        return Recovery(report, written, False)
    close_log(ring, state)
    return Recovery(report, written, True)


def _write_back(overlay: Overlay, device: Device, geo: Geometry) -> int:
    """Steps 1 and 2; sectors written."""
    written = 0
    new, old = bytearray(CHUNK_BYTES), bytearray(CHUNK_BYTES)
    with memoryview(new) as into, memoryview(old) as before:
        for heads in (False, True):
            for start, nbytes in overlay.changes():
                end = start + nbytes
                while start < end:
                    some = min(CHUNK_BYTES, end - start)
                    overlay.pread_into(start, (into[:some],))
                    inodes = _all_inodes(new, some, geo)
                    if not (heads and inodes):
                        device.pread_into(start, (before[:some],))
                        written += _write_chunk(device, geo, start, some, new, old, heads, inodes)
                    start += some
            device.flush()
    return written


def _all_inodes(new: bytearray, nbytes: int, geo: Geometry) -> bool:
    """Whether every sector begins with an inode's magic and no sector is a head: most of what a replay changes."""
    return (
        geo.inode_bytes <= BB
        and new[0:nbytes:BB].count(_INODE_HEAD[0]) == -(-nbytes // BB)
        and new[1:nbytes:BB].count(_INODE_HEAD[1]) == -(-nbytes // BB)
    )


def _write_chunk(
    device: Device, geo: Geometry, start: int, nbytes: int, new: bytearray, old: bytearray, heads: bool, inodes: bool
) -> int:
    """The sectors of a range that differ and are heads, or are not, in runs as long as they come."""
    written = 0
    run = -1
    for place in range(0, nbytes, BB):
        sector = new[place : place + BB]
        wanted = sector != old[place : place + BB] and (inodes or is_head(bytes(sector), start + place, geo) == heads)
        if wanted and run < 0:
            run = place
        elif not wanted and run >= 0:
            device.pwrite(start + run, new[run:place])
            written += place - run
            run = -1
    if run >= 0:
        device.pwrite(start + run, new[run:nbytes])
        written += nbytes - run
    return -(-written // BB)


def is_head(sector: bytes, offset_bytes: int, geo: Geometry) -> bool:
    """Whether a sector, by its content, carries an LSN that speaks for more than itself.

    The primary superblock always counts, so that what refers to a grown filesystem's end never comes after it.
    """
    if offset_bytes == 0:
        return True
    if not geo.has_crc:
        return False
    spots = MAGICS.get(sector[:4]) or DA_MAGICS.get(sector[8:10])
    if spots is not None:
        return sector[spots[2] : spots[2] + 16] == geo.meta_uuid
    return geo.inode_bytes > BB and sector[:2] == _INODE_HEAD and offset_bytes % geo.inode_bytes == 0


# -- the log -------------------------------------------------------------------------------------------------------


def close_log(ring: Ring, state: LogState) -> None:
    """Step 3: after this the log is clean.  All that it held must be safe already."""
    if not state.unmountable:
        raise Corrupt("log", ring.name, "head", "one to write at", "none")
    clear_stale(ring, state)
    _write_at(ring, state.head_block, unmount_record(ring, state))
    ring.device.flush()
    if not find_state(ring).clean:
        raise Corrupt("log", ring.where(state.head_block), "state after its unmount record", "clean", "dirty")


def clear_stale(ring: Ring, state: LogState) -> None:
    """Empty records of the last cycle over what may have been written in front of the head before the crash."""
    head, cycle = state.head_block, state.head_cycle
    count = min(ring.outstanding_blocks, room_before_tail(ring, head, cycle, state.tail_lsn))
    first = min(count, ring.blocks - head)
    _write_empty(ring, head, first, cycle - 1, state.tail_lsn)
    _write_empty(ring, 0, count - first, cycle, state.tail_lsn)
    ring.device.flush()


def _write_empty(ring: Ring, start: int, count: int, cycle: int, tail_lsn: int) -> None:
    at_once = CHUNK_BYTES >> BB_SHIFT
    while count > 0:
        some = min(at_once, count)
        data = b"".join(
            _header(ring, cycle, make_lsn(cycle, block), tail_lsn, 0, 0, 0, 0) for block in range(start, start + some)
        )
        ring.device.pwrite(ring.base_bytes + (start << BB_SHIFT), data)
        start += some
        count -= some


def _header(
    ring: Ring, cycle: int, lsn: int, tail_lsn: int, length: int, prev_block: int, num_ops: int, size: int
) -> bytes:
    version = VERSION_2 if ring.v2 else VERSION_1
    block = bytearray(BB)
    RECORD_HEAD.struct.pack_into(block, 0, HEADER_MAGIC, cycle, version, length, lsn, tail_lsn, 0, prev_block, num_ops)
    RECORD_TAIL.struct.pack_into(block, RECORD_TAIL_OFFSET, FMT_LINUX_LE, ring.uuid, size)
    return bytes(block)


def unmount_record(ring: Ring, state: LogState) -> bytes:
    """The whole record, as it goes to the disk at the head."""
    size = max(ring.round_bytes, BIG_RECORD_BYTES) if ring.v2 else 0
    count = header_blocks(VERSION_2, size) if ring.v2 else 1
    body = OP_BYTES + 8
    total = -(-((count << BB_SHIFT) + body) // ring.round_bytes) * ring.round_bytes
    data = bytearray(total - (count << BB_SHIFT))
    OP.pack_into(data, 0, _UNMOUNT_TID, 8, CLIENT_LOG, UNMOUNT_TRANS)
    data[OP_BYTES : OP_BYTES + 2] = UNMOUNT_MAGIC.to_bytes(2, "little")
    length = len(data) if ring.v2 else body
    cycle, head = state.head_cycle, state.head_block
    lsn = make_lsn(cycle, head)
    words = pack_cycles(data, cycle)
    record = bytearray(_header(ring, cycle, lsn, lsn, length, state.last_record_block, 1, size))
    kept = words[: 4 * CYCLE_WORDS]
    record[CYCLE_DATA_OFFSET : CYCLE_DATA_OFFSET + len(kept)] = kept
    for index in range(1, count):
        more = bytearray(BB)
        more[:4] = cycle.to_bytes(4, "big")
        kept = words[4 * CYCLE_WORDS * index : 4 * CYCLE_WORDS * (index + 1)]
        more[4 : 4 + len(kept)] = kept
        record += more
    record += data
    # Blocks that wrap around the end of the log belong to the next cycle.
    for block in range(ring.blocks - head, len(record) >> BB_SHIFT):
        record[block << BB_SHIFT : (block << BB_SHIFT) + 4] = (cycle + 1).to_bytes(4, "big")
    with memoryview(record) as view:
        split = count << BB_SHIFT
        crc = record_checksum(view[:split], view[split : split + length])
    record[CRC_OFFSET : CRC_OFFSET + 4] = crc.to_bytes(4, "little")
    return bytes(record)


def _write_at(ring: Ring, block: int, data: bytes) -> None:
    first = min(len(data), (ring.blocks - block) << BB_SHIFT)
    ring.device.pwrite(ring.base_bytes + (block << BB_SHIFT), data[:first])
    if first < len(data):
        ring.device.pwrite(ring.base_bytes, data[first:])


__all__ = ["Recovery", "close_log", "recover"]
