"""Any seekable Python binary file object as a device: `io.BytesIO`, an open `gzip` file, a file inside an archive.

The object may be written by anyone: whatever it raises, and whatever it returns that a file would not, becomes a
`DeviceError`.  Limits: it is not closed here, its position is moved, and it must have all its bytes when opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import DeviceError, Unsupported
from .base import Device


class FileObjectDevice(Device):
    """A file object.  It belongs to the caller, who closes it after the device."""

    __slots__ = ("_closed", "_file", "_readinto")

    def __init__(self, file: Any, *, writable: bool = False) -> None:
        name = getattr(file, "name", None)
        if isinstance(name, bytes):
            name = name.decode(errors="surrogateescape")
        label = name if isinstance(name, str) and name else f"<{type(file).__name__}>"
        if hasattr(file, "encoding"):
            raise Unsupported(f"{label}: a text file object; open it in binary mode")
        if not callable(getattr(file, "seek", None)):
            raise Unsupported(f"{label}: the file object cannot seek")
        try:
            file.seek(0, 2)
            size = file.tell()
        except MemoryError:
            raise
        except Exception as error:
            raise DeviceError(f"{label}: the file object does not tell its size: {error!r}") from error
        if not isinstance(size, int) or size < 0:
            raise DeviceError(f"{label}: the file object says that its size is {size!r}")
        super().__init__(label, size, read_only=not writable)
        self._file = file
        self._readinto = callable(getattr(file, "readinto", None))
        self._closed = False

    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        wanted = sum(map(len, segments))
        self.check_range(offset_bytes, wanted)
        self._check_open()
        done = 0
        try:
            self._file.seek(offset_bytes)
            for segment in segments:
                filled = 0
                length = len(segment)
                self.segments += 1
                while filled < length:
                    got = self._read_some(segment[filled:] if filled else segment)
                    self.reads += 1
                    if got == 0:
                        raise self.ended(offset_bytes, wanted, done)
                    filled += got
                    done += got
                    self.read_bytes += got
        except (DeviceError, MemoryError):
            raise
        except Exception as error:
            raise self.failed(offset_bytes + done, wanted - done, error) from error

    def _read_some(self, view: memoryview) -> int:
        if self._readinto:
            got = self._file.readinto(view)
        else:
            data = self._file.read(len(view))
            got = None if data is None else len(data)
            if got is not None and got <= len(view):
                view[:got] = data
        if not isinstance(got, int) or not 0 <= got <= len(view):
            raise DeviceError(f"{self.name}: asked for {len(view)} bytes, the file object says it gave {got!r}")
        return got

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        self.check_writable()
        with memoryview(data) as whole, whole.cast("B") as view:
            wanted = len(view)
            self.check_range(offset_bytes, wanted)
            self._check_open()
            done = 0
            try:
                self._file.seek(offset_bytes)
                while done < wanted:
                    got = self._file.write(view[done:])
                    if not isinstance(got, int) or not 0 < got <= wanted - done:
                        raise DeviceError(
                            f"{self.name}: given {wanted - done} bytes, the file object says it took {got!r}"
                        )
                    done += got
                    self.writes += 1
                    self.written_bytes += got
            except (DeviceError, MemoryError):
                raise
            except Exception as error:
                raise self.failed(offset_bytes + done, wanted - done, error, "writing") from error

    def flush(self) -> None:
        if self.read_only or not callable(getattr(self._file, "flush", None)):
            return
        try:
            self._file.flush()
        except MemoryError:
            raise
        except Exception as error:
            raise DeviceError(f"{self.name}: flushing: {error!r}") from error

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError(f"{self.name}: the device is closed")
