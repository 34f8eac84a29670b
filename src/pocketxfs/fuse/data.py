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
    from ..filesystem import FileSystem
    from ..inode import Inode, Mapping

#: The reader has sent the reply itself.
SENT = -1
#: Below this many bytes three system calls cost more than the copy that they save.
SPLICE_LEAST_BYTES = 32 << 10
#: What an ordinary user's pipe may hold unless the administrator has said otherwise.
PIPE_MOST_BYTES = 1 << 20
_PAGE = 4096
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
    """Moves data from the image to the kernel through a pipe, where all of a read lies in written extents."""

    __slots__ = ("_fd", "_fs", "_pages", "_pipe_r", "_pipe_w", "_staged")

    def __init__(self, fs: FileSystem, out: memoryview, fd: int) -> None:
        self._fs, self._fd = fs, fd
        self._staged = Staged(fs, out)
        self._pipe_r, self._pipe_w, self._pages = _pipe(len(out))

    def read(self, unique: int, inode: Inode, offset: int, nbytes: int) -> int:
        """`SENT`, or bytes put into the reply buffer."""
        want = min(nbytes, inode.size - offset)
        if want < SPLICE_LEAST_BYTES:
            return self._staged.read(unique, inode, offset, nbytes)
        pieces = list(self._fs.map(inode, offset, want))
        slots = 1  # the header's
        for piece in pieces:
            device = piece.device
            if piece.state != DATA or device is None or device.fileno() is None:
                return self._staged.read(unique, inode, offset, nbytes)
            slots += ((device.base_bytes + piece.device_offset) % _PAGE + piece.nbytes + _PAGE - 1) // _PAGE
        if slots > self._pages:
            return self._staged.read(unique, inode, offset, nbytes)
        total = abi.FUSE_OUT_HEADER.size + want
        os.write(self._pipe_w, abi.FUSE_OUT_HEADER.pack(total, 0, unique))
        try:
            for piece in pieces:
                self._move(piece)
        except OSError:
            self._renew()
            raise
        try:
            os.splice(self._pipe_r, self._fd, total)
        except OSError:
            self._renew()  # the request was given up: what is left in the pipe belongs to nobody
        return SENT

    def _move(self, piece: Mapping) -> None:
        """One run of the image into the pipe."""
        device = piece.device
        assert device is not None
        source = device.fileno()
        assert source is not None
        at, left = device.base_bytes + piece.device_offset, piece.nbytes
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
