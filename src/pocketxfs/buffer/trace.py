"""What a filesystem asks of its buffers and its memory, written down as it happens, to be asked again by `replay`.

    with open("trace", "w") as out, recording(fs.mount.cache, out.write):
        ...                                         # any work on the filesystem

Requests are recorded, not what came of them: which reads were hits depends on the memory, and is found anew by each
replay.  A line an event; DEV is 0 for the filesystem's device, CONTEXT is the scope (- none, f NOFS, i NOIO) and behind
a colon the region that is open:

    g DEV DADDR BYTES KIND LRU CONTEXT              read (get): held from now on
    m DEV KIND LRU CONTEXT DADDR:BYTES,...          read of a block in several pieces
    x DEV DADDR BYTES KIND LRU CONTEXT              a read that the device or the verifier failed
    a DADDR BYTES KIND LRU                          read ahead
    h DEV DADDR        r DEV DADDR                  one holder more, one less
    d DEV DADDR FIRST LAST                          dirty bytes (nothing writes yet: `Trace.dirty` is for who will)
    i DEV DADDR                                     forgotten on purpose
    c OWNER BYTES      u OWNER BYTES                objects charged, uncharged
    l NUMBER BYTES OWNER     f NUMBER               large temporary memory taken, given back

Recording changes the classes of one cache, its buffers and its machine while it lasts; when it does not, nobody pays.
Limits: a block read twice while held is one buffer, so its holders are not told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import Corrupt, DeviceError
from ..memory import Machine
from ..memory.large import Large
from ..memory.scope import current_scope
from .buffer import Buffer, MappedBuffer, PagesBuffer
from .cache import BufferCache
from .ops import BufferOps

if TYPE_CHECKING:
    from ..device import Device

VERSION = 1
_SCOPES = "-fi"


class Trace:
    """Writes events as lines."""

    def __init__(self, write: Callable[[str], object], cache: BufferCache) -> None:
        self._write, self._cache = write, cache
        self._devices: list[object] = [cache.device]
        self._large: dict[int, int] = {}
        self.events = self._numbers = 0
        shape = cache.machine.profile
        write(f"pocketxfs-trace {VERSION} {cache.backing.name} {shape.name} {shape.ram_bytes}\n")

    def event(self, line: str) -> None:
        """One line."""
        self.events += 1
        self._write(line + "\n")

    def device(self, device: Device | None) -> int:
        """The number that a device goes by."""
        if device is None or device is self._cache.device:
            return 0
        if device not in self._devices:
            self._devices.append(device)
        return self._devices.index(device)

    def context(self) -> str:
        """Scope and region that are open."""
        regions = self._cache.machine.regions
        word = _SCOPES[current_scope()]
        return f"{word}:{regions[-1][0].replace(' ', '_')}" if regions else word

    def dirty(self, buf: Buffer, first: int, last: int) -> None:
        """Bytes `first` to `last` of a buffer have been changed."""
        self.event(f"d {self.device(buf.device)} {buf.daddr} {first} {last}")

    def number(self, large: Large) -> int:
        """A new number for large memory."""
        self._numbers += 1
        self._large[id(large)] = self._numbers
        return self._numbers

    def forget(self, large: Large) -> int:
        """The number that it had; 0 for what was taken before the recording began."""
        return self._large.pop(id(large), 0)


class _TracedBuffer(Buffer):
    __slots__ = ()

    def hold(self) -> Buffer:
        _trace(self).event(f"h {_trace(self).device(self.device)} {self.daddr}")
        return Buffer.hold(self)

    def release(self) -> None:
        if self.place != -1:
            _trace(self).event(f"r {_trace(self).device(self.device)} {self.daddr}")
        Buffer.release(self)

    def __exit__(self, *_: object) -> None:
        self.release()


class _TracedPages(_TracedBuffer, PagesBuffer):
    __slots__ = ()


class _TracedMapped(_TracedBuffer, MappedBuffer):
    __slots__ = ()


class _TracedCache(BufferCache):
    plain, pages, mapped_pages = _TracedBuffer, _TracedPages, _TracedMapped
    trace: Trace

    def read(self, daddr: int, nbytes: int, ops: BufferOps, *, device: Device | None = None) -> Buffer:
        trace = self.trace
        what = f"{trace.device(device)} {daddr} {nbytes} {ops.kind} {ops.lru_ref} {trace.context()}"
        try:
            buf = BufferCache.read(self, daddr, nbytes, ops, device=device)
        except (Corrupt, DeviceError):
            trace.event("x " + what)
            raise
        trace.event("g " + what)
        return buf

    def read_map(self, maps: Iterable[tuple[int, int]], ops: BufferOps, *, device: Device | None = None) -> Buffer:
        pieces = tuple(maps)
        if len(pieces) == 1:
            return self.read(pieces[0][0], pieces[0][1], ops, device=device)
        buf = BufferCache.read_map(self, pieces, ops, device=device)
        where = ",".join(f"{daddr}:{nbytes}" for daddr, nbytes in pieces)
        trace = self.trace
        trace.event(f"m {trace.device(device)} {ops.kind} {ops.lru_ref} {trace.context()} {where}")
        return buf

    def readahead(self, daddr: int, nbytes: int, ops: BufferOps) -> None:
        self.trace.event(f"a {daddr} {nbytes} {ops.kind} {ops.lru_ref}")
        BufferCache.readahead(self, daddr, nbytes, ops)

    def invalidate(self, daddr: int, *, device: Device | None = None) -> None:
        self.trace.event(f"i {self.trace.device(device)} {daddr}")
        BufferCache.invalidate(self, daddr, device=device)


class _TracedLarge(Large):
    __slots__ = ()

    def free(self) -> None:
        trace: Trace | None = self._machine.trace
        number = trace.forget(self) if trace is not None else 0
        if trace is not None and number:
            trace.event(f"f {number}")
        Large.free(self)


class _TracedMachine(Machine):
    __slots__ = ()

    def charge(self, owner: str, nbytes: int) -> None:
        Machine.charge(self, owner, nbytes)
        if owner != BufferCache.name:
            self.trace.event(f"c {owner} {nbytes}")

    def uncharge(self, owner: str, nbytes: int) -> None:
        Machine.uncharge(self, owner, nbytes)
        if owner != BufferCache.name:
            self.trace.event(f"u {owner} {nbytes}")

    def kmem_alloc_large(self, nbytes: int, owner: str) -> Large:
        large = Machine.kmem_alloc_large(self, nbytes, owner)
        large.__class__ = _TracedLarge
        self.trace.event(f"l {self.trace.number(large)} {nbytes} {owner}")
        return large


_TWINS: dict[type[Buffer], type[Buffer]] = {
    Buffer: _TracedBuffer, PagesBuffer: _TracedPages, MappedBuffer: _TracedMapped
}  # fmt: skip
_ORIGINALS = {twin: original for original, twin in _TWINS.items()}


def _trace(buf: Buffer) -> Trace:
    trace: Trace = buf.cache.machine.trace
    return trace


@contextmanager
def recording(cache: BufferCache, write: Callable[[str], object]) -> Iterator[Trace]:
    """Record what happens to this cache and its machine, from what it holds now on, while this is open."""
    machine = cache.machine
    if machine.trace is not None:
        raise ValueError("this machine is being recorded already")
    trace = machine.trace = Trace(write, cache)
    for owner, nbytes in machine.charges():
        if owner != BufferCache.name:
            trace.event(f"c {owner} {nbytes}")
    for buf in cache.all_buffers():
        buf.__class__ = _TWINS[type(buf)]
        if buf.ops is not None and buf.maps is None:
            what = f"{trace.device(buf.device)} {buf.daddr}"
            trace.event(f"g {what} {buf.nbytes} {buf.ops.kind} {buf.ops.lru_ref} -")
            for _ in range(buf.holds - 1):
                trace.event(f"h {what}")
            if not buf.holds:
                trace.event(f"r {what}")
    cache.__class__ = _TracedCache
    traced: _TracedCache = cache  # type: ignore[assignment]
    traced.trace = trace
    machine.__class__ = _TracedMachine
    try:
        yield trace
    finally:
        machine.__class__ = Machine
        machine.trace = None
        cache.__class__ = BufferCache
        for buf in cache.all_buffers():
            buf.__class__ = _ORIGINALS[type(buf)]
