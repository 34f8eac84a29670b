"""A filesystem in memory with the calls that the verbs make, for what no kernel would ever write to a disk.

Names with slashes, directories below themselves, files that fail half way, directories that fail at their end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from pocketxfs.errors import Corrupt

DIR, REG, LNK = 0o040755, 0o100644, 0o120777
BLOCK = 4096


class FakeInode:
    """An inode: the fields that verbs look at."""

    def __init__(self, ino: int, mode: int, data: bytes = b"") -> None:
        self.ino, self.mode, self.data = ino, mode, data
        self.nlink, self.uid, self.gid, self.gen = 1, 0, 0, 7
        self.size = len(data)
        self.rdev = self.flags = self.flags2 = self.projid = 0
        self.atime_ns, self.mtime_ns, self.ctime_ns = 1_600_000_000_000_000_001, 1_600_000_001_000_000_002, 3
        self.btime_ns: int | None = 4
        self.entries: list[tuple[bytes, int]] = []
        self.attributes: dict[bytes, bytes] = {}
        self.holes: list[tuple[int, int]] = []
        self.fails_at: int | None = None
        self.directory_error: OSError | None = None
        self.geo = SimpleNamespace(block_bytes=BLOCK, ag_blocks=1000, block_sectors_log=3)
        self.is_realtime = False

    @property
    def nblocks(self) -> int:
        return -(-self.size // BLOCK)

    @property
    def kind(self) -> int:
        return self.mode & 0o170000

    @property
    def dtype(self) -> int:
        return self.mode >> 12

    @property
    def is_dir(self) -> bool:
        return self.kind == 0o040000

    def stat(self) -> os.stat_result:
        a, m, c = self.atime_ns, self.mtime_ns, self.ctime_ns
        return os.stat_result((
            self.mode, self.ino, 0, self.nlink, self.uid, self.gid, self.size, a // 10**9, m // 10**9, c // 10**9,
            a / 1e9, m / 1e9, c / 1e9, a, m, c, BLOCK, self.nblocks * 8, self.rdev,
        ))  # fmt: skip


class FakeFs:
    """A tree of `FakeInode`s.  `dtypes` False leaves the types out of directories, as old filesystems do."""

    def __init__(self) -> None:
        self.inodes: dict[int, FakeInode] = {}
        self.root_ino = 128
        self.dtypes = True
        self.opened: list[tuple[int, int]] = []
        self.closed = False
        self._next = 128
        self.add(None, b"", DIR)

    def add(self, parent: FakeInode | None, name: bytes, mode: int, data: bytes = b"") -> FakeInode:
        """A new inode with a name."""
        inode = FakeInode(self._next, mode, data)
        self._next += 1
        self.inodes[inode.ino] = inode
        if parent is not None:
            parent.entries.append((name, inode.ino))
        return inode

    @property
    def root(self) -> FakeInode:
        return self.inodes[self.root_ino]

    def link(self, parent: FakeInode, name: bytes, inode: FakeInode) -> None:
        """Another name of an inode."""
        parent.entries.append((name, inode.ino))
        inode.nlink += 1

    # -- the calls of FileSystem -------------------------------------------------------------------------------

    def trusted_inode(self, ino: int) -> Any:
        if ino not in self.inodes:
            raise Corrupt("inode", f"inode {ino}", "number", "one in use", ino)
        return self.inodes[ino]

    def resolve(self, path: bytes | str, *, follow_symlinks: bool = True) -> Any:
        here = self.root
        for part in os.fsencode(path).split(b"/"):
            if part in (b"", b"."):
                continue
            found = dict(here.entries).get(part)
            if found is None:
                raise FileNotFoundError(2, "No such file or directory", os.fsdecode(path))
            here = self.trusted_inode(found)
        return here

    def readdir(self, parent: FakeInode, cookie: int = 0) -> Iterator[tuple[bytes, int, int, int]]:
        if not parent.is_dir:
            raise NotADirectoryError(20, "Not a directory")
        self.opened.append((parent.ino, cookie))
        whole = [(b".", parent.ino), (b"..", parent.ino), *parent.entries]
        for number in range(cookie, len(whole)):
            name, ino = whole[number]
            dtype = self.inodes[ino].dtype if self.dtypes and ino in self.inodes else 0
            yield name, ino, dtype, number + 1
        if parent.directory_error is not None:
            raise parent.directory_error

    def readlink_inode(self, inode: FakeInode) -> bytes:
        return inode.data

    def read_inode(self, inode: FakeInode, offset: int, view: memoryview) -> int:
        if inode.fails_at is not None and offset + len(view) > inode.fails_at:
            raise Corrupt("bmbt block", f"inode {inode.ino}", "magic", "BMA3", "XXXX")
        piece = inode.data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def map(self, inode: FakeInode, offset: int, nbytes: int) -> Iterator[Any]:
        at, end = offset, min(offset + nbytes, inode.size)
        for start, length in inode.holes:
            if start > at:
                yield SimpleNamespace(file_offset=at, nbytes=start - at, state=1)
            yield SimpleNamespace(file_offset=start, nbytes=length, state=0)
            at = start + length
        if at < end:
            yield SimpleNamespace(file_offset=at, nbytes=end - at, state=1)

    def copy_to_fd(self, inode: FakeInode, fd: int) -> int:
        for piece in self.map(inode, 0, inode.size):
            if piece.state:
                data = bytearray(piece.nbytes)
                self.read_inode(inode, piece.file_offset, memoryview(data))
                os.lseek(fd, piece.file_offset, os.SEEK_SET)
                os.write(fd, data)
        os.ftruncate(fd, inode.size)
        return inode.size

    def xattrs(self, inode: FakeInode) -> Iterator[tuple[bytes, int]]:
        for name, value in inode.attributes.items():
            yield name, len(value)

    def xattr(self, inode: FakeInode, name: bytes) -> bytes:
        return inode.attributes[name]

    def statvfs(self, _path: object = "/") -> os.statvfs_result:
        return os.statvfs_result((BLOCK, BLOCK, 100_000, 60_000, 60_000, 5000, 4000, 4000, 1, 255))

    def memory_report(self) -> dict[str, Any]:
        return {"high_water_bytes": 123456, "buffers": {"inode": {"hits": 1}}, "buddyinfo": "Node 0\nzone"}

    def close(self) -> None:
        self.closed = True
