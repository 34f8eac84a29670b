"""A dirty log, read out: its transactions in order, each item with what it changes (for `pocketxfs log`).

The items are replayed onto an overlay while they are read, so that each can be compared with what was there before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..device import Device, Overlay
from ..errors import Corrupt
from ..format import log_items as li
from ..format.geometry import Geometry
from ..format.log import lsn_block, lsn_cycle
from ..memory import Machine
from . import describe
from .apply import Applier
from .buffers import BufferStore
from .describe import Change
from .fetch import Fetcher, Region
from .head import LogState
from .inplace import Borrowed
from .intents import describe as describe_intent
from .recovery import OVERLAY_SHIFT, OWNER, Tick, check_log_features, shares
from .ring import Ring
from .scan import CROSSES, Commit, Plan, place_type, scan


def lsn_words(lsn: int) -> str:
    """cycle:block."""
    return f"{lsn_cycle(lsn)}:{lsn_block(lsn)}"


class ItemView:
    """One item in words."""

    __slots__ = ("changes", "ino", "kind", "outcome", "what", "where")

    def __init__(
        self,
        kind: str,
        what: str,
        where: str,
        outcome: str = "",
        changes: list[Change] | None = None,
        ino: int | None = None,
    ) -> None:
        #: the kernel's name of the item
        self.kind = kind
        #: the structure that it changes, and where that is
        self.what, self.where = what, where
        #: "" where it is replayed, else why not
        self.outcome = outcome
        self.changes = changes or []
        self.ino = ino

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        found: dict[str, Any] = {"item": self.kind, "what": self.what, "where": self.where}
        if self.ino is not None:
            found["inode"] = self.ino
        found["replayed"] = not self.outcome
        if self.outcome:
            found["why_not"] = self.outcome
        found["changes"] = [change.as_dict() for change in self.changes]
        return found


class LogView:
    """The transactions of a dirty log.  A context manager."""

    def __init__(
        self, device: Device, ring: Ring, state: LogState, geo: Geometry, machine: Machine, tick: Tick | None = None
    ) -> None:
        check_log_features(geo, device.name)
        self._geo, self._machine = geo, machine
        share = shares(machine, ring)
        limit = max(64 << 10, machine.profile.ram_bytes >> OVERLAY_SHIFT)
        self._charged = share.total + limit
        machine.charge(OWNER, self._charged)
        try:
            self.plan: Plan = scan(ring, state, share.plan, tick, keep_cancels=True)
        except BaseException:
            machine.uncharge(OWNER, self._charged)
            raise
        self._overlay = Overlay(Borrowed(device), limit_bytes=limit)
        self._store = BufferStore(self._overlay, geo, share.store + share.inodes)
        self._applier = Applier(self._store, geo, self.plan.cancels, self.plan.quotas_off)
        self._fetcher = Fetcher(ring, share.fetch)
        self._lsn = -1

    def __enter__(self) -> LogView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory and temporary files."""
        if self._charged:
            self.plan.close()
            self._overlay.close()
            self._machine.uncharge(OWNER, self._charged)
            self._charged = 0

    @property
    def device(self) -> Device:
        """The device as the transactions seen so far make it; complete after `finish`."""
        return self._overlay

    def finish(self) -> None:
        """Write what is still held to `device`."""
        self._store.flush()

    def transactions(self) -> Iterator[Commit]:
        """In the order of their commits; take the items of each before the next."""
        return self.plan.commits()

    def inodes(self) -> Iterator[int]:
        """The inode numbers that inode items name."""
        places = self.plan.places.run(0, self.plan.places.length)
        for place in places:
            end = next(places) if place & CROSSES else 0
            if place_type(place) == li.LI_INODE:
                regions = self._fetcher.regions(place, end)
                yield self._fetcher.order.inode(regions[0], self._fetcher.where(place))[4]

    def items(self, commit: Commit) -> Iterator[ItemView]:
        """The items of a transaction, replayed one by one."""
        if commit.lsn != self._lsn:
            self._store.next_batch()
            self._lsn = commit.lsn
        self._store.remember = commit.more_with_lsn
        self._applier.number = commit.number
        places = self.plan.places.run(commit.start, commit.start + commit.count)
        for place in places:
            regions = self._fetcher.regions(place, next(places) if place & CROSSES else 0)
            yield self._item(place_type(place), self._fetcher.order, regions, commit.lsn, self._fetcher.where(place))

    def _item(self, kind: int, order: li.Abi, regions: list[Region], lsn: int, where: str) -> ItemView:
        if kind == li.LI_BUF:
            return self._buffer(order, regions, lsn, where)
        if kind == li.LI_INODE:
            return self._inode(order, regions, lsn, where)
        if kind == li.LI_ICREATE:
            return self._icreate(regions, where)
        if kind == li.LI_DQUOT:
            form = order.dquot(regions[0], where)
            self._applier.dquot(order, regions, lsn, where)
            return ItemView("DQUOT", f"dquot {form.id}", describe.place(self._geo, form.daddr))
        named = li.ITEM_NAMES[kind]
        if kind == li.LI_QUOTAOFF:
            return ItemView(named, "quotas switched off", "")
        ident = order.intent_id(regions[0], where)
        if kind in li.INTENT_OF:
            return ItemView(named, f"done with {li.ITEM_NAMES[li.INTENT_OF[kind]]} {ident:#x}", "")
        work = [Change("to do:", None, line) for line in describe_intent(kind, order, regions, self._geo, where)]
        return ItemView(named, f"intent {ident:#x}", "", changes=work)

    def _buffer(self, order: li.Abi, regions: list[Region], lsn: int, at: str) -> ItemView:
        geo, store, applier = self._geo, self._store, self._applier
        flags, nblocks, daddr, _ = order.buf(regions[0], at)
        where = describe.place(geo, daddr)
        announced = flags >> li.BLFT_SHIFT
        named = li.BLFT_NAMES[announced] if announced < len(li.BLFT_NAMES) else f"type {announced}"
        if flags & li.BLF_CANCEL:
            return ItemView("BUF", f"{nblocks << 9} bytes freed: earlier changes to them do not count", where)
        if applier.cancelled(daddr, nblocks):
            return ItemView("BUF", named, where, "freed later")
        before = bytes(store.get(daddr, nblocks, at).data)
        newer = applier.counts.buffers_newer
        applier.buffer(order, regions, lsn, at)
        after = bytes(store.get(daddr, nblocks, at).data)
        what = "inodes, unlinked pointers" if flags & li.BLF_INODE_BUF else describe.structure(after, geo) or named
        if applier.counts.buffers_newer != newer:
            return ItemView("BUF", what, where, "on the disk already")
        return ItemView("BUF", what, where, "", describe.buffer_changes(before, after, geo))

    def _inode(self, order: li.Abi, regions: list[Region], lsn: int, at: str) -> ItemView:
        geo, store, applier = self._geo, self._store, self._applier
        _, _, _, _, ino, _, daddr, nblocks, offset = order.inode(regions[0], at)
        where = describe.place(geo, daddr)
        if applier.cancelled(daddr, nblocks):
            return ItemView("INODE", "inode", where, "freed later", ino=ino)
        end = offset + geo.inode_bytes
        if offset < 0 or end > nblocks << 9:
            raise Corrupt("inode log item", at, "ilf_boffset", f"within {nblocks << 9} bytes", offset)
        before = bytes(store.get(daddr, nblocks, at).data[offset:end])
        newer = applier.counts.inodes_newer
        applier.inode(order, regions, lsn, at)
        after = bytes(store.get(daddr, nblocks, at).data[offset:end])
        outcome = "on the disk already" if applier.counts.inodes_newer != newer else ""
        return ItemView("INODE", "inode", where, outcome, describe.inode_changes(before, after, geo), ino)

    def _icreate(self, regions: list[Region], at: str) -> ItemView:
        geo = self._geo
        cancelled = self._applier.counts.icreates_cancelled
        self._applier.icreate(regions, at)
        agno, agbno, count, _, length, _ = li.ICREATE.unpack_from(regions[0])
        first = geo.make_ino(agno, agbno << geo.inopblog)
        outcome = "freed later" if self._applier.counts.icreates_cancelled != cancelled else ""
        return ItemView(
            "ICREATE", f"{count} new inodes from {first}", f"AG {agno} block {agbno}, blocks {length}", outcome
        )
