"""A dirty log replayed onto a writable device: in two passes, as the kernel does it.

The first pass (`scan`) verifies and plans; nothing is written before it is through.  The second replays every committed
transaction in order.  What needs the allocators to be finished (pending intents, unlinked inodes, copy-on-write
leftovers) stays as the log leaves it, and is named in the report.

Memory: a share of the machine's, see `shares`, charged to it while the replay runs, whatever the log's size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..device import Device
from ..errors import Corrupt, Unsupported
from ..format import features as f
from ..format import log_items as li
from ..format import superblock
from ..format.block import checksum
from ..format.geometry import Geometry
from ..memory import Machine
from .apply import Applier, Counts
from .buffers import BufferStore
from .clusters import UsualInodes, window_bytes
from .fetch import KEPT_RECORDS, Fetcher, Region
from .head import LogState, find_state
from .intents import INTENT_ITEMS, Intents, Pending
from .leftovers import Leftovers, find_leftovers, sum_counters
from .ring import Ring
from .scan import CROSSES, Plan, scan

OWNER = "journal"
#: No more than this is used while replaying, and this much of the machine's memory stays free where there is as much.
MOST_BYTES = 32 << 20
LEFT_BYTES = 4 << 20
#: What stays for the overlay's own blocks afterwards.
OVERLAY_SHIFT = 4
#: What a record's headers and its objects take beside its data.
RECORD_EXTRA_BYTES = 8 << 10
#: The largest buffers are 64 KiB.
LEAST_STORE_BYTES = 256 << 10
#: A window of the inode changes, and some.
LEAST_INODES_BYTES = 80 << 10

Tick = Callable[[int], None]


class Report:
    """What a replay did and what it left."""

    __slots__ = (
        "bytes", "cancelled", "counts", "dropped", "intents_done", "intents_seen", "leftovers", "pending",
        "pending_count", "records", "state", "superblock_changed", "transactions",
    )  # fmt: skip

    def __init__(self, state: LogState) -> None:
        self.state = state
        self.records = self.transactions = self.bytes = self.cancelled = self.dropped = 0
        self.intents_seen = self.intents_done = 0
        self.counts = Counts()
        #: intents that are not done, the first of them, and how many there are
        self.pending: list[Pending] = []
        self.pending_count = 0
        self.leftovers = Leftovers()
        #: Whether the superblock was replayed: read it again, and the geometry from it.
        self.superblock_changed = False

    @property
    def unfinished(self) -> bool:
        """Whether something is left that only a filesystem with allocators can finish."""
        return self.pending_count > 0 or self.leftovers.any

    def unfinished_words(self) -> list[str]:
        """What is left, a line each."""
        words = [f"{one.kind} {one.ident:#x}: {'; '.join(one.work) or 'nothing named'}" for one in self.pending]
        if self.pending_count > len(self.pending):
            words.append(f"and {self.pending_count - len(self.pending)} more intents")
        return words + self.leftovers.words()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "records": self.records,
            "bytes": self.bytes,
            "transactions": self.transactions,
            "transactions_without_commit": self.dropped,
            "buffers_cancelled_by": self.cancelled,
            "replayed": self.counts.as_dict(),
            "intents": self.intents_seen,
            "intents_done": self.intents_done,
            "pending_intents": self.pending_count,
            "pending": [one.as_dict() for one in self.pending],
            "leftovers": self.leftovers.as_dict(),
            "tail_block": self.state.tail_block,
            "head_block": self.state.head_block,
        }


def log_ring(device: Device, geo: Geometry, logdev: Device | None) -> Ring:
    """The log of a filesystem: in the device, or on one of its own, which then must be given."""
    if geo.log_start:
        return Ring(device, geo.fsb_to_daddr(geo.log_start) << 9, geo.log_blocks << geo.block_log, geo)
    if logdev is None:
        raise Corrupt("superblock", device.name, "sb_logstart", "a log device to be given", "none")
    return Ring(logdev, 0, geo.log_blocks << geo.block_log, geo)


def replay(
    device: Device, geo: Geometry, machine: Machine, logdev: Device | None = None, *, tick: Tick | None = None
) -> tuple[Device, Report]:
    """The device as it is after the replay of its log, and what was done.

    `device` itself where the log is clean, else an overlay over it, which closes it; a replay that fails has closed it
    too.  Nothing is written to `device`.
    Raises `Corrupt` for a damaged log, `Unsupported` for one written in a foreign format.
    """
    ring = log_ring(device, geo, logdev)
    state = find_state(ring)
    if state.clean:
        return device, Report(state)
    check_log_features(geo, device.name)
    from ..device import Overlay

    limit = max(64 << 10, machine.profile.ram_bytes >> OVERLAY_SHIFT)
    machine.charge(OWNER + ":overlay", limit)
    try:
        overlay = Overlay(device, limit_bytes=limit, block_bytes=window_bytes(geo))
        try:
            with machine.fs_region("log recovery"), ring.buffered(machine):
                report = replay_onto(overlay, ring, state, geo, machine, tick=tick)
        except BaseException:
            overlay.close()
            raise
    except BaseException:
        machine.uncharge(OWNER + ":overlay", limit)
        raise
    return overlay, report


def check_log_features(geo: Geometry, name: str) -> None:
    """Refuse a dirty log that may hold what this version does not know."""
    unknown = geo.sb.sb_features_log_incompat & ~sum(f.LOG_INCOMPAT_BITS) if geo.has_crc else 0
    if unknown:
        named = ", ".join(f.names(unknown, f.LOG_INCOMPAT_BITS))
        raise Unsupported(f"{name}: the log holds items of feature {named}: this version cannot replay it")


class Shares(NamedTuple):
    """How the memory of a replay is divided, in bytes; `total` is what is charged for it.

    Where no inode changes wait, `store + inodes` are the store's.
    """

    plan: int
    store: int
    inodes: int
    fetch: int
    intents: int
    total: int


def shares(machine: Machine, ring: Ring) -> Shares:
    """Half of the machine's RAM, or all but 4 MiB, as far as that is free; most of it for inode changes that wait."""
    ram = machine.profile.ram_bytes
    budget = min(max(ram >> 1, ram - LEFT_BYTES), MOST_BYTES, max(ram >> 2, machine.free_bytes - (ram >> 2)))
    plan, intents = budget >> 3, budget >> 4
    fetch = max(budget >> 3, (KEPT_RECORDS + 1) * (ring.max_record_bytes + RECORD_EXTRA_BYTES))
    rest = max(LEAST_STORE_BYTES + LEAST_INODES_BYTES, budget - plan - intents - fetch)
    inodes = min(rest - LEAST_STORE_BYTES, rest * 7 // 8)
    return Shares(plan, rest - inodes, inodes, fetch, intents, plan + rest + fetch + intents)


def replay_onto(
    target: Device,
    ring: Ring,
    state: LogState,
    geo: Geometry,
    machine: Machine,
    *,
    tick: Tick | None = None,
    plain: bool = False,
) -> Report:
    """Replay a dirty log onto a writable device that is not the ring's own, or is a layer over it.

    `plain` takes no fast paths: what they do is tested against it.
    """
    share = shares(machine, ring)
    machine.charge(OWNER, share.total)
    try:
        plan = scan(ring, state, share.plan, tick)
        try:
            intents = Intents(geo, share.intents)
            try:
                return _second_pass(target, ring, state, geo, plan, share, intents, tick, plain)
            finally:
                intents.close()
        finally:
            plan.close()
    finally:
        machine.uncharge(OWNER, share.total)


def _second_pass(
    target: Device,
    ring: Ring,
    state: LogState,
    geo: Geometry,
    plan: Plan,
    share: Shares,
    intents: Intents,
    tick: Tick | None,
    plain: bool,
) -> Report:
    waiting = geo.has_crc and not plain
    store = BufferStore(target, geo, share.store if waiting else share.store + share.inodes)
    applier = Applier(store, geo, plan.cancels, plan.quotas_off)
    fetcher = Fetcher(ring, share.fetch)

    def inode_at(place: int, lsn: int) -> None:
        regions = fetcher.regions(place)
        try:
            applier.inode(fetcher.order, regions, lsn)
        except Corrupt as error:
            raise _located(error, fetcher.where(place)) from None

    usual = UsualInodes(applier, fetcher, share.inodes, inode_at) if waiting else None
    lsn, disk_lsn = -1, b""
    buf_kind, inode_kind = li.LI_BUF & 0xFF, li.LI_INODE & 0xFF
    for commit in plan.commits():
        if commit.lsn != lsn:
            store.next_batch()
            lsn = commit.lsn
            disk_lsn = lsn.to_bytes(8, "big")
        store.remember = commit.more_with_lsn
        applier.number = commit.number
        places = plan.places.run(commit.start, commit.start + commit.count)
        while place := next(places, 0):
            kind = place & 0xFF
            if kind == inode_kind and usual is not None:
                place = usual.take(places, place, disk_lsn)
                if not place:
                    break
                kind = place & 0xFF
            end = next(places) if place & CROSSES else 0
            regions = fetcher.regions(place, end)
            try:
                if kind == inode_kind:
                    applier.inode(fetcher.order, regions, lsn)
                elif kind == buf_kind:
                    applier.buffer(fetcher.order, regions, lsn)
                elif (kind | 0x1200) in INTENT_ITEMS:
                    intents.item(kind | 0x1200, fetcher.order, regions, lsn, "", place, end)
                else:
                    _apply(kind | 0x1200, fetcher.order, regions, lsn, applier)
            except Corrupt as error:
                found = _located(error, fetcher.where(place))
                raise (found if usual is None else usual.first_error(found)) from None
        if tick is not None:
            tick(commit.count)
    if usual is not None:
        usual.settle_all()
    store.flush()
    report = Report(state)
    report.records, report.bytes, report.transactions = plan.records, plan.bytes, plan.transactions
    report.cancelled, report.dropped = plan.cancelled, plan.open_left
    report.counts = applier.counts
    report.intents_seen, report.intents_done = intents.seen, intents.done
    report.pending, report.pending_count = intents.pending(fetcher), len(intents)
    report.superblock_changed = applier.superblock_changed
    after = geo
    if applier.superblock_changed:
        after = reread_geometry(target)
    report.leftovers = find_leftovers(target, after)
    _set_counters(target, after)
    report.superblock_changed = True
    return report


def _apply(kind: int, order: li.Abi, regions: list[Region], lsn: int, applier: Applier) -> None:
    if kind == li.LI_ICREATE:
        applier.icreate(regions)
    elif kind == li.LI_DQUOT:
        applier.dquot(order, regions, lsn)
    elif kind != li.LI_QUOTAOFF:
        raise Corrupt("log item", "", "type", "a known one", hex(kind))


def _located(error: Corrupt, where: str) -> Corrupt:
    """The error with the item's place, which is only put into words when there is one."""
    said = error.where.strip().strip(",").strip()
    return Corrupt(error.structure, f"{said}, {where}" if said else where, error.field, error.expected, error.found)


def reread_geometry(device: Device) -> Geometry:
    """The geometry that a device's superblock has now."""
    first = device.pread(0, 512)
    sector = superblock.decode(first).sb_sectsize
    if first[:4] == b"XFSB" and 512 < sector <= 32768:
        first = device.pread(0, sector)
    return Geometry(superblock.verify(first, f"{device.name}, AG 0, replayed"))


def _set_counters(device: Device, geo: Geometry) -> None:
    """The superblock's counts of inodes and free space, summed over the AGs (kernel: xfs_initialize_perag_data)."""
    if not geo.lazy_count:
        return
    icount, ifree, fdblocks = sum_counters(device, geo)
    if fdblocks > geo.dblocks or ifree > icount:
        raise Corrupt(
            "AG headers", device.name, "sums", f"at most {geo.dblocks} free blocks", (icount, ifree, fdblocks)
        )
    counts = b"".join(value.to_bytes(8, "big") for value in (icount, ifree, fdblocks))
    _change_superblock(device, geo, superblock.SB.offsets["sb_icount"], counts)


def clear_log_features(device: Device, geo: Geometry) -> None:
    """Nothing in the log needs a reader that knows them any more (kernel: xfs_clear_incompat_log_features)."""
    if geo.has_crc:
        _change_superblock(device, geo, superblock.SB.offsets["sb_features_log_incompat"], bytes(4))


def _change_superblock(device: Device, geo: Geometry, place: int, wanted: bytes) -> None:
    sector = bytearray(device.pread(0, geo.sector_bytes))
    if sector[place : place + len(wanted)] == wanted:
        return
    sector[place : place + len(wanted)] = wanted
    if geo.has_crc:
        crc = checksum(sector, superblock.SB_CRC_OFFSET)
        sector[superblock.SB_CRC_OFFSET : superblock.SB_CRC_OFFSET + 4] = crc.to_bytes(4, "little")
    device.pwrite(0, sector)
