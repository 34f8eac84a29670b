"""A device that remembers every write, and one rebuilt as it was when the power went."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from pocketxfs.device import Device, Overlay
from pocketxfs.journal.inplace import Borrowed

SECTOR = 512
Write = tuple[int, bytes]


class Recorder(Overlay):
    """Writes go into the overlay, and into `epochs`: a list of writes for each time between two flushes."""

    __slots__ = ("epochs",)

    def __init__(self, base: Device) -> None:
        super().__init__(Borrowed(base))
        self.epochs: list[list[Write]] = [[]]

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        """Remember, and write."""
        self.epochs[-1].append((offset_bytes, bytes(data)))
        super().pwrite(offset_bytes, data)

    def flush(self) -> None:
        """A new epoch."""
        if self.epochs[-1]:
            self.epochs.append([])


def rebuilt(base: Device, writes: Sequence[Write]) -> Overlay:
    """The device after these writes."""
    device = Overlay(Borrowed(base))
    for offset, data in writes:
        device.pwrite(offset, data)
    return device


def cuts(epochs: Sequence[Sequence[Write]], rng: random.Random, reorderings: int) -> Iterator[list[Write]]:
    """What may have reached the disk: every prefix; each write torn; and unflushed writes in part, in any order."""
    done: list[Write] = []
    for epoch in epochs:
        for index, (offset, data) in enumerate(epoch):
            before = [*done, *epoch[:index]]
            yield before
            sectors = len(data) // SECTOR
            if sectors > 1:
                yield [*before, (offset, data[: rng.randrange(1, sectors) * SECTOR])]
        for _ in range(reorderings):
            some = [write for write in epoch if rng.random() < 0.5]
            rng.shuffle(some)
            torn = []
            for offset, data in some:
                for at in range(0, len(data), SECTOR):
                    if rng.random() < 0.8:
                        torn.append((offset + at, data[at : at + SECTOR]))
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
