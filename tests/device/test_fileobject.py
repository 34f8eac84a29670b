"""File objects: good ones, ordinary ones and strange ones."""

from __future__ import annotations

import gzip
import io
import lzma
import random
from pathlib import Path
from typing import Any

import pytest

from pocketxfs.device import open_device
from pocketxfs.errors import DeviceError, Unsupported

CONTENT = random.Random(3).randbytes(50_000)


def test_bytes_in_memory() -> None:
    source = io.BytesIO(CONTENT)
    with open_device(source, whole=True) as device:
        held = bytearray(9000)
        view = memoryview(held)
        device.pread_into(100, (view[:1000], view[1000:]))
        assert held == CONTENT[100:9100]
        assert device.pread(49_999, 1) == CONTENT[-1:]
        assert device.fileno() is None
        assert (device.segments, device.read_bytes) == (3, 9001)
        for offset, nbytes in [(49_999, 2), (-1, 1)]:
            with pytest.raises(DeviceError):
                device.pread(offset, nbytes)
    assert not source.closed
    with pytest.raises(DeviceError, match="closed"):
        device.pread(0, 1)


@pytest.mark.parametrize("opener", [gzip.open, lzma.open])
def test_a_compressed_file(opener: Any, tmp_path: Path) -> None:
    path = tmp_path / "image.packed"
    with opener(path, "wb") as out:
        out.write(b"XFSB" + CONTENT)
    with opener(path, "rb") as source, open_device(source) as device:
        assert device.size_bytes == 50_004
        assert device.pread(40_000, 100) == CONTENT[39_996:40_096]
        assert device.pread(4, 100) == CONTENT[:100]


def test_a_damaged_compressed_file_is_a_device_error(tmp_path: Path) -> None:
    path = tmp_path / "image.gz"
    packed = bytearray(gzip.compress(CONTENT))
    packed[20_000:20_100] = bytes(100)
    path.write_bytes(packed[:-10])
    with gzip.open(path, "rb") as source, pytest.raises(DeviceError):
        open_device(source)


def test_an_ordinary_file_object_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    with open(path, "rb") as source, open_device(source, offset=5) as device:
        assert device.name == f"{path} from byte 5"
        assert device.pread(0, 10) == CONTENT[5:15]
        device.readahead(0, 100)
        device.close()
        assert not source.closed


class Odd:
    """A file of 1000 bytes that fails in one chosen way."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.at = 0

    def seek(self, offset: int, whence: int = 0) -> None:
        if self.way == "cannot seek":
            raise io.UnsupportedOperation("underlying stream is not seekable")
        if self.way == "value error":
            raise ValueError("I/O operation on closed file")
        self.at = 1000 + offset if whence == 2 else offset

    def tell(self) -> Any:
        return {"no size": None, "negative": -5}.get(self.way, self.at)

    def read(self, nbytes: int = -1) -> Any:
        if self.way == "raises":
            raise IndexError("who knows")
        if self.way == "eof error":
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        if self.way == "no memory":
            raise MemoryError
        return {
            "nothing": b"",
            "none": None,
            "text": "x" * nbytes,
            "too much": bytes(nbytes + 1),
            "number": 7,
            "drips": b"d",
        }.get(self.way, bytes(nbytes))


@pytest.mark.parametrize("way", ["raises", "eof error", "nothing", "none", "text", "too much", "number"])
def test_whatever_reading_does_is_a_device_error(way: str) -> None:
    device = open_device(Odd(way), whole=True)
    with pytest.raises(DeviceError) as caught:
        device.pread(100, 10)
    assert "<Odd>" in str(caught.value)


@pytest.mark.parametrize("way", ["cannot seek", "value error", "no size", "negative"])
def test_whatever_opening_does_is_a_device_error(way: str) -> None:
    with pytest.raises(DeviceError):
        open_device(Odd(way), whole=True)


def test_memory_errors_stay_themselves_and_drips_are_collected() -> None:
    with pytest.raises(MemoryError):
        open_device(Odd("no memory"), whole=True).pread(0, 10)
    device = open_device(Odd("drips"), whole=True)
    assert device.pread(0, 10) == b"d" * 10
    assert device.reads == 10


def test_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    with open(tmp_path / "text") as source, pytest.raises(Unsupported, match="binary"):
        open_device(source)
    with pytest.raises(Unsupported, match="binary"):
        open_device(io.StringIO("x"))


def test_writing_through_a_window() -> None:
    source = io.BytesIO(CONTENT)
    with open_device(source, offset=1000, writable=True) as device:
        device.pwrite(5, b"hello")
        device.flush()
        assert device.pread(4, 7) == CONTENT[1004:1005] + b"hello" + CONTENT[1010:1011]
        assert (device.writes, device.written_bytes, device.reads) == (1, 5, 1)
        with pytest.raises(DeviceError):
            device.pwrite(48_999, b"12")
        with pytest.raises(DeviceError):
            device.pread(-1, 2)
    assert source.getvalue()[1005:1010] == b"hello"
