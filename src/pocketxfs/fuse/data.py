"""File data for READ: by splice from the image to the kernel, or through one staging buffer of the arena.

Both give the same bytes.  Splice moves whole reads of written extents through a pipe, without a copy of ours; `Staged`
takes everything, and does what splice cannot: holes, unwritten extents, short reads, devices without a file behind
them.  bench/fuse_bench.py measures both.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import DeviceError
from ..inode import DATA
from . import abi

if TYPE_CHECKING:
    from ..device import Device
    from ..filesystem import FileSystem
    from ..inode import Inode

#: The reader has sent the reply itself.
SENT = -1
#: Below this many bytes three system calls cost more than the copy that they save.
SPLICE_LEAST_BYTES = 32 << 10
#: What an ordinary user's pipe may hold unless the administrator has said otherwise.
PIPE_MOST_BYTES = 1 << 20
_PAGE = 4096
_HEADER_BYTES, _header = abi.FUSE_OUT_HEADER.size, abi.FUSE_OUT_HEADER.pack
_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032


class Staged:
    """Reads into the reply buffer, from which one write sends header and data."""

    __slots__ = ("_fs", "_out")

    def __init__(self, fs: FileSystem, out: memoryview) -> None:
        self._fs, self._out = fs, out

    def read(self, unique: int, inode: Inode, offset: int, nbytes: int) -> int:
        """Bytes put into the reply buffer."""
        return self._fs.read_inode(inode, offset, self._out[:nbytes])

    def close(self) -> None:
        """Nothing to give back."""


class Spliced:
    """Moves data from the image to the kernel through a pipe, where all of a read lies in written extents.

    The extent that the last read lay in is remembered: reading goes on in it most of the time.  (A filesystem that
    changes under its readers must call `forget`.)
    """

    __slots__ = (
        "_device", "_end", "_fd", "_fs", "_inode", "_pages", "_pipe_r", "_pipe_w", "_shift", "_source", "_staged",
        "_start",
    )  # fmt: skip

    def __init__(self, fs: FileSystem, out: memoryview, fd: int) -> None:
        self._fs, self._fd = fs, fd
        self._staged = Staged(fs, out)
        self._pipe_r, self._pipe_w, self._pages = _pipe(len(out))
        self.forget()

    def forget(self) -> None:
        """The extent that was remembered may have changed."""
        self._inode: Inode | None = None
        self._device: Device | None = None
        #: bytes of the file, and what makes them bytes of the descriptor
        self._start = self._end = self._shift = 0
        self._source = -1

    def read(self, unique: int, inode: Inode, offset: int, nbytes: int) -> int:
        """`SENT`, or bytes put into the reply buffer."""
        want = min(nbytes, inode.size - offset)
        if want < SPLICE_LEAST_BYTES:
            return self._staged.read(unique, inode, offset, nbytes)
        if inode is not self._inode or offset < self._start or offset + want > self._end:
            self._look(inode, offset)
        if offset + want <= self._end:
            at = offset + self._shift
            if 1 + (at % _PAGE + want + _PAGE - 1) // _PAGE <= self._pages:
                assert self._device is not None
                return self._send(unique, want, [(self._device, self._source, at, want)])
            return self._staged.read(unique, inode, offset, nbytes)
        runs = []
        slots = 1  # the header's
        for piece in self._fs.map(inode, offset, want):
            device = piece.device
            source = device.fileno() if device is not None else None
            if piece.state != DATA or device is None or source is None:
                return self._staged.read(unique, inode, offset, nbytes)
            at = device.base_bytes + piece.device_offset
            slots += (at % _PAGE + piece.nbytes + _PAGE - 1) // _PAGE
            runs.append((device, source, at, piece.nbytes))
        if slots > self._pages:
            return self._staged.read(unique, inode, offset, nbytes)
        return self._send(unique, want, runs)

    def _look(self, inode: Inode, offset: int) -> None:
        """Remember the extent that an offset lies in, as far as it can be spliced."""
        self.forget()
        piece = next(self._fs.map(inode, offset, inode.size - offset))
        device = piece.device
        source = device.fileno() if device is not None else None
        if piece.state == DATA and device is not None and source is not None:
            self._inode, self._device, self._source = inode, device, source
            self._start, self._end = offset, offset + piece.nbytes
            self._shift = device.base_bytes + piece.device_offset - offset

    def _send(self, unique: int, nbytes: int, runs: list[tuple[Device, int, int, int]]) -> int:
        """A whole reply: header, then each run of a device: (device, descriptor, offset in it, bytes)."""
        total = _HEADER_BYTES + nbytes
        os.write(self._pipe_w, _header(total, 0, unique))
        try:
            for run in runs:
                self._move(*run)
        except OSError:
            self._renew()
            raise
        try:
            os.splice(self._pipe_r, self._fd, total)
        except OSError:
            self._renew()  # the request was given up: what is left in the pipe belongs to nobody
        return SENT

    def _move(self, device: Device, source: int, at: int, left: int) -> None:
        """One run of the image into the pipe."""
        while left:
            try:
                moved = os.splice(source, self._pipe_w, left, at)
            except OSError as error:
                raise DeviceError(f"{device.name}: reading {left} bytes at byte {at}: {error.strerror}") from error
            if moved == 0:
                raise DeviceError(f"{device.name}: ends at byte {at}, {left} more were expected (was it cut short?)")
            device.reads += 1
            device.segments += 1
            device.read_bytes += moved
            at += moved
            left -= moved

    def _renew(self) -> None:
        self.close()
        self._pipe_r, self._pipe_w, self._pages = _pipe(self._pages * _PAGE)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._pipe_r)
        os.close(self._pipe_w)


def can_splice() -> bool:
    """Whether this Python and this system have splice(2)."""
    return hasattr(os, "splice")


def _pipe(wanted: int) -> tuple[int, int, int]:
    """A pipe for `wanted` bytes, or as many as the user may have: read end, write end, pages."""
    from fcntl import fcntl

    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    size = min(PIPE_MOST_BYTES, 1 << (wanted - 1).bit_length())
    while size > 1 << 16:
        try:
            fcntl(write_end, _F_SETPIPE_SZ, size)
            break
        except OSError:
            size >>= 1
    return read_end, write_end, fcntl(write_end, _F_GETPIPE_SZ) // _PAGE
