"""The machine: all memory of a mounted filesystem behind one object.

Every page in use has an owner, a short string ("buf:dir", "inode"); so has every slab object and every charge.  The
bytes by owner always add up to `used_bytes`.  Owners matter for one thing: when memory runs out the report names them.

Limits: one thread at a time; at most 255 owners of pages and objects.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import NoMemory, ReclaimDeadlock
from .buddy import (
    MAX_ORDER,
    NO_WATERMARK,
    NR_ORDERS,
    Buddy,
    Watermarks,
    fragmentation_index,
    unusable_index,
    watermarks,
)
from .context import FsRegion, Recursion, Stack, call_scope, check_kernel_allocation
from .frames import Frames
from .profile import Profile
from .reclaim import Reclaim, Shrinker
from .scope import NORMAL, current_scope, scope_name
from .slab import SlabCaches

if TYPE_CHECKING:
    from .large import Large
    from .vmalloc import VmallocArea

T = TypeVar("T")

#: Owners that the machine has itself: pages of slabs, and pages behind charges.
SLAB, CHARGED = "slab", "charged"


class Machine:
    """RAM of `profile.ram_bytes`.  Offsets are bytes into `map`, the direct map.

    Allocations raise `NoMemory` after reclaim; with `noretry` they try once, without reclaim.
    """

    __slots__ = (
        "_buddy",
        "_charge_pages",
        "_charge_room",
        "_charged",
        "_charges",
        "_kernel_flags",
        "_mask",
        "_owner_ids",
        "_owner_names",
        "_owner_pages",
        "_page_owner",
        "_shift",
        "_slab",
        "_vmalloc",
        "_wake",
        "failed",
        "frames",
        "last_failure",
        "map",
        "page_bytes",
        "profile",
        "reclaim",
        "recursions",
        "regions",
        "retried",
        "trace",
        "watermarks",
    )

    def __init__(self, profile: Profile) -> None:
        page_bytes = profile.page_bytes
        npages = profile.ram_bytes // page_bytes
        self.profile, self.page_bytes = profile, page_bytes
        self.frames = Frames(profile.ram_bytes, page_bytes)
        self.map = self.frames.map
        self.watermarks: Watermarks = watermarks(npages, page_bytes)
        self._shift, self._mask = page_bytes.bit_length() - 1, page_bytes - 1
        self._buddy = Buddy(npages)
        self.reclaim = Reclaim(self._buddy, page_bytes)
        #: The mark that an allocation without further ado must leave: low, or less after reclaim got nowhere.
        self._wake = self.watermarks.low
        # Owner 0 is nobody: the page is free.
        self._owner_ids: dict[str, int] = {}
        self._owner_names = [""]
        self._owner_pages = [0]
        self._page_owner = bytearray(npages)
        self._slab = SlabCaches(page_bytes, self._alloc_slab_page, self._free_slab_page)
        self._charges: dict[str, int] = {}
        self._charged = self._charge_room = 0
        self._charge_pages: list[int] = []
        #: Allocations, by order, that needed reclaim for themselves, and that failed.
        self.retried = [0] * NR_ORDERS
        self.failed = [0] * NR_ORDERS
        #: What the last failure looked like (JSON-able), for reports.
        self.last_failure: dict[str, Any] | None = None
        #: Regions that reclaim must not re-enter, open now: name, and who opened it.
        self.regions: list[tuple[str, Stack]] = []
        #: Allocations that could have done so (see `context`).
        self.recursions: list[Recursion] = []
        #: Whether the allocation under way is GFP_KERNEL, whatever its caller asked.
        self._kernel_flags = False
        self._vmalloc: VmallocArea | None = None
        #: Who records what happens here (see `buffer.trace`); nobody looks at it unless they do.
        self.trace: Any = None

    def close(self) -> None:
        """Give the RAM back to the host.  Nothing may be allocated or read afterwards."""
        if self._vmalloc is not None:
            self._vmalloc.close()
        self.frames.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- pages -----------------------------------------------------------------------------------------------------

    def alloc_pages(self, order: int, owner: str, *, noretry: bool = False) -> int:
        """Offset of 2^order pages, aligned to their size."""
        owner_id = self._owner_ids.get(owner) or self._new_owner(owner)
        page = self._buddy.alloc(order, self._wake)
        if page < 0:
            page = self._slow(self._buddy.alloc, order, order, 1 << order, owner, noretry)
        if order:
            npages = 1 << order
            self._page_owner[page : page + npages] = bytes((owner_id,)) * npages
            self._owner_pages[owner_id] += npages
        else:
            self._page_owner[page] = owner_id
            self._owner_pages[owner_id] += 1
        return page << self._shift

    def free_pages(self, offset: int, order: int) -> None:
        """Give back what `alloc_pages` gave.  Raises `ValueError` where it did not give that."""
        page = offset >> self._shift
        if offset & self._mask or offset < 0:
            raise ValueError(f"offset {offset} is not that of a page")
        self._buddy.give(page, order)
        owners = self._page_owner
        if order:
            npages = 1 << order
            self._owner_pages[owners[page]] -= npages
            owners[page : page + npages] = bytes(npages)
        else:
            self._owner_pages[owners[page]] -= 1
            owners[page] = 0

    def alloc_exact(self, nbytes: int, owner: str, *, noretry: bool = False) -> int:
        """Offset of a contiguous run of just as many pages as `nbytes` need: the tail of its block is given back."""
        if nbytes <= 0:
            raise ValueError(f"cannot allocate {nbytes} bytes")
        owner_id = self._owner_ids.get(owner) or self._new_owner(owner)
        npages = nbytes + self._mask >> self._shift
        page = self._buddy.alloc_run(npages, self._wake)
        if page < 0:
            order = (npages - 1).bit_length()
            page = self._slow(self._buddy.alloc_run, npages, order, 1 << order, owner, noretry)
        self._page_owner[page : page + npages] = bytes((owner_id,)) * npages
        self._owner_pages[owner_id] += npages
        return page << self._shift

    def free_exact(self, offset: int, nbytes: int) -> None:
        """Give back what `alloc_exact` gave."""
        page = offset >> self._shift
        if offset & self._mask or offset < 0:
            raise ValueError(f"offset {offset} is not that of a page")
        npages = nbytes + self._mask >> self._shift
        self._buddy.give_run(page, npages)
        self._owner_pages[self._page_owner[page]] -= npages
        self._page_owner[page : page + npages] = bytes(npages)

    def alloc_bulk(self, npages: int, owner: str, *, noretry: bool = False) -> list[int]:
        """Offsets of `npages` single pages, wherever they are; all or none."""
        if npages < 0:
            raise ValueError(f"cannot allocate {npages} pages")
        owner_id = self._owner_ids.get(owner) or self._new_owner(owner)
        pages = self._buddy.alloc_bulk(npages, self._wake)
        if pages is None:
            pages = self._slow(self._buddy.alloc_bulk, npages, 0, npages, owner, noretry)
        owners, shift = self._page_owner, self._shift
        for page in pages:
            owners[page] = owner_id
        self._owner_pages[owner_id] += npages
        return [page << shift for page in pages]

    def free_bulk(self, offsets: list[int]) -> None:
        """Give back single pages."""
        for offset in offsets:
            self.free_pages(offset, 0)

    # -- less than a page --------------------------------------------------------------------------------------------

    def kmalloc(self, nbytes: int, owner: str, *, noretry: bool = False) -> int:
        """Offset of an object: the next power of two from 64, aligned to that; whole pages above half a page."""
        if nbytes <= 0:
            raise ValueError(f"cannot allocate {nbytes} bytes")
        if nbytes << 1 > self.page_bytes:
            return self.alloc_pages((nbytes - 1 >> self._shift).bit_length(), owner, noretry=noretry)
        return self._slab.alloc(nbytes, self._owner_ids.get(owner) or self._new_owner(owner), noretry)

    def kfree(self, offset: int) -> None:
        """Give back what `kmalloc` gave."""
        page = offset >> self._shift
        slab = self._slab.slabs.get(page)
        if slab is not None:
            self._slab.free(slab, offset)
            return
        order = self._buddy.order_of(page)
        if order < 0:
            raise ValueError(f"no object is allocated at offset {offset}")
        self.free_pages(offset, order)

    def _alloc_slab_page(self, noretry: bool) -> int:
        return self.alloc_pages(0, SLAB, noretry=noretry)

    def _free_slab_page(self, offset: int) -> None:
        self.free_pages(offset, 0)

    # -- more than a page, mapped together -------------------------------------------------------------------------

    @property
    def vmalloc_area(self) -> VmallocArea:
        """The vmalloc area, reserved when it is first asked for.  Raises `Unsupported` where there can be none."""
        if self._vmalloc is None:
            from .vmalloc import VmallocArea

            self._vmalloc = VmallocArea(self)
        return self._vmalloc

    def kmem_alloc_large(self, nbytes: int, owner: str) -> Large:
        """Temporary memory in one piece: contiguous if that comes easily, else mapped together (see `large`)."""
        from .large import kmem_alloc_large

        return kmem_alloc_large(self, nbytes, owner)

    def kernel_alloc(self, nbytes: int, owner: str) -> int:
        """As `kmalloc`, but GFP_KERNEL whatever the caller asked, as page tables are; only a scope restrains it."""
        if self.regions:
            check_kernel_allocation(self, owner)
        before, self._kernel_flags = self._kernel_flags, True
        try:
            return self.kmalloc(nbytes, owner)
        finally:
            self._kernel_flags = before

    def fs_region(self, name: str) -> FsRegion:
        """Filesystem work that reclaim must not re-enter (see `context`); a context manager."""
        return FsRegion(self, name)

    # -- objects that live elsewhere -----------------------------------------------------------------------------------

    def charge(self, owner: str, nbytes: int) -> None:
        """Count `nbytes` of objects kept outside the RAM: one page of it is taken for each page of the sum."""
        if nbytes < 0:
            raise ValueError(f"cannot charge {nbytes} bytes")
        self._charged = total = self._charged + nbytes
        if total > self._charge_room:
            self._charge_more(nbytes, owner)
        charges = self._charges
        charges[owner] = charges.get(owner, 0) + nbytes

    def uncharge(self, owner: str, nbytes: int) -> None:
        """Take back a charge, or a part of it.  Raises `ValueError` where the owner has not been charged as much."""
        left = self._charges.get(owner, 0) - nbytes
        if left < 0 or nbytes < 0:
            raise ValueError(f"{owner} was not charged the {nbytes} bytes that it wants to uncharge")
        self._charges[owner] = left
        self._charged -= nbytes
        if self._charge_room - self._charged >= self.page_bytes:
            self._charge_less()

    def _charge_more(self, nbytes: int, owner: str) -> None:
        # Reclaim may call uncharge in between.  The new charge is counted already, so that it leaves room for it.
        try:
            while self._charged > self._charge_room:
                self._charge_pages.append(self.alloc_pages(0, CHARGED))
                self._charge_room += self.page_bytes
        except BaseException:
            self._charged -= nbytes
            self._charge_less()
            raise
        self._charge_less()

    def _charge_less(self) -> None:
        while self._charge_room - self._charged >= self.page_bytes:
            self._charge_room -= self.page_bytes
            self.free_pages(self._charge_pages.pop(), 0)

    # -- when memory is short ------------------------------------------------------------------------------------------

    def register_shrinker(self, shrinker: Shrinker) -> None:
        """Ask `shrinker` for memory from now on."""
        self.reclaim.shrinkers.append(shrinker)

    def unregister_shrinker(self, shrinker: Shrinker) -> None:
        """Ask it no more."""
        self.reclaim.shrinkers.remove(shrinker)

    def _slow(
        self,
        attempt: Callable[[int, int], T | None],
        size: int,
        order: int,
        npages: int,
        owner: str,
        noretry: bool,
    ) -> T:
        """An allocation that did not succeed above the low mark.  `attempt(size, mark)` gives None or -1 on failure."""
        marks, reclaim, buddy = self.watermarks, self.reclaim, self._buddy
        if noretry:
            got = attempt(size, marks.min)
            if got is None or got == -1:
                self.failed[min(order, MAX_ORDER)] += 1
                raise NoMemory(f"no memory for {owner} without reclaim: order {order}, {npages} pages")
            return got
        if reclaim.running:
            got = attempt(size, NO_WATERMARK)
            if got is None or got == -1:
                raise self._deadlock(order, npages, owner, "inside reclaim")
            return got
        if order > MAX_ORDER or npages > buddy.npages - marks.min:
            raise self._deadlock(order, npages, owner, "more than the machine has")
        scope = current_scope() if self._kernel_flags else call_scope(self)
        if scope == NORMAL and self.regions:
            self.failed[min(order, MAX_ORDER)] += 1
            raise ReclaimDeadlock(
                f"deadlock: memory for {owner} ran out inside {self.regions[-1][0]!r}, and reclaim, allowed "
                "everything, would have re-entered the filesystem there"
            )
        # What kswapd would do: there is one thread, so who finds memory low does it.
        if buddy.free - npages < marks.low:
            wanted = marks.high + npages - buddy.free << self._shift
            if reclaim.run(wanted, scope, lambda: buddy.free - npages >= marks.high):
                self._wake = marks.low
            else:  # do not come back for every page
                self._wake = max(marks.min, buddy.free - npages - (marks.low - marks.min >> 2))
        got = attempt(size, marks.min)
        if got is not None and got != -1:
            return got
        self.retried[order] += 1
        found: list[T] = []

        def enough() -> bool:
            got = attempt(size, marks.min)
            if got is None or got == -1:
                return False
            found.append(got)
            return True

        reclaim.run(npages << self._shift, scope, enough)
        if not found:
            raise self._deadlock(order, npages, owner, f"scope {scope_name(scope)}")
        return found[0]

    def _deadlock(self, order: int, npages: int, owner: str, why: str) -> NoMemory:
        """The report: what was wanted, what is free and in what pieces, and who holds the rest."""
        buddy, counted = self._buddy, min(order, MAX_ORDER)
        self.failed[counted] += 1
        counts = buddy.counts()
        index = fragmentation_index(counts, counted)
        holders = sorted(self.owners().items(), key=lambda item: -item[1])
        caches = [
            (f"{shrinker.name}:{label}" if label != shrinker.name else label, nbytes)
            for shrinker in self.reclaim.shrinkers
            for label, nbytes in shrinker.owners()
        ]
        self.last_failure = {
            "order": order,
            "pages": npages,
            "owner": owner,
            "why": why,
            "free_pages": buddy.free,
            "fragmentation_index": index,
            "unusable_index": unusable_index(counts, counted),
            "buddyinfo": counts,
            "owners": dict(holders),
            "caches": dict(caches),
        }
        text = (
            f"possible memory allocation deadlock: order {order} ({npages} pages) for {owner}, {why}; "
            f"{buddy.free} of {buddy.npages} pages free, {self.watermarks.min} in reserve, "
            f"fragmentation index {index}; held by: "
        )
        text += ", ".join(f"{name} {nbytes} bytes" for name, nbytes in holders) or "nobody"
        if caches:
            text += "; in caches: " + ", ".join(f"{name} {nbytes} bytes" for name, nbytes in caches)
        return NoMemory(text)

    # -- looking -----------------------------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """Bytes of RAM in use now."""
        return self._buddy.npages - self._buddy.free << self._shift

    @property
    def high_water_bytes(self) -> int:
        """The most that was ever in use."""
        return self._buddy.npages - self._buddy.least_free << self._shift

    @property
    def free_bytes(self) -> int:
        """Bytes of RAM that are free, the reserve included."""
        return self._buddy.free << self._shift

    def owners(self) -> dict[str, int]:
        """Bytes by owner; they add up to `used_bytes`.  Slabs' and charges' unused rests are the machine's own."""
        held: dict[str, int] = {}
        rest = {SLAB: self._slab.object_bytes, CHARGED: sum(self._charges.values())}
        for number, name in enumerate(self._owner_names):
            pages = self._owner_pages[number] << self._shift
            held[name] = pages - rest.get(name, 0) + self._slab.held[number]
        for name, nbytes in self._charges.items():
            held[name] = held.get(name, 0) + nbytes
        return {name: nbytes for name, nbytes in held.items() if nbytes}

    def charges(self) -> list[tuple[str, int]]:
        """What is charged to whom now."""
        return [(owner, nbytes) for owner, nbytes in self._charges.items() if nbytes]

    def page_owners(self) -> tuple[list[str], bytes]:
        """A picture of RAM: the names of owners, and for each page the index of its owner's (0: free)."""
        return list(self._owner_names), bytes(self._page_owner)

    def buddyinfo(self) -> str:
        """Free blocks by order, as a line of /proc/buddyinfo."""
        return "Node 0, zone   Normal " + "".join(f"{count:6d} " for count in self._buddy.counts())

    def free_blocks(self) -> list[int]:
        """Free blocks by order, as numbers."""
        return self._buddy.counts()

    @property
    def vmalloc_if_used(self) -> VmallocArea | None:
        """The vmalloc area, where somebody has asked for it."""
        return self._vmalloc

    def fragmentation_index(self, order: int) -> int:
        """See `buddy.fragmentation_index`."""
        return fragmentation_index(self._buddy.counts(), order)

    def unusable_index(self, order: int) -> int:
        """See `buddy.unusable_index`."""
        return unusable_index(self._buddy.counts(), order)

    @property
    def statistics(self) -> dict[str, Any]:
        """What happened so far: by order allocations, those that needed reclaim, those that failed; reclaim's work."""
        buddy, reclaim = self._buddy, self.reclaim
        return {
            "allocations": list(buddy.allocations),
            "retried": list(self.retried),
            "failed": list(self.failed),
            "splits": buddy.splits,
            "reclaim_runs": reclaim.runs,
            "reclaim_rounds": reclaim.rounds,
            "reclaimed_pages": reclaim.pages,
            "reclaimed_bytes": reclaim.claimed_bytes,
        }

    def report(self) -> dict[str, Any]:
        """All that can be said about the memory, JSON-able."""
        counts = self._buddy.counts()
        return {
            "machine": self.profile._asdict(),
            "ram_bytes": self.profile.ram_bytes,
            "used_bytes": self.used_bytes,
            "high_water_bytes": self.high_water_bytes,
            "free_bytes": self.free_bytes,
            "watermark_pages": self.watermarks._asdict(),
            "owners": self.owners(),
            "charged_bytes": self._charged,
            "buddyinfo": counts,
            "fragmentation_index": [fragmentation_index(counts, order) for order in range(NR_ORDERS)],
            "unusable_index": [unusable_index(counts, order) for order in range(NR_ORDERS)],
            "slab": self._slab.info(),
            "caches": {shrinker.name: shrinker.count() for shrinker in self.reclaim.shrinkers},
            "statistics": self.statistics,
            "vmalloc": None if self._vmalloc is None else self._vmalloc.report(),
            "recursions": [found.text() for found in self.recursions],
            "last_failure": self.last_failure,
        }

    def _new_owner(self, owner: str) -> int:
        number = len(self._owner_names)
        if number > 255 or not owner:
            raise ValueError(f"owner {owner!r}: a machine knows at most 255, each with a name")
        self._owner_ids[owner] = number
        self._owner_names.append(owner)
        self._owner_pages.append(0)
        return number
