"""A regular file as a device: what it reads, what it refuses, what it counts."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketxfs.device import Device, file, open_device
from pocketxfs.errors import DeviceError, Unsupported

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "image"
    made.write_bytes(CONTENT)
    return made


@pytest.fixture(params=["preadv", "without preadv", "without pread"])
def device(path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    if request.param != "preadv":
        monkeypatch.setattr(file, "_preadv", None)
    if request.param == "without pread":
        monkeypatch.setattr(file, "_pread", None)
        monkeypatch.setattr(file, "_pwrite", None)
    with open_device(path, whole=True) as opened:
        yield opened


def segments(*lengths: int) -> tuple[bytearray, list[memoryview]]:
    held = bytearray(sum(lengths))
    views, at = [], 0
    for length in lengths:
        views.append(memoryview(held)[at : at + length])
        at += length
    return held, views


def test_reads_into_the_memory_that_it_is_given(device: Device) -> None:
    for lengths in [(4096,), (1, 2, 3), (4096,) * 17, (0, 5, 0), (1,) * 1500]:
        held, views = segments(*lengths)
        device.pread_into(777, views)
        assert held == CONTENT[777 : 777 + sum(lengths)]
    assert device.pread(299_999, 1) == CONTENT[-1:]
    assert device.pread(300_000, 0) == b""
    device.pread_into(300_000, ())


def test_counts_calls_pieces_and_bytes(path: Path) -> None:
    with open_device(path, whole=True) as device:
        device.pread_into(0, segments(4096, 4096)[1])
        device.pread_into(0, segments(100)[1])
        device.pread(5, 10)
        device.readahead(0, 65536)
        assert (device.reads, device.segments, device.read_bytes) == (3, 4, 8302)
        device.pread_into(0, segments(*[1] * 1500)[1])
        assert (device.reads, device.segments, device.read_bytes) == (5, 1504, 9802)


@pytest.mark.parametrize(("offset", "nbytes"), [(299_999, 2), (300_001, 0), (-1, 1), (0, 300_001), (1 << 70, 1)])
def test_a_range_that_is_not_there(device: Device, offset: int, nbytes: int) -> None:
    held, views = segments(nbytes)
    with pytest.raises(DeviceError) as caught:
        device.pread_into(offset, views)
    for said in (device.name, str(offset), str(nbytes), "300000"):
        assert said in str(caught.value)
    with pytest.raises(DeviceError):
        device.pread(offset, nbytes)
    assert held == bytes(nbytes)


def test_an_image_that_is_cut_short_while_open(path: Path, device: Device) -> None:
    os.truncate(path, 1000)
    held, views = segments(600, 600)
    with pytest.raises(DeviceError, match="offset 500.*ended after 500"):
        device.pread_into(500, views)
    with pytest.raises(DeviceError, match="offset 500.*ended after 500"):
        device.pread(500, 1200)
    assert held[:500] == CONTENT[500:1000]


def test_short_reads_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(2)

    def short(call: Callable[..., Any]) -> Callable[..., Any]:
        def shorter(fd: int, views: Any, offset: int) -> Any:
            if isinstance(views, int):
                return call(fd, dice.randint(1, views), offset)
            return call(fd, [views[0][: dice.randint(1, len(views[0]))]], offset)

        return shorter

    monkeypatch.setattr(file, "_preadv", short(os.preadv))
    monkeypatch.setattr(file, "_pread", short(os.pread))
    with open_device(path, whole=True) as device:
        held, views = segments(700, 1, 299)
        device.pread_into(12345, views)
        assert held == CONTENT[12345:13345]
        assert device.read_bytes == 1000 < device.reads + 1000
        assert device.pread(99, 5000) == CONTENT[99:5099]


def test_an_io_error_names_device_offset_and_length(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, views: Any, offset: int) -> int:
        if offset == 4096:
            raise OSError(errno.EIO, "Input/output error")
        return os.preadv(fd, [views[0][:4096]], offset)

    monkeypatch.setattr(file, "_preadv", broken)
    with open_device(path, whole=True) as device:
        with pytest.raises(DeviceError) as caught:
            device.pread_into(0, segments(8192)[1])
        assert str(caught.value) == f"{path}: reading 4096 bytes at offset 4096: Input/output error"
        assert caught.value.errno == errno.EIO


def test_a_part_of_the_file(path: Path) -> None:
    with open_device(path, offset=1000) as device:
        assert device.size_bytes == 299_000
        assert device.base_bytes == 1000
        fd = device.fileno()
        assert fd is not None
        assert device.pread(0, 10) == os.pread(fd, 10, device.base_bytes) == CONTENT[1000:1010]
        with pytest.raises(DeviceError):
            device.pread(298_999, 2)
    for offset in (-1, 300_000, 1 << 70):
        with pytest.raises(DeviceError, match="outside the device"):
            open_device(path, offset=offset)


def test_opening_leaves_nothing_open_and_the_descriptor_to_itself(path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc/self/fd to count descriptors in")
    before = descriptors()
    device = open_device(path, offset=5)
    fd = device.fileno()
    assert fd is not None
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    assert descriptors() == before + 1
    device.close()
    device.close()
    with pytest.raises(DeviceError):
        device.pread(0, 1)
    for refused in ({"offset": 1 << 60}, {"partition": 3}, {}):
        with pytest.raises(OSError):
            open_device(path, **refused)  # type: ignore[arg-type]
    assert descriptors() == before


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_device(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        open_device(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unsupported, match="a pipe"):
        open_device(tmp_path / "pipe")
    with pytest.raises(Unsupported, match="a character device"):
        open_device("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(tmp_path / "socket"))
        with pytest.raises(Unsupported, match="a socket"):
            open_device(tmp_path / "socket")
    with pytest.raises(TypeError):
        open_device(7)


def test_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_device(path, whole=True) as device, pytest.raises(DeviceError) as caught:
        device.pwrite(0, b"x")
    assert caught.value.errno == errno.EROFS
    expected = bytearray(CONTENT)
    with open_device(path, offset=10, writable=True) as device:
        pieces: list[tuple[int, bytes | bytearray | memoryview]] = [
            (0, b"abc"),
            (4000, memoryview(b"long" * 5000)),
            (299_980, bytearray(b"e" * 10)),
        ]
        for offset, data in pieces:
            device.pwrite(offset, data)
            expected[offset + 10 : offset + 10 + len(data)] = data
        with pytest.raises(DeviceError):
            device.pwrite(299_985, b"123456")
        device.flush()
        assert (device.writes, device.written_bytes) == (3, 20013)
        monkeypatch.setattr(file, "_pwrite", None)
        device.pwrite(77, b"seek")
        expected[87:91] = b"seek"
        assert device.pread(77, 4) == b"seek"
    assert path.read_bytes() == expected


def test_hints_never_fail(device: Device) -> None:
    for offset, nbytes in [(0, 1), (-5, 10), (299_999, 1 << 40), (1 << 70, 1), (0, -1)]:
        device.readahead(offset, nbytes)
    device.close()
    device.readahead(0, 4096)
