"""Damaged logs: cases, and the judge of them.

The invariant: whatever a log holds, reading it (head and tail, replay into memory, the view that `pocketxfs log` shows,
recovery in place) ends, in bounded time and memory, with a value or with one of pocketxfs's own errors that names what
is wrong; an error leaves the image as it was, to the byte; what was replayed can be read; and the fast paths of a
replay give what the plain ones give.

`structured` is a fixed set: every field of record headers, operation headers and items set to telling values, blocks
zeroed, swapped, stamped with other cycles.  `drawn(seed)` is random.  Both come with the records' checksums made right
again, so that what lies behind that check is reached, or without.
"""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

import pocketxfs
from pocketxfs.device import Overlay, open_device
from pocketxfs.errors import Error
from pocketxfs.format.geometry import Geometry
from pocketxfs.format.log import (
    BB,
    CRC_OFFSET,
    CYCLE_DATA_OFFSET,
    CYCLE_WORDS,
    OP,
    OP_BYTES,
    RECORD_HEAD,
    RECORD_TAIL,
    RECORD_TAIL_OFFSET,
    Record,
    record_checksum,
)
from pocketxfs.journal.head import find_state
from pocketxfs.journal.inplace import Borrowed, recover
from pocketxfs.journal.recovery import log_ring, replay, replay_onto
from pocketxfs.journal.ring import RecordData
from pocketxfs.journal.view import LogView
from pocketxfs.memory import Machine, profile
from pocketxfs.mounting import read_superblock

from ..damage.patched import Endless, Patch, Patched
from . import golden, power

MEMORY = 4 << 20
#: CPU seconds that a case may take; an undamaged one takes some tenths of one.
SECONDS = 30.0
MOST_READS = 200_000


class Violation(AssertionError):
    """The invariant does not hold."""


class Hang(BaseException):
    """The time of a case is up.  Not an `Exception`: nothing may catch it."""


class Case(NamedTuple):
    """One damaged log."""

    name: str
    patches: tuple[Patch, ...]
    #: whether the checksums of the records are right
    mended: bool = False


class Found(NamedTuple):
    """A record of the undamaged log, with its operations: offset in the data, length of what each carries."""

    record: Record
    header_blocks: int
    ops: list[tuple[int, int]]


@functools.cache
def golden_target(name: str) -> Target:
    """One of the images that ship with the project."""
    return Target(golden.unpacked(name))


class Target:
    """An image with a dirty log."""

    def __init__(self, image: Any) -> None:
        self.image = image
        self.size = len(image)
        device = open_device(Patched(image))
        self.geo = Geometry(read_superblock(device))
        self.ring = ring = log_ring(device, self.geo, None)
        self.state = find_state(ring)
        if self.state.clean:
            raise ValueError("the log is clean: nothing to damage")
        self.records: list[Found] = []
        block = self.state.tail_block
        while block != self.state.head_block:
            data = RecordData(ring, Record(block, ring.read(block, 1)), ring.header_count(ring.record(block)))
            ops, place = [], 0
            for _ in range(data.record.num_ops):
                length = OP.unpack_from(data.data, place)[1]
                ops.append((place, length))
                place += OP_BYTES + length
            self.records.append(Found(data.record, ring.header_count(data.record), ops))
            block = data.next_block
        #: what an undamaged replay gives
        self.right = self._outcome(())

    # -- patches -----------------------------------------------------------------------------------------------

    def bytes_of(self, block: int, count: int = 1) -> bytes:
        """Blocks of the undamaged log."""
        return bytes(self.ring.read(block, count))

    def at(self, found: Found, place: int) -> tuple[int, int]:
        """(block of the log, offset in it) of a byte of a record's data, as the disk has it.

        The first word of each block stands in the headers.
        """
        block, offset = divmod(place, BB)
        if offset >= 4:
            return self.ring.after(found.record.block, found.header_blocks + block), offset
        header, word = divmod(block, CYCLE_WORDS)
        first = CYCLE_DATA_OFFSET if header == 0 else 4
        return self.ring.after(found.record.block, header), first + 4 * word + offset

    def case(self, name: str, changes: dict[tuple[int, int], int], found: Found | None, mended: bool) -> Case:
        """Bytes of log blocks set; `found` is the record whose checksum is to be right."""
        blocks: dict[int, bytearray] = {}
        for (block, offset), value in changes.items():
            blocks.setdefault(block, bytearray(self.bytes_of(block)))[offset] = value
        return self.blocks_case(name, blocks, found, mended)

    def blocks_case(self, name: str, blocks: dict[int, bytearray], found: Found | None, mended: bool) -> Case:
        """Whole log blocks replaced."""
        if mended and found is not None:
            start = found.record.block
            held = bytearray(self.bytes_of(start, found.header_blocks + found.record.data_blocks))
            for block, data in blocks.items():
                at = self.ring.distance(start, block) * BB
                if at < len(held):
                    held[at : at + BB] = data
            length = Record(start, held).length
            split = found.header_blocks * BB
            with memoryview(held) as view:
                crc = record_checksum(view[:split], view[split : split + length])
            header = blocks.setdefault(start, bytearray(self.bytes_of(start)))
            header[CRC_OFFSET : CRC_OFFSET + 4] = crc.to_bytes(4, "little")
        patches = tuple((self.ring.base_bytes + block * BB, bytes(data)) for block, data in sorted(blocks.items()))
        return Case(name, patches, mended)

    def field(self, name: str, found: Found, place: int, value: bytes, mended: bool) -> Case:
        """A field of a record's data set."""
        changes = {self.at(found, place + index): byte for index, byte in enumerate(value)}
        return self.case(name, changes, found, mended)

    # -- the judge ---------------------------------------------------------------------------------------------

    def run(self, case: Case) -> str:
        """ "right", "other" (a value, where a checksum was made right over damage) or "refused"; or `Violation`."""
        old = signal.signal(signal.SIGPROF, _alarm)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            outcome = self._outcome(case.patches)
            self._view(case.patches)
            self._in_place(case.patches)
            self.plain(case.patches)
        except Violation:
            raise
        except (Hang, Endless) as error:
            raise Violation(f"{case.name}: hangs: {error}") from error
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise Violation(
                f"{case.name}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            ) from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, old)
        if isinstance(outcome, Error):
            return "refused"
        return "right" if outcome == self.right else "other"

    def _open(self, patches: tuple[Patch, ...]) -> Any:
        return open_device(Patched(self.image, patches, most_reads=MOST_READS))

    def _outcome(self, patches: tuple[Patch, ...]) -> Any:
        """What a replay shows, or the error."""
        machine = Machine(profile("host", MEMORY))
        device = self._open(patches)
        try:
            try:
                after, _ = replay(device, self.geo, machine)
            except Error as error:
                return named(error)
            after.close()
        finally:
            if machine.high_water_bytes > MEMORY:
                raise Violation("more memory than there is")
            device.close()
            machine.close()
        source = Patched(self.image, patches, most_reads=MOST_READS)
        try:
            fs = pocketxfs.open(source, memory=MEMORY)  # type: ignore[arg-type]
        except Error as error:
            return named(error)
        with fs:
            return _shown(fs)

    def plain(self, patches: tuple[Patch, ...]) -> object:
        """What changes, and what is counted, or the error: fast paths give what the plain ones give."""
        one, other = (self._changes(patches, plain) for plain in (False, True))
        if one != other:
            raise Violation(f"fast paths differ: {str(one)[:200]}, plain {str(other)[:200]}")
        return one

    def _changes(self, patches: tuple[Patch, ...], plain: bool) -> object:
        machine = Machine(profile("host", MEMORY))
        device = self._open(patches)
        overlay = Overlay(Borrowed(device))
        try:
            ring = log_ring(device, self.geo, None)
            state = find_state(ring)
            if state.clean:
                return "clean"
            report = replay_onto(overlay, ring, state, self.geo, machine, plain=plain)
            changes = [(start, overlay.pread(start, nbytes)) for start, nbytes in overlay.changes()]
            return changes, report.counts.as_dict()
        except Error as error:
            return str(error)
        finally:
            overlay.close()
            device.close()
            machine.close()

    def _view(self, patches: tuple[Patch, ...]) -> None:
        machine = Machine(profile("host", MEMORY))
        device = self._open(patches)
        try:
            ring = log_ring(device, self.geo, None)
            state = find_state(ring)
            if not state.clean:
                with LogView(device, ring, state, self.geo, machine) as view:
                    list(view.inodes())
                    for commit in view.transactions():
                        for item in view.items(commit):
                            item.as_dict()
                            for change in item.changes:
                                change.words()
        except Error as error:
            named(error)
        finally:
            device.close()
            machine.close()

    def _in_place(self, patches: tuple[Patch, ...]) -> None:
        machine = Machine(profile("host", MEMORY))
        device = self._open(patches)
        history = power.History()
        recorder = history.record(device)
        try:
            recover(recorder, self.geo, machine)
        except Error as error:
            named(error)
            if any(history.epochs):
                raise Violation(f"refused after it had written: {error}") from error
        finally:
            history.close()
            device.close()
            machine.close()

    # -- the cases ---------------------------------------------------------------------------------------------

    def structured(self) -> Iterator[Case]:
        """The fixed set."""
        for number, found in self._some(self.records, 4):
            yield from self._headers(number, found)
            for index, (place, length) in self._some(found.ops, 6):
                yield from self._operations(f"record {number} op {index}", found, place, length)
            yield from self._blocks(number, found)

    @staticmethod
    def _some(things: list[Any], most: int) -> list[tuple[int, Any]]:
        step = max(1, len(things) // most)
        return list(enumerate(things))[::step]

    def _headers(self, number: int, found: Found) -> Iterator[Case]:
        block = found.record.block
        raw = self.bytes_of(block)
        tables = ((RECORD_HEAD.offsets, 0), (RECORD_TAIL.offsets, RECORD_TAIL_OFFSET))
        for offsets, base in tables:
            ends = [*list(offsets.values())[1:], RECORD_HEAD.size if base == 0 else RECORD_TAIL.size]
            for (name, start), end in zip(offsets.items(), ends, strict=True):
                if name == "h_crc":
                    continue
                nbytes = end - start
                old = int.from_bytes(raw[base + start : base + end], "big")
                for value in _telling(old, nbytes):
                    changes = {
                        (block, base + start + index): byte for index, byte in enumerate(value.to_bytes(nbytes, "big"))
                    }
                    for mended in (False, True):
                        yield self.case(f"record {number} {name} {value:#x} mended {mended}", changes, found, mended)

    def _operations(self, name: str, found: Found, place: int, length: int) -> Iterator[Case]:
        for field, offset, nbytes in (("oh_tid", 0, 4), ("oh_len", 4, 4), ("oh_clientid", 8, 1), ("oh_flags", 9, 1)):
            for value in _telling(length if field == "oh_len" else 1, nbytes):
                data = value.to_bytes(nbytes, "big")
                yield self.field(f"{name} {field} {value:#x}", found, place + offset, data, True)
        body = place + OP_BYTES
        for offset, nbytes in ((0, 2), (2, 2), (4, 4), (6, 2), (8, 8), (16, 4), (20, 4), (24, 8), (40, 8), (48, 4)):
            if offset + nbytes > length:
                break
            for value in _telling(1, nbytes):
                data = value.to_bytes(nbytes, "little")
                yield self.field(f"{name} +{offset} {value:#x}", found, body + offset, data, True)

    def _blocks(self, number: int, found: Found) -> Iterator[Case]:
        first = self.ring.after(found.record.block, found.header_blocks)
        blocks = [self.ring.after(first, index) for index in range(found.record.data_blocks)]
        for index, block in self._some(blocks, 3):
            raw = bytearray(self.bytes_of(block))
            other = bytearray(self.bytes_of(blocks[-1 - index]))
            for name, data in (
                ("zeroed", bytearray(BB)), ("ones", bytearray(b"\xff" * BB)), ("swapped", other),
                ("another cycle", bytearray((int.from_bytes(raw[:4], "big") + 1).to_bytes(4, "big")) + raw[4:]),
                ("an old cycle", bytearray((int.from_bytes(raw[:4], "big") - 1).to_bytes(4, "big")) + raw[4:]),
                ("a header", bytearray(self.bytes_of(found.record.block))),
            ):  # fmt: skip
                for mended in (False, True):
                    yield self.blocks_case(
                        f"record {number} block {index} {name} mended {mended}", {block: data}, found, mended
                    )

    def drawn(self, seed: int) -> Case:
        """A random one."""
        rng = random.Random(seed)
        found = rng.choice(self.records)
        mended = rng.random() < 0.75
        end = sum(OP_BYTES + length for _, length in found.ops)
        kind = rng.random()
        changes: dict[tuple[int, int], int] = {}
        for _ in range(rng.choice((1, 1, 2, 8))):
            if kind < 0.2:
                spot = found.record.block, rng.choice((rng.randrange(44), rng.randrange(300, 328)))
            elif kind < 0.45:
                place, _ = rng.choice(found.ops)
                spot = self.at(found, place + rng.randrange(10))
            elif kind < 0.75:
                place, length = rng.choice(found.ops)
                spot = self.at(found, place + OP_BYTES + (rng.randrange(min(length, 64)) if length else -1))
            else:
                spot = self.at(found, rng.randrange(end))
            old = self.bytes_of(spot[0])[spot[1]]
            changes[spot] = rng.choice((old ^ 1 << rng.randrange(8), 0, 0xFF, rng.randrange(256)))
        return self.case(f"drawn {seed}", changes, found, mended)


def _telling(old: int, nbytes: int) -> list[int]:
    """Values for a field of that size."""
    most = (1 << 8 * nbytes) - 1
    values = (0, 1, old - 1, old + 1, old << 1, old ^ 1 << 8 * nbytes - 1, most >> 1, most, most - 1)
    return sorted({value & most for value in values} - {old})


def named(error: Error) -> Error:
    """The error, which must say something and carry an errno."""
    if not error.errno or len(str(error)) < 10:
        raise Violation(f"an error without words: {error!r}")
    return error


def _shown(fs: pocketxfs.FileSystem) -> Any:
    """What the replayed filesystem shows: names, stats, contents, attributes, and the errors met."""
    found: list[Any] = []

    def look(path: bytes, depth: int) -> None:
        if depth > 12 or len(found) > 20_000:
            return
        try:
            entries = list(fs.scandir(path))
        except OSError as error:
            found.append((path, type(error).__name__))
            return
        for entry in entries:
            below = path.rstrip(b"/") + b"/" + entry.name
            try:
                info = entry.stat(follow_symlinks=False)
                found.append((below, tuple(info)[:10], info.st_mtime_ns))
                if entry.is_file(follow_symlinks=False) and info.st_size < 1 << 20:
                    found.append(fs.read_bytes(below))
                for name in fs.listxattr(below, follow_symlinks=False):
                    found.append((name, fs.getxattr(below, name, follow_symlinks=False)))
                if entry.is_symlink():
                    found.append(fs.readlink(below))
            except OSError as error:
                found.append((below, type(error).__name__))
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    look(below, depth + 1)

    look(b"/", 0)
    return found


def _alarm(_number: int, _frame: Any) -> None:
    raise Hang("out of time")
