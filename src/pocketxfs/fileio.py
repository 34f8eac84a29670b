"""File objects over the files of an image: what `FileSystem.open` returns."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING, Any

from .inode import Inode, Mount, read_bytes, read_into, seek

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Read ahead by the buffered objects; the raw one reads what it is asked for.
BUFFER_BYTES = 1 << 16


class RawFile(io.RawIOBase):
    """Unbuffered reading of one regular file.  SEEK_DATA and SEEK_HOLE work where `os` has them."""

    def __init__(self, mount: Mount, inode: Inode, name: str) -> None:
        super().__init__()
        self._mount, self._inode, self._at = mount, inode, 0
        self.name, self.mode = name, "rb"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._check()
        with memoryview(buffer) as view, view.cast("B") as raw:
            count = read_into(self._mount, self._inode, self._at, raw)
        self._at += count
        return count

    def readall(self) -> bytes:
        self._check()
        data = read_bytes(self._mount, self._inode, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check()
        if whence == os.SEEK_SET:
            at = offset
        elif whence == os.SEEK_CUR:
            at = self._at + offset
        elif whence == os.SEEK_END:
            at = self._inode.size + offset
        elif whence in (getattr(os, "SEEK_DATA", 3), getattr(os, "SEEK_HOLE", 4)):
            at = seek(self._mount, self._inode, offset, whence == getattr(os, "SEEK_DATA", 3))
        else:
            raise ValueError(f"invalid whence {whence}")
        if at < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = at
        return at

    def tell(self) -> int:
        self._check()
        return self._at

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def open_inode(
    mount: Mount,
    inode: Inode,
    name: str,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> Any:
    """A file object as the built-in `open` would choose it; only reading modes get here."""
    raw = RawFile(mount, inode, name)
    binary = "b" in mode
    if buffering == 0:
        if not binary:
            raise ValueError("can't have unbuffered text I/O")
        return raw
    buffered = io.BufferedReader(raw, BUFFER_BYTES if buffering < 2 else buffering)
    if binary:
        if encoding is not None or errors is not None or newline is not None:
            raise ValueError("binary mode doesn't take encoding, errors or newline")
        return buffered
    return io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)
