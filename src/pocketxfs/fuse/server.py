"""The server: one method for each request, over a `FileSystem`.

A method is given (unique, nodeid, uid, body), reads the body, puts its reply's payload at the beginning of the reply
buffer and returns its length, or `NO_REPLY`.  It raises `OSError` for what the requester shall see.  Here is no I/O on
the device but for data.py's splice; `session.py` has the loop.

A nodeid is the inode number (the root is 1), so the server need not remember what the kernel knows: an inode is found
again from its number at any time, and in-core inodes are a cache within the machine's memory.  There are never more
of them than lookups that the kernel holds, but for a few: when it forgets, they go.  Limits: reading only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import posix
from ..inode import INODE_CHARGE_BYTES
from ..inode import seek as seek_inode
from . import abi
from .attr import FOREVER, attr_fields, statx_reply
from .data import SENT, Spliced, Staged
from .directory import Directories

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode

#: In-core inodes that may be kept though the kernel knows none: the root, and what is charged at once.
INODES_OF_OUR_OWN = 64
NO_REPLY = -1
assert NO_REPLY == SENT

#: For a name that is not there: it will not come to be.
_NEGATIVE_ENTRY = abi.FUSE_ENTRY_OUT.pack(0, 0, FOREVER, *[0] * 19)
_read_in = abi.FUSE_READ_IN.unpack_from
_SEEK_DATA, _SEEK_HOLE = 3, 4
_S_IFREG, _S_IFDIR = 0o100000, 0o040000

Handler = Callable[["Server", int, int, int, memoryview], int]


class Server:
    """Answers requests about one filesystem.  One thread."""

    __slots__ = (
        "_data", "_directories", "_inodes", "_out", "_root_ino", "_statfs", "fs", "lists_trusted", "live", "lookups",
        "no_open", "no_opendir",
    )  # fmt: skip

    def __init__(self, fs: FileSystem, out: memoryview, splice_fd: int | None = None) -> None:
        """`out`: the reply buffer's payload.  `splice_fd`: the FUSE device, where data is to be spliced into it."""
        self.fs, self._out, self._root_ino, self._inodes = fs, out, fs.root_ino, fs.mount.inodes
        self._directories = Directories(fs, out)
        self._data: Staged | Spliced = Staged(fs, out) if splice_fd is None else Spliced(fs, out, splice_fd)
        self._statfs = b""
        #: Lookups that the kernel holds: given less forgotten.
        self.lookups = 0
        self.no_open = self.no_opendir = False
        #: Whether root here is the host's root, who alone sees `trusted.`.
        self.lists_trusted = True
        #: Answers attributes in this program's own namespace (`live.py`).
        self.live: Callable[[Inode, bytes], bytes] | None = None

    def close(self) -> None:
        """Give back what it holds, which is little."""
        self._directories.forget()
        self._data.close()

    def _node(self, nodeid: int) -> Inode:
        """The inode of a nodeid that the kernel was given."""
        if nodeid == abi.FUSE_ROOT_ID:
            return self._inodes.get(self._root_ino)
        if not self.fs.geo.ino_valid(nodeid):
            raise posix(errno.ESTALE)
        inode = self._inodes.get(nodeid)
        if inode.flags2 & 32:
            raise posix(errno.ESTALE)
        return inode

    # -- names -------------------------------------------------------------------------------------------------

    def lookup(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        name = _name(body)
        fs = self.fs
        if name == b"." or name == b"..":
            return self._lookup_handle(nodeid, name)
        try:
            ino = fs.lookup(self._node(nodeid), name)
        except FileNotFoundError:
            self._out[: len(_NEGATIVE_ENTRY)] = _NEGATIVE_ENTRY
            return len(_NEGATIVE_ENTRY)
        return self._entry(ino, self._inodes.get(ino))

    def _lookup_handle(self, nodeid: int, name: bytes) -> int:
        """A file handle is opened: its nodeid comes from the user, so it is looked up in the inode B+tree."""
        inode = self.fs.inode(self._root_ino if nodeid == abi.FUSE_ROOT_ID else nodeid)
        if name == b"..":
            inode = self._inodes.get(self.fs.lookup(inode, name))
        return self._entry(inode.ino, inode)

    def _entry(self, ino: int, inode: Inode) -> int:
        self.lookups += 1
        abi.FUSE_ENTRY_OUT.pack_into(
            self._out, 0, abi.FUSE_ROOT_ID if ino == self._root_ino else ino, inode.gen, FOREVER, FOREVER, 0, 0,
            *attr_fields(inode.geo, ino, inode.core, inode.literal),
        )  # fmt: skip
        return abi.FUSE_ENTRY_OUT.size

    def forget(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        (count,) = abi.FUSE_FORGET_IN.unpack_from(body)
        self._forget(count)
        return NO_REPLY

    def batch_forget(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        (count, _) = abi.FUSE_BATCH_FORGET_IN.unpack_from(body)
        start, one = abi.FUSE_BATCH_FORGET_IN.size, abi.FUSE_FORGET_ONE.size
        count = min(count, (len(body) - start) // one)
        self._forget(sum(pair[1] for pair in abi.FUSE_FORGET_ONE.iter_unpack(body[start : start + count * one])))
        return NO_REPLY

    def _forget(self, count: int) -> None:
        self.lookups = max(0, self.lookups - count)
        held = self._inodes.count()
        most = (self.lookups + INODES_OF_OUR_OWN) * INODE_CHARGE_BYTES
        if held > most:
            self._inodes.scan(held - most)

    # -- attributes of inodes ----------------------------------------------------------------------------------

    def getattr(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        inode = self._node(nodeid)
        abi.FUSE_ATTR_OUT.pack_into(
            self._out, 0, FOREVER, 0, 0, *attr_fields(inode.geo, inode.ino, inode.core, inode.literal)
        )
        return abi.FUSE_ATTR_OUT.size

    def statx(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        abi.FUSE_STATX_OUT.pack_into(self._out, 0, *statx_reply(self._node(nodeid)))
        return abi.FUSE_STATX_OUT.size

    def access(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        """Asked only where the kernel does not check: whoever may use the mount may read everything in it."""
        mask, _ = abi.FUSE_ACCESS_IN.unpack_from(body)
        inode = self._node(nodeid)
        if mask & os.W_OK and inode.mode & 0o170000 in (_S_IFREG, _S_IFDIR, 0o120000):
            raise posix(errno.EROFS)
        if mask & os.X_OK and inode.mode & 0o170000 == _S_IFREG and not inode.mode & 0o111:
            raise posix(errno.EACCES)
        return 0

    def readlink(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        return self._put(self.fs.readlink_inode(self._node(nodeid)))

    # -- files -------------------------------------------------------------------------------------------------

    def open(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        flags, _ = abi.FUSE_OPEN_IN.unpack_from(body)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise posix(errno.EROFS)
        inode = self._node(nodeid)
        if inode.is_dir:
            raise posix(errno.EISDIR)
        if self.no_open:
            raise posix(errno.ENOSYS)  # from now on the kernel opens without asking, and keeps what it has cached
        abi.FUSE_OPEN_OUT.pack_into(self._out, 0, 0, abi.FOPEN_KEEP_CACHE | abi.FOPEN_NOFLUSH, 0)
        return abi.FUSE_OPEN_OUT.size

    def read(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        _, offset, nbytes, _, _, _, _ = _read_in(body)
        inode = self._node(nodeid)
        if nbytes > len(self._out) or offset >> 63:
            raise posix(errno.EINVAL)
        return self._data.read(unique, inode, offset, nbytes)

    def release(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        return 0

    def lseek(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        _, offset, whence, _ = abi.FUSE_LSEEK_IN.unpack_from(body)
        inode = self._node(nodeid)
        if whence not in (_SEEK_DATA, _SEEK_HOLE) or not inode.mode & 0o170000 == _S_IFREG:
            raise posix(errno.EINVAL)
        found = seek_inode(self.fs.mount, inode, offset, whence == _SEEK_DATA)
        abi.FUSE_LSEEK_OUT.pack_into(self._out, 0, found)
        return abi.FUSE_LSEEK_OUT.size

    def ioctl(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        from .ioctl import answer

        _, flags, command, _, _, out_bytes = abi.FUSE_IOCTL_IN.unpack_from(body)
        inode = self._node(nodeid)
        if flags & abi.FUSE_IOCTL_UNRESTRICTED:
            raise posix(errno.ENOTTY)
        found = answer(inode, command)[:out_bytes]
        out, start = self._out, abi.FUSE_IOCTL_OUT.size
        abi.FUSE_IOCTL_OUT.pack_into(out, 0, 0, 0, 0, 0)
        out[start : start + len(found)] = found
        return start + len(found)

    # -- directories -------------------------------------------------------------------------------------------

    def opendir(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        if not self._node(nodeid).is_dir:
            raise posix(errno.ENOTDIR)
        if self.no_opendir:
            raise posix(errno.ENOSYS)
        abi.FUSE_OPEN_OUT.pack_into(self._out, 0, 0, abi.FOPEN_KEEP_CACHE | abi.FOPEN_CACHE_DIR, 0)
        return abi.FUSE_OPEN_OUT.size

    def readdir(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        inode, cookie, nbytes = self._directory_request(nodeid, body)
        return self._directories.read(inode, cookie, nbytes)

    def readdirplus(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        inode, cookie, nbytes = self._directory_request(nodeid, body)
        used, given = self._directories.read_plus(inode, cookie, nbytes)
        self.lookups += given
        return used

    def _directory_request(self, nodeid: int, body: memoryview) -> tuple[Inode, int, int]:
        _, cookie, nbytes, _, _, _, _ = abi.FUSE_READ_IN.unpack_from(body)
        inode = self._node(nodeid)
        if not inode.is_dir:
            raise posix(errno.ENOTDIR)
        if cookie >> 63:
            raise posix(errno.EINVAL)
        return inode, cookie, min(nbytes, len(self._out))

    # -- extended attributes -----------------------------------------------------------------------------------

    def getxattr(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        nbytes, _ = abi.FUSE_GETXATTR_IN.unpack_from(body)
        name = _name(body[abi.FUSE_GETXATTR_IN.size :])
        inode = self._node(nodeid)
        if self.live is not None and name.startswith(b"pocketxfs."):
            return self._sized(self.live(inode, name), nbytes)
        return self._sized(self.fs.xattr(inode, name), nbytes)

    def listxattr(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        nbytes, _ = abi.FUSE_GETXATTR_IN.unpack_from(body)
        trusted = uid == 0 and self.lists_trusted
        names = bytearray()
        for name, _ in self.fs.xattrs(self._node(nodeid)):
            if trusted or not name.startswith(b"trusted."):
                names += name
                names.append(0)
        return self._sized(names, nbytes)

    def _sized(self, value: bytes | bytearray, nbytes: int) -> int:
        """An attribute's value, or its size where that was asked for."""
        if nbytes == 0:
            abi.FUSE_GETXATTR_OUT.pack_into(self._out, 0, len(value), 0)
            return abi.FUSE_GETXATTR_OUT.size
        if len(value) > nbytes:
            raise posix(errno.ERANGE)
        return self._put(value)

    # -- the whole ---------------------------------------------------------------------------------------------

    def statfs(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        if not self._statfs:
            st = self.fs.statvfs()
            self._statfs = abi.FUSE_STATFS_OUT.pack(
                st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_bsize, st.f_namemax, st.f_frsize, 0
            )
        return self._put(self._statfs)

    def interrupt(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        """Requests are answered one after the other: the one that this is about has been."""
        return NO_REPLY

    def nothing(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        """Answered with success and no more."""
        return 0

    def ignored(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        """Not answered."""
        return NO_REPLY

    def writes(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        """Every request that would change the filesystem."""
        raise posix(errno.EROFS)

    def unknown(self, unique: int, nodeid: int, uid: int, body: memoryview) -> int:
        """What is not offered here; the kernel remembers, and does it by itself where it can."""
        raise posix(errno.ENOSYS)

    def _put(self, value: bytes | bytearray) -> int:
        count = len(value)
        if count > len(self._out):
            raise posix(errno.ERANGE)
        self._out[:count] = value
        return count


def _name(body: memoryview) -> bytes:
    """The one name, ended by NUL, that a body consists of."""
    name = bytes(body)
    end = name.find(b"\0")
    if end < 1 or end != len(name) - 1:
        raise posix(errno.EINVAL)
    return name[:end]


#: Requests by opcode; INIT and DESTROY are the session's own.
HANDLERS: dict[int, Handler] = {
    abi.FUSE_LOOKUP: Server.lookup,
    abi.FUSE_FORGET: Server.forget,
    abi.FUSE_BATCH_FORGET: Server.batch_forget,
    abi.FUSE_GETATTR: Server.getattr,
    abi.FUSE_STATX: Server.statx,
    abi.FUSE_ACCESS: Server.access,
    abi.FUSE_READLINK: Server.readlink,
    abi.FUSE_OPEN: Server.open,
    abi.FUSE_READ: Server.read,
    abi.FUSE_RELEASE: Server.release,
    abi.FUSE_LSEEK: Server.lseek,
    abi.FUSE_IOCTL: Server.ioctl,
    abi.FUSE_OPENDIR: Server.opendir,
    abi.FUSE_READDIR: Server.readdir,
    abi.FUSE_READDIRPLUS: Server.readdirplus,
    abi.FUSE_RELEASEDIR: Server.nothing,
    abi.FUSE_GETXATTR: Server.getxattr,
    abi.FUSE_LISTXATTR: Server.listxattr,
    abi.FUSE_STATFS: Server.statfs,
    abi.FUSE_INTERRUPT: Server.interrupt,
    abi.FUSE_NOTIFY_REPLY: Server.ignored,
    **dict.fromkeys(
        (
            abi.FUSE_SETATTR, abi.FUSE_SYMLINK, abi.FUSE_MKNOD, abi.FUSE_MKDIR, abi.FUSE_UNLINK, abi.FUSE_RMDIR,
            abi.FUSE_RENAME, abi.FUSE_RENAME2, abi.FUSE_LINK, abi.FUSE_WRITE, abi.FUSE_CREATE, abi.FUSE_TMPFILE,
            abi.FUSE_SETXATTR, abi.FUSE_REMOVEXATTR, abi.FUSE_FALLOCATE, abi.FUSE_COPY_FILE_RANGE,
            abi.FUSE_COPY_FILE_RANGE_64,
        ),
        Server.writes,
    ),
}  # fmt: skip
