"""Bytes to standard output or a file, through one staging buffer that never grows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from ...errors import DeviceError

if TYPE_CHECKING:
    from ...filesystem import FileSystem
    from ...inode import Inode

STAGING_BYTES = 1 << 18
ZEROS = bytes(1 << 12)


class Writer:
    """Collects small pieces; file data is read straight into the staging buffer.  `written` counts all bytes."""

    def __init__(self, out: BinaryIO) -> None:
        out.flush()
        self._out = out
        try:
            self._fd = out.fileno()
        except (OSError, AttributeError):
            self._fd = -1
        self._view = memoryview(bytearray(STAGING_BYTES))
        self._used = 0
        self.written = 0
        #: Whether writing has failed, which no next file can mend.
        self.broken = False

    def write(self, data: bytes | bytearray) -> None:
        """Some bytes; small ones are collected."""
        nbytes = len(data)
        self.written += nbytes
        if self._used + nbytes > STAGING_BYTES:
            self.flush()
            if nbytes > STAGING_BYTES:
                self._send(memoryview(data))
                return
        self._view[self._used : self._used + nbytes] = data
        self._used += nbytes

    def fill(self, fs: FileSystem, inode: Inode, offset: int, nbytes: int) -> int:
        """Up to `nbytes` of a file from `offset`; how many there were room for.  Nothing is kept of a failed read."""
        if self._used == STAGING_BYTES:
            self.flush()
        room = min(nbytes, STAGING_BYTES - self._used)
        count = fs.read_inode(inode, offset, self._view[self._used : self._used + room])
        if count <= 0:
            raise DeviceError(f"inode {inode.ino}: no data at byte {offset}")
        self._used += count
        self.written += count
        return count

    def zeros(self, nbytes: int) -> None:
        """So many zero bytes."""
        while nbytes:
            piece = min(nbytes, len(ZEROS))
            self.write(ZEROS[:piece])
            nbytes -= piece

    def flush(self) -> None:
        """Hand on what was collected."""
        view, self._used = self._view[: self._used], 0
        self._send(view)

    def _send(self, view: memoryview) -> None:
        try:
            if self._fd < 0:
                self._out.write(view)
                return
            while view:
                view = view[os.write(self._fd, view) :]
        except BaseException:
            self.broken = True
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        self._view.release()
