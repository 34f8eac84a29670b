"""Devices that remember every write, and ones rebuilt as they were when the power went."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pocketxfs.device import Device, Overlay
from pocketxfs.journal.inplace import Borrowed

SECTOR = 512


class Write(NamedTuple):
    """One write to one of the devices."""

    device: int
    offset: int
    data: bytes


class History:
    """What was written to some devices, in order: a list of writes for each time between two flushes.

    A flush makes safe what its own device was given, no more: writes to another one that are still in the air by then
    are a mistake in what is under test, and an `AssertionError`.
    """

    def __init__(self) -> None:
        self.epochs: list[list[Write]] = [[]]
        self.devices: list[Recorder] = []

    def record(self, base: Device) -> Recorder:
        """A device that remembers."""
        device = Recorder(base, self, len(self.devices))
        self.devices.append(device)
        return device

    def flushed(self, number: int) -> None:
        """A device has been flushed."""
        last = self.epochs[-1]
        assert all(write.device == number for write in last), "flushed, but not the device that was written to"
        if last:
            self.epochs.append([])

    def close(self) -> None:
        """Let go."""
        for device in self.devices:
            device.close()


class Recorder(Overlay):
    """Writes go into the overlay, and into the history."""

    __slots__ = ("_history", "_number")

    def __init__(self, base: Device, history: History, number: int) -> None:
        super().__init__(Borrowed(base))
        self._history, self._number = history, number

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        """Remember, and write."""
        self._history.epochs[-1].append(Write(self._number, offset_bytes, bytes(data)))
        super().pwrite(offset_bytes, data)

    def flush(self) -> None:
        """What was written is safe."""
        self._history.flushed(self._number)


def rebuilt(bases: Sequence[Device], writes: Sequence[Write]) -> list[Overlay]:
    """The devices after these writes."""
    devices = [Overlay(Borrowed(base)) for base in bases]
    for number, offset, data in writes:
        devices[number].pwrite(offset, data)
    return devices


def cuts(epochs: Sequence[Sequence[Write]], rng: random.Random, reorderings: int) -> Iterator[list[Write]]:
    """What may have reached the disk: every prefix; each write torn; and unflushed writes in part, in any order."""
    done: list[Write] = []
    for epoch in epochs:
        for index, write in enumerate(epoch):
            before = [*done, *epoch[:index]]
            yield before
            sectors = len(write.data) // SECTOR
            if sectors > 1:
                yield [*before, write._replace(data=write.data[: rng.randrange(1, sectors) * SECTOR])]
        for _ in range(reorderings if epoch else 0):
            some = [write for write in epoch if rng.random() < 0.5]
            rng.shuffle(some)
            torn = []
            for number, offset, data in some:
                for at in range(0, len(data), SECTOR):
                    if rng.random() < 0.8:
                        torn.append(Write(number, offset + at, data[at : at + SECTOR]))
            yield [*done, *torn]
        done += epoch
    yield done


def difference(one: Device, other: Device, ranges: Iterator[tuple[int, int]], skip: tuple[int, int]) -> int | None:
    """The first sector that differs within the ranges, but for those in `skip`; None where none does."""
    for start, nbytes in ranges:
        left, right = one.pread(start, nbytes), other.pread(start, nbytes)
        if left != right:
            for at in range(0, nbytes, SECTOR):
                if left[at : at + SECTOR] != right[at : at + SECTOR] and not skip[0] <= start + at < skip[1]:
                    return start + at
    return None
