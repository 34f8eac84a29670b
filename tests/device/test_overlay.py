"""The overlay against a plain bytearray, its bounds, and that it leaves the device below alone."""

from __future__ import annotations

import errno
import io
import os
import random
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxfs.device import Device, Overlay, open_device
from pocketxfs.errors import DeviceError


def over(content: bytes, **options: Any) -> Overlay:
    return Overlay(open_device(io.BytesIO(content), whole=True), **options)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int, int]]]:
    """A size, a block size, and (kind, offset, length) steps inside the device."""
    size = draw(st.integers(1, 6000))
    block = draw(st.sampled_from([16, 32, 64, 512]))
    steps = []
    for _ in range(draw(st.integers(1, 25))):
        offset = draw(st.integers(0, size))
        length = draw(st.one_of(st.integers(0, min(80, size - offset)), st.integers(0, size - offset)))
        steps.append((draw(st.integers(0, 2)), offset, length))
    return size, block, steps


@settings(max_examples=250, deadline=None)
@given(histories(), st.integers(0, 2**32))
def test_like_a_bytearray(history: tuple[int, int, list[tuple[int, int, int]]], seed: int) -> None:
    size, block, steps = history
    dice = random.Random(seed)
    below = dice.randbytes(size)
    reference = bytearray(below)
    touched: set[int] = set()
    source = io.BytesIO(below)
    with Overlay(open_device(source, whole=True), block_bytes=block, limit_bytes=0) as device:
        for kind, offset, length in steps:
            if kind:
                data = dice.randbytes(length)
                device.pwrite(offset, data)
                reference[offset : offset + length] = data
                touched.update(range(offset // block, (offset + length - 1) // block + 1) if length else ())
            else:
                held = bytearray(length)
                cut = dice.randint(0, length)
                view = memoryview(held)
                device.pread_into(offset, (view[:cut], view[cut:]))
                assert held == reference[offset : offset + length]
        assert device.pread(0, size) == reference
        assert device.changed_blocks == len(touched)
        ranges = list(device.changes())
        inside = {number for at, n in ranges for number in range(at // block, (at + n - 1) // block + 1)}
        assert inside == touched
        assert all(a + n < b for (a, n), (b, _) in zip(ranges, ranges[1:], strict=False))
        assert all(at + n <= size for at, n in ranges)
    assert source.getvalue() == below


def test_spills_and_comes_back() -> None:
    size = 4 << 20
    reference = bytearray(size)
    dice = random.Random(5)
    with over(bytes(size), limit_bytes=128 << 10) as device:
        for _ in range(600):
            offset = dice.randrange(size - 5000)
            data = dice.randbytes(dice.choice([1, 100, 4096, 5000]))
            device.pwrite(offset, data)
            reference[offset : offset + len(data)] = data
        assert device.spilled
        assert device.pread(0, size) == reference
        assert device.base.writes == 0


class Vast(Device):
    """A device of any size full of one byte."""

    __slots__ = ()

    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        self.check_range(offset_bytes, sum(map(len, segments)))
        self.reads += 1
        for segment in segments:
            segment[:] = b"\xab" * len(segment)

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("the overlay wrote to the device below")

    def close(self) -> None:
        return


def test_memory_stays_bounded_however_much_is_changed() -> None:
    """800 blocks scattered over 64 TiB, each with pages of its own in the tree, in a quarter of a megabyte."""
    dice = random.Random(6)
    places = dice.sample(range(1 << 34), 800)
    with Overlay(Vast("vast", 64 << 40), limit_bytes=256 << 10) as device:
        device.pwrite(0, b"warm")
        tracemalloc.start()
        try:
            for place in places:
                device.pwrite(place << 12, b"%d" % place)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert device.spilled
        assert peak < 700 << 10
        for place in places[:100]:
            text = b"%d" % place
            assert device.pread(place << 12, 4096) == text + b"\xab" * (4096 - len(text))
        before = device.base.reads
        assert device.pread((5 << 12) + 1, 1 << 16) == b"\xab" * (1 << 16)
        assert device.base.reads == before + 1
        assert sum(n for _, n in device.changes()) == device.changed_blocks << 12 == 801 << 12


def test_nothing_changed_is_one_call_below() -> None:
    with over(bytes(100_000)) as device:
        device.pread_into(5, [memoryview(bytearray(1000)), memoryview(bytearray(2000))])
        assert (device.reads, device.segments, device.read_bytes) == (1, 2, 3000)
        assert device.base.segments == 2
        assert list(device.changes()) == []
        assert not device.spilled
        assert device.fileno() is None


def test_bounds() -> None:
    with over(bytes(5000)) as device:
        device.pwrite(4999, b"x")
        device.pwrite(5000, b"")
        for offset, nbytes in [(4999, 2), (-1, 1), (5001, 0)]:
            with pytest.raises(DeviceError):
                device.pwrite(offset, bytes(nbytes))
            with pytest.raises(DeviceError):
                device.pread(offset, nbytes)
        assert list(device.changes()) == [(4096, 904)]
    with over(b"") as device:
        assert device.pread(0, 0) == b""
        assert list(device.changes()) == []
    with pytest.raises(ValueError):
        over(b"", block_bytes=1000)


def test_a_block_that_is_written_whole_needs_nothing_from_below() -> None:
    class Bad(Vast):
        __slots__ = ()

        def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
            raise DeviceError("bad sector")

    with Overlay(Bad("bad", 10_000)) as device:
        device.pwrite(4096, bytes(range(256)) * 16)
        device.pwrite(8192, b"y" * 1808)
        assert device.pread(4100, 4) == bytes([4, 5, 6, 7])
        with pytest.raises(DeviceError, match="bad sector"):
            device.pwrite(0, b"part of a block")
        with pytest.raises(DeviceError, match="bad sector"):
            device.pread(4000, 200)
        assert device.changed_blocks == 2


def test_no_room_for_the_temporary_file_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    room = 10 * 512
    pwrite = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        if offset + len(data) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    reference = bytearray(200 * 512)
    with over(bytes(200 * 512), block_bytes=512, limit_bytes=0) as device:
        failed = False
        for number in range(200):
            data = bytes([number + 1]) * 512
            try:
                device.pwrite(number * 512, data)
            except DeviceError as error:
                assert error.errno == errno.ENOSPC
                assert "temporary file" in str(error)
                failed = True
                break
            reference[number * 512 : number * 512 + 512] = data
        assert failed
        room = 1 << 30
        assert device.pread(0, len(reference)) == reference


@pytest.mark.parametrize(("lost", "said"), [(None, "Input/output error"), (7, "cut short")])
def test_a_temporary_file_that_lost_bytes(lost: int | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(_fd: int, _segments: Any, _offset: int) -> int:
        if lost is None:
            raise OSError(errno.EIO, "Input/output error")
        return lost

    monkeypatch.setattr(os, "preadv", lossy)
    with over(bytes(100 * 512), block_bytes=512, limit_bytes=0) as device:
        device.pwrite(0, b"x" * 100 * 512)
        with pytest.raises(DeviceError, match=said):
            device.pread(0, 100 * 512)
