"""READDIR and READDIRPLUS: directory entries packed into the reply, as many as fit.

Cookies are the kernel's own for XFS, so a directory can be read on from anywhere at any time.  A reader usually goes on
where it stopped: the last few walks are kept with the cookie that they stand at, and taken up there.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Error, posix
from . import abi
from .attr import FOREVER, attr_fields

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode
    from ..namespace.directory import DirItem

#: Walks kept standing.  Each holds the entries of one directory block.
WALKS = 4
_DIRENT_BYTES = abi.FUSE_DIRENT.size
_PLUS_BYTES = abi.FUSE_DIRENTPLUS.size
_NO_ENTRY = bytes(abi.FUSE_ENTRY_OUT.size)
#: What a name is padded with to the next multiple of eight, by its length modulo eight.
_PADDING = tuple(bytes(-length & 7) for length in range(8))
_DOT = ord(".")
#: Where `format.inode.Core` has di_gen.
_GEN = 24


class Directories:
    """Reads directories of one filesystem for one session."""

    __slots__ = ("_fs", "_out", "_walks")

    def __init__(self, fs: FileSystem, out: memoryview) -> None:
        self._fs, self._out = fs, out
        self._walks: dict[tuple[int, int], tuple[DirItem | None, Iterator[DirItem]]] = {}

    def _begin(self, inode: Inode, cookie: int) -> tuple[DirItem | None, Iterator[DirItem]]:
        """The entry at a cookie, and the walk that goes on behind it."""
        kept = self._walks.pop((inode.ino, cookie), None)
        if kept is not None:
            return kept
        walk = self._fs.readdir(inode, cookie)
        return next(walk, None), walk

    def _keep(self, ino: int, cookie: int, item: DirItem | None, walk: Iterator[DirItem], used: int) -> None:
        """Leave a walk where it stands: at an entry that did not fit, or at the end, which will be asked for."""
        if not used:
            if item is not None:
                raise posix(errno.EINVAL)  # not even one entry fits: to say "end" would be a lie
            return
        walks = self._walks
        while len(walks) >= WALKS:
            del walks[next(iter(walks))]
        walks[ino, cookie] = (item, walk)

    def forget(self) -> None:
        """Let every kept walk go."""
        self._walks.clear()

    def read(self, inode: Inode, cookie: int, nbytes: int) -> int:
        """fuse_dirent records into the reply; bytes used.  An error waits until what came before it is delivered."""
        out, used = self._out, 0
        pack = abi.FUSE_DIRENT.pack_into
        try:
            item, walk = self._begin(inode, cookie)
            while item is not None:
                name, ino, dtype, after = item
                length = len(name)
                end = used + _DIRENT_BYTES + length + 7 & ~7
                if end > nbytes:
                    break
                pack(out, used, ino, after, length, dtype)
                out[used + _DIRENT_BYTES : end] = name + _PADDING[length & 7]
                used, cookie = end, after
                item = next(walk, None)
            self._keep(inode.ino, cookie, item, walk, used)
        except Error:
            if not used:
                raise
        return used

    def read_plus(self, inode: Inode, cookie: int, nbytes: int) -> tuple[int, int]:
        """fuse_direntplus records into the reply; (bytes used, lookups given to the kernel).

        "." and ".." go without attributes, for the kernel takes none; so does an inode that cannot be read: who looks
        it up gets the error.
        """
        out, used, given = self._out, 0, 0
        geo = self._fs.geo
        pack = abi.FUSE_DIRENTPLUS.pack_into
        core_of = self._fs.mount.inodes.core
        try:
            item, walk = self._begin(inode, cookie)
            while item is not None:
                name, ino, dtype, after = item
                length = len(name)
                end = used + _PLUS_BYTES + length + 7 & ~7
                if end > nbytes:
                    break
                if name[0] == _DOT and (length == 1 or name == b".."):
                    self._bare(used, ino, after, length, dtype)
                else:
                    try:
                        core, device = core_of(ino)
                    except Error:
                        self._bare(used, ino, after, length, dtype)
                    else:
                        pack(
                            out, used, ino, core[_GEN], FOREVER, FOREVER, 0, 0,
                            *attr_fields(geo, ino, core, device), ino, after, length, dtype,
                        )  # fmt: skip
                        given += 1
                out[used + _PLUS_BYTES : end] = name + _PADDING[length & 7]
                used, cookie = end, after
                item = next(walk, None)
            self._keep(inode.ino, cookie, item, walk, used)
        except Error:
            if not used:
                raise
        return used, given

    def _bare(self, at: int, ino: int, after: int, length: int, dtype: int) -> None:
        """A fuse_direntplus whose fuse_entry_out is empty: the kernel takes the name only."""
        self._out[at : at + len(_NO_ENTRY)] = _NO_ENTRY
        abi.FUSE_DIRENT.pack_into(self._out, at + len(_NO_ENTRY), ino, after, length, dtype)
