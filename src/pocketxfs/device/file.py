"""A regular file or a block device, read with `preadv` straight into the caller's memory.

Sizes of block devices: seeking to the end answers on Linux and the BSDs; where it says 0 (macOS) the `ioctl`s do.
Where `os.preadv` is missing (Windows, macOS before 11) each segment is filled by a seek and a `readinto`.
Limits: no O_DIRECT; raw character devices (macOS `/dev/rdisk`), pipes and sockets are refused by name.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence

from ..errors import DeviceError, Unsupported, posix
from .base import SECTOR_BYTES, Device, slice_segments

_preadv = getattr(os, "preadv", None)
_pread = getattr(os, "pread", None)
_pwrite = getattr(os, "pwrite", None)
_fadvise = getattr(os, "posix_fadvise", None)
_WILLNEED = getattr(os, "POSIX_FADV_WILLNEED", 3)

#: Segments in one system call (POSIX's IOV_MAX as Linux and macOS have it).
IOV_MAX = 1024

#: ioctl numbers: Linux BLKSSZGET and BLKGETSIZE64 (asm-generic), macOS DKIOCGETBLOCKSIZE and DKIOCGETBLOCKCOUNT.
BLKSSZGET = 0x1268
BLKGETSIZE64 = 0x80081272
DKIOCGETBLOCKSIZE = 0x40046418
DKIOCGETBLOCKCOUNT = 0x40086419


class FileDevice(Device):
    """An open descriptor.  It belongs to the device, which closes it."""

    __slots__ = ("_fd",)

    def __init__(
        self,
        fd: int,
        name: str,
        size_bytes: int,
        *,
        base_bytes: int = 0,
        sector_bytes: int = SECTOR_BYTES,
        read_only: bool = True,
    ) -> None:
        super().__init__(name, size_bytes, sector_bytes=sector_bytes, read_only=read_only)
        self._fd = fd
        self.base_bytes = base_bytes

    def pread_into(self, offset_bytes: int, segments: Sequence[memoryview]) -> None:
        count = len(segments)
        wanted = len(segments[0]) if count == 1 else sum(map(len, segments))
        if offset_bytes < 0 or offset_bytes + wanted > self.size_bytes:
            raise self.beyond(offset_bytes, wanted)
        if wanted == 0:
            return
        if _preadv is None or count > IOV_MAX:
            self._fill(offset_bytes, segments, 0, wanted)
            return
        try:
            got: int = _preadv(self._fd, segments, self.base_bytes + offset_bytes)
        except OSError as error:
            raise self.failed(offset_bytes, wanted, error) from error
        self.reads += 1
        self.segments += count
        self.read_bytes += got
        if got != wanted:
            self._fill(offset_bytes, segments, got, wanted)

    def _fill(self, offset_bytes: int, segments: Sequence[memoryview], done: int, wanted: int) -> None:
        """Go on after a short read, and serve what one call cannot."""
        rest = slice_segments(segments, done, wanted - done)
        while done < wanted:
            some = rest[:IOV_MAX] if _preadv is not None else rest[:1]
            try:
                got = self._read_some(self.base_bytes + offset_bytes + done, some)
            except OSError as error:
                raise self.failed(offset_bytes + done, wanted - done, error) from error
            self.reads += 1
            self.segments += len(some)
            self.read_bytes += got
            if got == 0:
                raise self.ended(offset_bytes, wanted, done)
            done += got
            rest = slice_segments(rest, got, wanted - done)

    def _read_some(self, position: int, segments: Sequence[memoryview]) -> int:
        if _preadv is not None:
            return int(_preadv(self._fd, segments, position))
        import io

        with io.FileIO(self._fd, "rb", closefd=False) as raw:
            raw.seek(position)
            return raw.readinto(segments[0]) or 0

    def pread(self, offset_bytes: int, nbytes: int) -> bytes:
        if offset_bytes < 0 or nbytes < 0 or offset_bytes + nbytes > self.size_bytes:
            raise self.beyond(offset_bytes, nbytes)
        if _pread is None:
            return super().pread(offset_bytes, nbytes)
        try:
            data: bytes = _pread(self._fd, nbytes, self.base_bytes + offset_bytes)
        except OSError as error:
            raise self.failed(offset_bytes, nbytes, error) from error
        got = len(data)
        self.reads += 1
        self.segments += 1
        self.read_bytes += got
        if got == nbytes:
            return data
        held = bytearray(nbytes)
        held[:got] = data
        with memoryview(held) as view:
            self._fill(offset_bytes, (view,), got, nbytes)
        return bytes(held)

    def pwrite(self, offset_bytes: int, data: bytes | bytearray | memoryview) -> None:
        self.check_writable()
        with memoryview(data) as whole, whole.cast("B") as view:
            wanted = len(view)
            self.check_range(offset_bytes, wanted)
            done = 0
            while done < wanted:
                with view[done:] as rest:
                    try:
                        got = self._write_some(self.base_bytes + offset_bytes + done, rest)
                    except OSError as error:
                        raise self.failed(offset_bytes + done, wanted - done, error, "writing") from error
                self.writes += 1
                self.written_bytes += got
                if got == 0:
                    raise DeviceError(f"{self.name}: writing at offset {offset_bytes + done}: nothing was taken")
                done += got

    def _write_some(self, position: int, data: memoryview) -> int:
        if _pwrite is not None:
            return int(_pwrite(self._fd, data, position))
        os.lseek(self._fd, position, os.SEEK_SET)
        return os.write(self._fd, data)

    def flush(self) -> None:
        if self.read_only:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise DeviceError(f"{self.name}: flushing: {error.strerror}", errno=error.errno) from error

    def readahead(self, offset_bytes: int, nbytes: int) -> None:
        if _fadvise is None:
            return
        nbytes = min(nbytes, self.size_bytes - offset_bytes)
        if nbytes <= 0 or offset_bytes < 0:
            return
        try:
            _fadvise(self._fd, self.base_bytes + offset_bytes, nbytes, _WILLNEED)
        except OSError:
            return  # A hint that is not taken changes nothing: the read itself will say what is wrong.

    def fileno(self) -> int | None:
        return self._fd

    def window(self, start_bytes: int, nbytes: int, name: str) -> Device:
        self.check_range(start_bytes, nbytes)
        fd, self._fd = self._fd, -1
        return FileDevice(
            fd,
            name,
            nbytes,
            base_bytes=self.base_bytes + start_bytes,
            sector_bytes=self.sector_bytes,
            read_only=self.read_only,
        )

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def open_path(path: str | bytes, *, writable: bool = False) -> FileDevice:
    """Open a regular file or a block device.  Raises the usual `OSError` where the path cannot be opened."""
    name = os.fsdecode(path)
    _refuse(os.stat(path).st_mode, name)  # Before opening: a pipe would wait for its other end.
    flags = os.O_RDWR if writable else os.O_RDONLY
    fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        return from_fd(fd, name, writable=writable)
    except BaseException:
        os.close(fd)
        raise


def from_fd(fd: int, name: str, *, writable: bool = False) -> FileDevice:
    """The device over a descriptor, which it takes over."""
    about = os.fstat(fd)
    _refuse(about.st_mode, name)
    if stat.S_ISREG(about.st_mode):
        return FileDevice(fd, name, about.st_size, read_only=not writable)
    size_bytes, sector_bytes = _block_device(fd, name)
    return FileDevice(fd, name, size_bytes, sector_bytes=sector_bytes, read_only=not writable)


def _refuse(mode: int, name: str) -> None:
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return
    if stat.S_ISDIR(mode):
        raise posix(errno.EISDIR, name)
    if stat.S_ISCHR(mode):
        hint = ""
        if sys.platform == "darwin" and name.startswith("/dev/rdisk"):
            hint = f": give /dev/{name[6:]}"
        raise Unsupported(f"{name}: a character device, not a block device or a file{hint}")
    kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a special file"
    raise Unsupported(f"{name}: {kind} cannot be read at any offset; a file or a block device is needed")


def _block_device(fd: int, name: str) -> tuple[int, int]:
    """Size and logical sector size in bytes."""
    darwin = sys.platform == "darwin"
    sector_bytes = _ioctl(fd, DKIOCGETBLOCKSIZE if darwin else BLKSSZGET, 4) or SECTOR_BYTES
    try:
        size_bytes = os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        size_bytes = 0
    if size_bytes <= 0:
        if darwin:
            size_bytes = _ioctl(fd, DKIOCGETBLOCKCOUNT, 8) * sector_bytes
        else:
            size_bytes = _ioctl(fd, BLKGETSIZE64, 8)
    if size_bytes <= 0:
        raise DeviceError(f"{name}: the block device does not tell its size (is there a medium in it?)")
    return size_bytes, sector_bytes


def _ioctl(fd: int, request: int, nbytes: int) -> int:
    """The integer that an ioctl gives, or 0 where the device does not know it."""
    try:
        from fcntl import ioctl

        return int.from_bytes(ioctl(fd, request, bytes(nbytes)), sys.byteorder)
    except (ImportError, OSError):
        return 0
