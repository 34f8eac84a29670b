"""The buffer cache: find, read, verify, hold, let go (kernel: xfs_buf.c).

Keyed by device and 512-byte address; the length must then agree.  A block is verified once for each read from the
device, and what fails is never cached.  Reclaim walks one queue: a buffer's reference count, set anew by each read, is
lowered each time the walk meets it, and at zero an unheld buffer goes.  One thread at a time; reclaim may run inside
any allocation, so nothing here allocates while its own books are half written.

Limits: reading only, so far.  Two buffers that begin at one address with different lengths exclude each other: an
unheld one gives way and is read anew, a held one is an error.  Ones that begin apart and overlap are not looked for:
as long as nothing is written they cannot disagree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from sys import intern
from typing import TYPE_CHECKING, Any

from ..errors import Corrupt, DeviceError, NoMemory
from ..format.geometry import Geometry
from .backing import Place, backing_named
from .buffer import Buffer, MappedBuffer, Maps, PagesBuffer, cut
from .ops import BufferOps

if TYPE_CHECKING:
    from ..device import Device
    from ..memory import Machine

#: What one `Buffer` costs besides its memory: the object, its view, its place in table and queue (measured: 470 on
#: CPython 3.11).  Charged to the machine in steps of `CHARGE_STEP` objects.
BUFFER_CHARGE_BYTES = 512
CHARGE_STEP = 8
#: Dead entries that the queue may carry before it is swept.
DEAD_MAX = 64


class KindStats:
    """What became of the buffers of one kind."""

    __slots__ = (
        "bytes_read", "cached", "cached_bytes", "dropped", "failed", "hits", "misses", "owner", "readaheads",
        "reclaimed",
    )  # fmt: skip

    def __init__(self, kind: str) -> None:
        #: The label that its memory is charged under.
        self.owner = intern(f"buf:{kind}")
        self.hits = self.misses = self.bytes_read = 0
        #: Read ahead or hinted; given up for want of memory or by the device.
        self.readaheads = self.dropped = 0
        #: Reads that the device or the verifier failed.
        self.failed = 0
        self.cached = self.cached_bytes = 0
        self.reclaimed = 0

    def report(self) -> dict[str, int]:
        """Its numbers by name."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "owner"}


class BufferCache:
    """All buffers of one filesystem, over one machine's memory.  A shrinker of that machine."""

    name = "buffers"
    #: What buffers in one piece, of single pages, and mapped are made of.
    plain: type[Buffer] = Buffer
    pages: type[PagesBuffer] = PagesBuffer
    mapped_pages: type[MappedBuffer] = MappedBuffer

    def __init__(
        self, machine: Machine, device: Device, geo: Geometry, backing: str = "contiguous",
        *, readahead: str = "auto",
    ) -> None:  # fmt: skip
        """`readahead`: "hint" tells the device and takes no memory, "read" reads at once if memory is free, "auto"
        hints where the device has a file behind it."""
        self.machine, self.device, self.geo = machine, device, geo
        self.backing = backing_named(backing, machine)
        self.memory: memoryview = machine.map
        #: All of the vmalloc area, where there are buffers in it.
        self.mapped: memoryview = machine.vmalloc_area.memory if self.backing.maps else machine.map[:0]
        #: As asked for, of what is cached now; asked for and really taken, of all buffers ever made.
        self.asked_bytes = self.total_asked_bytes = self.total_taken_bytes = 0
        self.peak_rounding_bytes = 0
        self.stats: dict[str, KindStats] = {}
        self.cached_bytes = 0
        self.peak_bytes = 0
        self._end_daddr = geo.dblocks << geo.block_sectors_log
        self._table: dict[int, Buffer] = {}
        self._tables: dict[int, tuple[Device, dict[int, Buffer]]] = {}
        self._queue: deque[Buffer] = deque()
        self._dead = 0
        self._objects = 0
        self._charged = 0
        self._taken: dict[int, int] = {}
        self._hints = readahead == "hint" or (readahead == "auto" and device.fileno() is not None)
        machine.register_shrinker(self)

    # -- reading -----------------------------------------------------------------------------------------------

    def read(self, daddr: int, nbytes: int, ops: BufferOps, *, device: Device | None = None) -> Buffer:
        """The block at `daddr`, held and verified.  Raises `Corrupt`, `DeviceError`, `NoMemory`."""
        if device is None:
            buf = self._table.get(daddr)
            if buf is not None and buf.plain_bytes == nbytes and buf.ops is ops:
                buf.holds += 1
                buf.lru_ref = ops.lru_ref
                buf.stats.hits += 1
                return buf
            return self._read(self.device, self._table, daddr, nbytes, None, ops)
        return self._read(device, self._table_of(device), daddr, nbytes, None, ops)

    def read_map(self, maps: Iterable[tuple[int, int]], ops: BufferOps, *, device: Device | None = None) -> Buffer:
        """One block whose pieces, (daddr, bytes) each, lie apart on disk.  As `read`."""
        pieces = tuple(maps)
        if len(pieces) == 1:
            return self.read(pieces[0][0], pieces[0][1], ops, device=device)
        where = self.device if device is None else device
        nbytes = sum(length for _, length in pieces)
        return self._read(where, self._table_of(where), pieces[0][0], nbytes, pieces, ops)

    def _read(
        self, device: Device, table: dict[int, Buffer], daddr: int, nbytes: int, maps: Maps | None, ops: BufferOps
    ) -> Buffer:
        buf = table.get(daddr)
        if buf is not None:
            if buf.nbytes == nbytes and buf.maps == maps:
                return self._take(buf, ops)
            if buf.holds:
                raise Corrupt(ops.name, f"daddr {daddr:#x}", "length, held with another", buf.nbytes, nbytes)
            self._kill(buf)
        stats = self.stats.get(ops.kind)
        if stats is None:
            stats = self.stats[ops.kind] = KindStats(ops.kind)
        stats.misses += 1
        if device is self.device and maps is None:
            if daddr < 0 or nbytes <= 0 or nbytes & 511 or daddr + (nbytes >> 9) > self._end_daddr:
                self._check_place(device, ((daddr, nbytes),), ops)
        else:
            self._check_place(device, maps or ((daddr, nbytes),), ops)
        if self._objects >= self._charged:
            self._charge()
        place = self.backing.allocate(nbytes, stats.owner)
        buf = self._new(device, table, daddr, nbytes, maps, place, stats)
        try:
            self.submit(buf)
            ops.verify(buf, self.geo)
        except BaseException:
            stats.failed += 1
            buf.holds = 0
            self._discard(buf)
            raise
        stats.bytes_read += nbytes
        buf.ops = ops
        if maps is None:
            buf.plain_bytes = nbytes
        buf.lru_ref = ops.lru_ref
        table[daddr] = buf
        if ops.lru_ref:
            buf.queued = True
            self._queue.append(buf)
        return buf

    def _take(self, buf: Buffer, ops: BufferOps) -> Buffer:
        """A cached buffer off the short path: read ahead, of another kind last time, or in pieces on disk."""
        if buf.ops is not ops:
            first = buf.ops is None
            buf.holds += 1
            try:
                ops.verify(buf, self.geo)
            except BaseException:
                # what was read ahead and is bad must not stay; what passed as another kind is still that
                buf.stats.failed += 1
                buf.holds -= 1
                if first and not buf.holds:
                    self._kill(buf)
                raise
            buf.holds -= 1
            buf.ops = ops
            if buf.maps is None:
                buf.plain_bytes = buf.nbytes
            if not buf.queued:
                buf.queued = True
                self._queue.append(buf)
        buf.holds += 1
        buf.lru_ref = ops.lru_ref
        buf.stats.hits += 1
        return buf

    def _check_place(self, device: Device, maps: Maps, ops: BufferOps) -> None:
        end = self._end_daddr if device is self.device else device.size_bytes >> 9
        for daddr, nbytes in maps:
            if nbytes <= 0 or nbytes & 511:
                raise Corrupt(ops.name, f"daddr {daddr:#x}", "length", "a multiple of 512", nbytes)
            if daddr < 0 or daddr + (nbytes >> 9) > end:
                raise Corrupt(ops.name, f"daddr {daddr:#x}", "address", f"the block below {end:#x}", daddr)

    # -- readahead ---------------------------------------------------------------------------------------------

    def readahead(self, daddr: int, nbytes: int, ops: BufferOps) -> None:
        """Say that a block will be read soon.  Never waits for memory, never raises for what it finds.

        A block that is really read now is verified when somebody asks for it, and only then can it fail.
        """
        if daddr in self._table:
            return
        stats = self.stats.get(ops.kind)
        if stats is None:
            stats = self.stats[ops.kind] = KindStats(ops.kind)
        if daddr < 0 or nbytes <= 0 or nbytes & 511 or daddr + (nbytes >> 9) > self._end_daddr:
            stats.dropped += 1
            return
        stats.readaheads += 1
        if self._hints:
            self.device.readahead(daddr << 9, nbytes)
        elif not self._read_ahead(daddr, nbytes, ops, stats):
            stats.dropped += 1

    def _read_ahead(self, daddr: int, nbytes: int, ops: BufferOps, stats: KindStats) -> bool:
        try:
            if self._objects >= self._charged:
                self._charge(noretry=True)
            place = self.backing.allocate(nbytes, stats.owner, True)
        except NoMemory:
            return False
        buf = self._new(self.device, self._table, daddr, nbytes, None, place, stats)
        buf.holds = 0
        try:
            self.submit(buf)
        except BaseException as error:
            self._discard(buf)
            if isinstance(error, DeviceError):
                return False
            raise
        stats.bytes_read += nbytes
        buf.lru_ref = max(1, ops.lru_ref)
        self._table[daddr] = buf
        buf.queued = True
        self._queue.append(buf)
        return True

    # -- books -------------------------------------------------------------------------------------------------

    def _table_of(self, device: Device) -> dict[int, Buffer]:
        if device is self.device:
            return self._table
        entry = self._tables.get(id(device))
        if entry is None:
            # the device is kept with its table, so that its id stays its own
            entry = self._tables[id(device)] = (device, {})
        return entry[1]

    def _new(
        self, device: Device, table: dict[int, Buffer], daddr: int, nbytes: int, maps: Maps | None, place: Place,
        stats: KindStats,
    ) -> Buffer:  # fmt: skip
        """A buffer over memory just taken, counted, in no table yet."""
        made = self.plain if type(place) is int else self.pages if type(place) is list else self.mapped_pages
        buf = made(self, table, device, daddr, nbytes, maps, place, stats)
        taken = self._taken.get(nbytes)
        if taken is None:
            taken = self._taken[nbytes] = self.backing.taken_bytes(nbytes)
        self._objects += 1
        stats.cached += 1
        stats.cached_bytes += taken
        total = self.cached_bytes = self.cached_bytes + taken
        if total > self.peak_bytes:
            self.peak_bytes = total
        asked = self.asked_bytes = self.asked_bytes + nbytes
        if total - asked > self.peak_rounding_bytes:
            self.peak_rounding_bytes = total - asked
        self.total_asked_bytes += nbytes
        self.total_taken_bytes += taken
        return buf

    def _discard(self, buf: Buffer) -> int:
        """Give back the memory of a buffer that is in no table.  Bytes freed."""
        place, nbytes, stats = buf.place, buf.nbytes, buf.stats
        buf.place = -1
        buf.plain_bytes = -1
        buf.unmap()
        taken = self._taken[nbytes]
        self._objects -= 1
        stats.cached -= 1
        stats.cached_bytes -= taken
        self.cached_bytes -= taken
        self.asked_bytes -= nbytes
        self.backing.free(place, nbytes)
        return taken

    def _kill(self, buf: Buffer) -> None:
        """Drop a cached, unheld buffer; its entry in the queue is swept later."""
        if buf.table.get(buf.daddr) is buf:
            del buf.table[buf.daddr]
        if buf.queued:
            self._dead += 1
        self._discard(buf)
        if self._dead > DEAD_MAX and self._dead > len(self._queue) >> 1:
            self._queue = deque(entry for entry in self._queue if entry.place != -1)
            self._dead = 0

    def destroy(self, buf: Buffer) -> None:
        """Called by a buffer whose last user has left and which is not to be kept."""
        if buf.place != -1:
            self._kill(buf)

    def _charge(self, noretry: bool = False) -> None:
        """Charge for the next few buffer objects.  Raises `NoMemory`."""
        machine = self.machine
        if noretry and machine.free_bytes <= (machine.watermarks.low + 1) * machine.page_bytes:
            raise NoMemory("no memory for the next buffer objects without reclaim")
        machine.charge(self.name, CHARGE_STEP * BUFFER_CHARGE_BYTES)
        self._charged += CHARGE_STEP

    # -- letting go --------------------------------------------------------------------------------------------

    def invalidate(self, daddr: int, *, device: Device | None = None) -> None:
        """Forget what is cached at `daddr`: the next read goes to the device.  Who holds it keeps it until release."""
        buf = self._table_of(self.device if device is None else device).pop(daddr, None)
        if buf is None:
            return
        buf.stale = True
        buf.plain_bytes = -1
        if not buf.holds:
            self._kill(buf)

    def count(self) -> int:
        """Bytes that reclaim can hope for.  Those held are counted too: they are few, and the hit path is short."""
        return self.cached_bytes

    def scan(self, nbytes: int, scope: object = None) -> int:
        """Reclaim: walk the queue until `nbytes` are free again or every buffer has been met at zero.  Bytes freed.

        Clean buffers may go in any scope: freeing one calls nothing above.
        """
        queue = self._queue
        freed = 0
        # enough turns to bring the highest reference count to zero, and one more
        budget = len(queue) * 6
        while freed < nbytes and budget > 0 and queue:
            budget -= 1
            buf = queue.popleft()
            if buf.place == -1:
                self._dead -= 1
                continue
            ref = buf.lru_ref
            if ref:
                buf.lru_ref = ref - 1
                queue.append(buf)
            elif buf.holds:
                queue.append(buf)
            else:
                if buf.table.get(buf.daddr) is buf:
                    del buf.table[buf.daddr]
                buf.stats.reclaimed += 1
                freed += self._discard(buf)
        spare = (self._charged - self._objects) // CHARGE_STEP - 1
        # a few objects' charge is kept for the reads to come, unless that too is needed
        if spare > 0 and (freed < nbytes or spare * CHARGE_STEP > self._objects):
            self._charged -= spare * CHARGE_STEP
            self.machine.uncharge(self.name, spare * CHARGE_STEP * BUFFER_CHARGE_BYTES)
            freed += spare * CHARGE_STEP * BUFFER_CHARGE_BYTES
        return freed

    def shrink(self, nbytes: int) -> int:
        """Give back about `nbytes` now.  Bytes freed."""
        return self.scan(nbytes)

    def owners(self) -> Iterable[tuple[str, int]]:
        """Who holds what, for the out-of-memory report."""
        found = [(stats.owner, stats.cached_bytes) for stats in self.stats.values() if stats.cached_bytes]
        found.append((self.name, self._charged * BUFFER_CHARGE_BYTES))
        return found

    def release_all(self) -> int:
        """Drop every buffer and all that was charged, at close.  Returns how many were still held.

        Those become unusable: their `data` raises ValueError, and releasing them does nothing.
        """
        held = 0
        tables = [self._table, *(table for _, table in self._tables.values())]
        for buf in [*self._queue, *(buf for table in tables for buf in table.values())]:
            if buf.place != -1:
                held += bool(buf.holds)
                self._discard(buf)
        for table in tables:
            table.clear()
        self._queue.clear()
        self._dead = 0
        self.machine.uncharge(self.name, self._charged * BUFFER_CHARGE_BYTES)
        self._charged = 0
        return held

    def submit(self, buf: Buffer) -> None:
        """Read a buffer from its device: bios of its segments (kernel: xfs_buf_ioapply_map)."""
        maps = buf.maps
        if maps is None:
            data = buf.data if type(buf.place) is int else None
            buf.device.pread_into(buf.daddr << 9, buf.segments() if data is None else (data,))
        else:
            for (at, _), segments in zip(maps, cut(buf.segments(), maps), strict=True):
                buf.device.pread_into(at << 9, segments)

    def all_buffers(self) -> list[Buffer]:
        """Every cached buffer, in no order, and those forgotten but still queued."""
        found = {id(buf): buf for buf in self._queue if buf.place != -1}
        for table in (self._table, *(table for _, table in self._tables.values())):
            found.update((id(buf), buf) for buf in table.values())
        return list(found.values())

    # -- what it did -------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """JSON-able statistics: totals, and each kind by name."""
        kinds = {kind: stats.report() for kind, stats in sorted(self.stats.items())}
        return {
            "backing": self.backing.name,
            "buffers": self._objects,
            "bytes": self.cached_bytes,
            "peak_bytes": self.peak_bytes,
            "asked_bytes": self.asked_bytes,
            "rounding_bytes": self.cached_bytes - self.asked_bytes,
            "peak_rounding_bytes": self.peak_rounding_bytes,
            "total_asked_bytes": self.total_asked_bytes,
            "total_taken_bytes": self.total_taken_bytes,
            "object_bytes": self._charged * BUFFER_CHARGE_BYTES,
            "hits": sum(stats.hits for stats in self.stats.values()),
            "misses": sum(stats.misses for stats in self.stats.values()),
            **self.backing.report(),
            "kinds": kinds,
        }
