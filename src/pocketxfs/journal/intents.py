"""Intents, and the done items that end them: what a crash left half done, in words.

A long operation (freeing many extents, sharing blocks, swapping files) goes over several transactions; each first logs
what is still to do, an intent, and later that it is done.  An intent without its done item is pending when the log is
replayed, and the kernel then finishes the operation with its allocators.  Here it is kept, and named.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

from ..format import log_items as li
from ..format.geometry import Geometry
from .fetch import Fetcher, Region
from .spool import LIMIT_BYTES, LastSeen, Spool

#: Pending intents named one by one; more are only counted.
LISTED = 64
_DONE = 1
INTENT_ITEMS = frozenset(li.DONE_OF) | frozenset(li.INTENT_OF)

_RMAP_TYPES = {
    1: "map", 2: "map shared", 3: "unmap", 4: "unmap shared", 5: "convert", 6: "convert shared", 7: "allocate",
    8: "free",
}  # fmt: skip
_REFCOUNT_TYPES = {1: "share", 2: "unshare", 3: "stage for copy-on-write", 4: "unstage from copy-on-write"}
_BMAP_TYPES = {1: "map", 2: "unmap"}
_ATTR_OPERATIONS = {
    1: "set attribute", 2: "remove attribute", 3: "replace attribute", 4: "set parent pointer",
    5: "remove parent pointer", 6: "replace parent pointer",
}  # fmt: skip
_OWNERS = {
    (1 << 64) - 1: "unknown", (1 << 64) - 2: "unknown", (1 << 64) - 3: "fixed metadata", (1 << 64) - 4: "log",
    (1 << 64) - 5: "AG metadata", (1 << 64) - 6: "inode B+tree", (1 << 64) - 7: "inodes",
    (1 << 64) - 8: "refcount B+tree", (1 << 64) - 9: "copy-on-write staging",
}  # fmt: skip
_EXCHANGE_ATTR = 1
_BMAP_REALTIME = 1 << 29


class Pending(NamedTuple):
    """An intent without its done item."""

    #: what the kernel calls it: EFI, RUI, CUI, BUI, ATTRI, XMI, and the realtime ones
    kind: str
    ident: int
    lsn: int
    #: what is still to be done, a line each
    work: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"kind": self.kind, "id": f"{self.ident:#x}", "lsn": self.lsn, "work": list(self.work)}


class Intents:
    """The intents seen and not yet done, in bounded memory however many a log holds.

    An intent is known by its kind and id.  Ids are used again when their intents are done, so the last one counts.
    """

    __slots__ = ("_all", "_geo", "_latest", "_open", "done", "seen")

    def __init__(self, geo: Geometry, limit_bytes: int = LIMIT_BYTES) -> None:
        self._geo = geo
        #: kind, id, LSN and place of each intent, one behind the other
        self._all = Spool(limit_bytes // 4)
        #: (kind, id) -> where its last intent stands in that list (from 2 on), or `_DONE`
        self._latest = LastSeen(limit_bytes // 2)
        self._open = 0
        self.seen = self.done = 0

    def item(
        self, kind: int, order: li.Abi, regions: list[Region], lsn: int, where: str = "", place: int = 0, end: int = 0
    ) -> None:
        """One intent or done item; `place` and `end` are for the fetcher, when it is to be named."""
        ident = order.intent_id(regions[0], where)
        intent = li.INTENT_OF.get(kind)
        if intent is not None:
            if self._latest.get(intent, ident) > _DONE:
                self._latest.put(intent, ident, _DONE)
                self._open -= 1
                self.done += 1
            return
        describe(kind, order, regions, self._geo, where)  # judges it
        self._open += self._latest.get(kind, ident) <= _DONE
        self._latest.put(kind, ident, self.seen + _DONE + 1)
        self.seen += 1
        self._all.extend(array("Q", (kind | end << 16, ident, lsn, place)))

    def __len__(self) -> int:
        """How many are pending."""
        return self._open

    def pending(self, fetcher: Fetcher) -> list[Pending]:
        """The first `LISTED` that are left, in the order of the log."""
        found: list[Pending] = []
        numbers = self._all.run(0, self._all.length if self._open else 0)
        for number, packed in enumerate(numbers, _DONE + 1):
            ident, lsn, place = next(numbers), next(numbers), next(numbers)
            kind, end = packed & 0xFFFF, packed >> 16
            if self._latest.get(kind, ident) != number:
                continue
            regions = fetcher.regions(place, end)
            words = describe(kind, fetcher.order, regions, self._geo, fetcher.where(place))
            found.append(Pending(li.ITEM_NAMES[kind], ident, lsn, tuple(words)))
            if len(found) >= min(LISTED, self._open):
                break
        return found

    def close(self) -> None:
        """Let go of temporary files."""
        self._all.close()
        self._latest.close()


def describe(kind: int, order: li.Abi, regions: list[Region], geo: Geometry, where: str = "") -> list[str]:
    """What an intent wants done, a line for each extent."""
    region = regions[0]
    realtime = kind in (li.LI_EFI_RT, li.LI_RUI_RT, li.LI_CUI_RT)

    def place(block: int) -> str:
        if realtime:
            return f"realtime block {block}"
        agno, agb = geo.split_fsb(block)
        return f"AG {agno} block {agb}"

    if kind in (li.LI_EFI, li.LI_EFI_RT):
        return [f"free {blocks} blocks from {place(start)}" for start, blocks in order.extents(region, where)]
    if kind in (li.LI_RUI, li.LI_RUI_RT):
        return [
            f"{_RMAP_TYPES.get(flags & 0xFF, f'operation {flags & 0xFF} on')} {blocks} blocks from {place(start)} "
            f"in the reverse map: {_owner(owner)}{_fork(flags >> 31)}, file block {offset}"
            for owner, start, offset, blocks, flags in order.maps(region, where)
        ]
    if kind in (li.LI_CUI, li.LI_CUI_RT):
        return [
            f"{_REFCOUNT_TYPES.get(flags & 0xFF, f'operation {flags & 0xFF} on')} {blocks} blocks from {place(start)}"
            for start, blocks, flags in order.phys(region, where)
        ]
    if kind == li.LI_BUI:
        return [
            f"{_BMAP_TYPES.get(flags & 0xFF, f'operation {flags & 0xFF} on')} {blocks} blocks from "
            f"{f'realtime block {start}' if flags & _BMAP_REALTIME else place(start)}: "
            f"inode {owner}{_fork(flags >> 31)}, file block {offset}"
            for owner, start, offset, blocks, flags in order.maps(region, where)
        ]
    if kind == li.LI_XMI:
        _, ino1, ino2, _, _, off1, off2, blocks, flags, _, _ = order.xmi(region, where)
        return [
            f"exchange {blocks} blocks of inode {ino1} from file block {off1} with inode {ino2} from {off2}"
            f"{_fork(flags & _EXCHANGE_ATTR)}"
        ]
    if kind == li.LI_ATTRI:
        _, _, ino, operation, length, _, _, _ = order.attri(region, where)
        name = bytes(regions[1][:length]) if len(regions) > 1 else b""
        word = _ATTR_OPERATIONS.get(operation & 0xFF, f"attribute operation {operation & 0xFF}")
        shown = name.decode("utf-8", "backslashreplace")
        return [f"{word} {shown!r} of inode {ino}"]
    return [li.ITEM_NAMES.get(kind, hex(kind))]


def _owner(owner: int) -> str:
    return _OWNERS.get(owner) or f"inode {owner}"


def _fork(attributes: int) -> str:
    return " attribute fork" if attributes else ""
