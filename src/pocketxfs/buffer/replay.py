"""A trace played again over any machine and backing, without a filesystem (see `trace` for how one is made).

    machine = Machine(profile("i386:vmalloc=8M", 4 << 20))
    outcome = Replay(machine, "vm-map-ram").run(lines)

Everything is real but the disk: memory is found, mapped and given back as for a filesystem, reads and their segments
are counted, and bring nothing.  What objects were charged (in-core inodes) is charged here too, as a cache that
reclaim may shrink: what it gives up is not there to be uncharged later.

Limits: that a filesystem with less memory would have read inodes again is not played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from ..device import Device
from ..errors import NoMemory
from ..memory import NOFS, Machine, nofs, noio
from .buffer import Buffer
from .cache import BufferCache
from .ops import BufferOps

#: Owners of charges that reclaim may shrink.
SHRINKABLE = ("inode",)
_END_BYTES = 1 << 62


class NullDevice(Device):
    """A device of any size that counts reads and brings nothing."""

    __slots__ = ()

    def __init__(self, name: str = "trace") -> None:
        super().__init__(name, _END_BYTES)

    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        self.reads += 1
        self.segments += len(segments)
        self.read_bytes += sum(map(len, segments))

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1
        self.written_bytes += len(data)

    def close(self) -> None:
        """Nothing to let go of."""


class _Charges:
    """The trace's charges, as a cache."""

    name = "charges"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        #: What is charged, and what the trace thinks is charged beside it.
        self.held: dict[str, int] = {}
        self.missing: dict[str, int] = {}

    def charge(self, owner: str, nbytes: int) -> None:
        try:
            self._machine.charge(owner, nbytes)
        except NoMemory:
            if owner not in SHRINKABLE:
                raise
            self.missing[owner] = self.missing.get(owner, 0) + nbytes  # the inode cache then keeps fewer
        else:
            self.held[owner] = self.held.get(owner, 0) + nbytes

    def uncharge(self, owner: str, nbytes: int) -> None:
        free = min(nbytes, self.missing.get(owner, 0))
        if free:
            self.missing[owner] -= free
        nbytes = min(nbytes - free, self.held.get(owner, 0))
        if nbytes:
            self.held[owner] -= nbytes
            self._machine.uncharge(owner, nbytes)

    def count(self) -> int:
        return sum(self.held.get(owner, 0) for owner in SHRINKABLE)

    def scan(self, nbytes: int, scope: int) -> int:
        if scope >= NOFS:
            return 0
        freed = 0
        for owner in SHRINKABLE:
            some = min(self.held.get(owner, 0), nbytes - freed)
            if some > 0:
                self.held[owner] -= some
                self.missing[owner] = self.missing.get(owner, 0) + some
                self._machine.uncharge(owner, some)
                freed += some
        return freed

    def owners(self) -> Iterable[tuple[str, int]]:
        return [(owner, nbytes) for owner, nbytes in self.held.items() if nbytes]

    def close(self) -> None:
        for owner, nbytes in self.held.items():
            self._machine.uncharge(owner, nbytes)
        self.held.clear()


def _nothing(block: object, geo: object) -> None:
    """What has no content needs no verifier."""


class Replay:
    """One machine and backing, ready to play a trace.  Raises `Unsupported` for a backing that cannot be there."""

    def __init__(self, machine: Machine, backing: str, *, readahead: str = "hint") -> None:
        self.machine = machine
        self.device = NullDevice()
        geo: Any = SimpleNamespace(dblocks=_END_BYTES >> 9, block_sectors_log=0)
        self.cache = BufferCache(machine, self.device, geo, backing, readahead=readahead)
        self._devices: dict[int, NullDevice | None] = {0: None}
        self._charges = _Charges(machine)
        machine.register_shrinker(self._charges)
        self._ops: dict[tuple[str, str], BufferOps] = {}
        self._held: dict[tuple[str, str], list[Buffer]] = {}
        self._large: dict[str, Any] = {}
        self.events = self.unmatched = 0

    def run(
        self, lines: Iterable[str], *, every: int = 0, sample: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Play the lines until they end or memory does; what came of it, JSON-able.

        `sample` is called with the number of events before the first and after each `every` of them.
        """
        failure: dict[str, Any] | None = None
        if sample is not None:
            sample(0)
        for line in lines:
            if line.startswith("pocketxfs-trace "):
                continue
            try:
                self._play(line)
            except NoMemory as error:
                failure = self._failure(line, error)
                break
            self.events += 1
            if sample is not None and every and self.events % every == 0:
                sample(self.events)
        cache, device = self.cache.report(), self.device
        total = cache["hits"] + cache["misses"]
        return {
            "survived": failure is None,
            "failure": failure,
            "events": self.events,
            "unmatched": self.unmatched,
            "hit_rate": cache["hits"] / total if total else 1.0,
            "io": {"reads": device.reads, "segments": device.segments, "bytes": device.read_bytes},
            "cache": cache,
            "machine": self.machine.report(),
        }

    def _failure(self, line: str, error: NoMemory) -> dict[str, Any]:
        return {
            "event": self.events,
            "line": line.strip(),
            "kind": type(error).__name__,
            "error": str(error),
            "allocation": self.machine.last_failure if type(error) is NoMemory else None,
            "buddyinfo": self.machine.report()["buddyinfo"],
        }

    def close(self) -> int:
        """Give everything back; how many buffers were still held."""
        for large in self._large.values():
            large.free()
        self._large.clear()
        held = self.cache.release_all()
        self._held.clear()
        self.machine.unregister_shrinker(self._charges)
        self.machine.unregister_shrinker(self.cache)
        self._charges.close()
        return held

    # -- events ------------------------------------------------------------------------------------------------

    def _play(self, line: str) -> None:
        what, *words = line.split()
        if what == "g" or what == "x":
            device, daddr, nbytes, kind, lru, context = words
            with self._context(context):
                buf = self.cache.read(int(daddr), int(nbytes), self._kind(kind, lru), device=self._device(device))
            if what == "x":
                buf.release()
                self.cache.invalidate(int(daddr), device=self._device(device))
            else:
                self._held.setdefault((device, daddr), []).append(buf)
        elif what == "r" or what == "h":
            holders = self._held.get((words[0], words[1]))
            if not holders:
                self.unmatched += 1
            elif what == "r":
                holders.pop().release()
                if not holders:
                    del self._held[words[0], words[1]]
            else:
                holders.append(holders[-1].hold())
        elif what == "m":
            device, kind, lru, context, where = words
            pieces = tuple((int(d), int(n)) for d, n in (piece.split(":") for piece in where.split(",")))
            with self._context(context):
                buf = self.cache.read_map(pieces, self._kind(kind, lru), device=self._device(device))
            self._held.setdefault((device, str(pieces[0][0])), []).append(buf)
        elif what == "a":
            self.cache.readahead(int(words[0]), int(words[1]), self._kind(words[2], words[3]))
        elif what == "i":
            self.cache.invalidate(int(words[1]), device=self._device(words[0]))
        elif what == "c":
            self._charges.charge(words[0], int(words[1]))
        elif what == "u":
            self._charges.uncharge(words[0], int(words[1]))
        elif what == "l":
            self._large[words[0]] = self.machine.kmem_alloc_large(int(words[1]), words[2])
        elif what == "f":
            self._large.pop(words[0]).free()
        elif what != "d":
            raise ValueError(f"not an event of a trace: {line.strip()!r}")

    def _device(self, number: str) -> NullDevice | None:
        index = int(number)
        if index not in self._devices:
            self._devices[index] = NullDevice(f"trace, device {index}")
        return self._devices[index]

    def _kind(self, kind: str, lru: str) -> BufferOps:
        ops = self._ops.get((kind, lru))
        if ops is None:
            ops = self._ops[kind, lru] = BufferOps(kind, kind, int(lru), _nothing)
        return ops

    def _context(self, word: str) -> ExitStack:
        stack = ExitStack()
        if word != "-":
            scope, _, region = word.partition(":")
            if region:
                stack.enter_context(self.machine.fs_region(region))
            if scope == "i":
                stack.enter_context(noio())
            elif scope == "f" and not region:
                stack.enter_context(nofs())
        return stack
