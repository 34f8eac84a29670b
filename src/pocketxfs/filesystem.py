"""The library's face: `open` gives a `FileSystem` with calls shaped as those of `os`.

Names are bytes underneath; a `str` path gives `str` results (`os.fsdecode`), a `bytes` path gives `bytes`.  Errors are
`OSError` subclasses with errno, and `Corrupt`, `Unsupported`, `NoMemory`.  Everything streams but what returns a list
by its nature.  One thread at a time: give each thread a `FileSystem` of its own.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, overload

from . import inode as core
from .device import Device, open_device
from .errors import Corrupt, Error, Unsupported, posix
from .inode import Inode, Mapping, Mount
from .mounting import mount_image
from .namespace import attributes, directory, symlink

if TYPE_CHECKING:
    from .journal import LogState, Report
    from .path import Path

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
MAX_SYMLINKS = 40
NAME_MAX = 255
#: Directory entries remembered by (directory, name); two generations of so many.
DENTRIES = 512
DENTRY_CHARGE_BYTES = 192


class Extent(NamedTuple):
    """A run of a file as `xfs_bmap -v` lists it: bytes; `device_offset` is None in a hole."""

    file_offset: int
    nbytes: int
    device_offset: int | None
    state: str
    shared: bool
    realtime: bool


class DirEntry:
    """An entry of a directory, shaped as `os.DirEntry`; its inode is read when first asked for."""

    __slots__ = ("_directory", "_dtype", "_fs", "_ino", "_inode", "name")

    # Made by `FileSystem.scandir`, which sets the slots itself: a call of __init__ costs as much as a directory entry's
    # whole decoding.
    _fs: FileSystem
    _directory: Any
    name: Any
    _ino: int
    _dtype: int
    _inode: Inode | None

    @property
    def path(self) -> Any:
        """The path of the directory with the name joined to it."""
        return _joined(self._directory, self.name)

    def __fspath__(self) -> Any:
        return self.path

    def inode(self) -> int:
        """The inode number."""
        return self._ino

    def load(self) -> Inode:
        """The in-core inode, not followed."""
        inode = self._inode
        if inode is None:
            inode = self._inode = self._fs.mount.inodes.read(self._ino)
        return inode

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As `os.DirEntry.stat`."""
        if follow_symlinks and (self._dtype or self._type()) == 10:
            return self._fs.stat(self.path)
        if self._inode is not None:
            return self._inode.stat()
        return self._fs.mount.inodes.stat(self._ino)

    def _type(self) -> int:
        if self._dtype == 0:
            self._dtype = self.load().dtype
        return self._dtype

    def is_symlink(self) -> bool:
        """Whether the entry itself is a symbolic link."""
        return self._type() == 10

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory."""
        dtype = self._dtype
        if dtype == 8 or dtype == 4:
            return dtype == 4
        return self._is(4, follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file."""
        return self._is(8, follow_symlinks)

    def is_junction(self) -> bool:
        """Never: XFS has none."""
        return False

    def _is(self, dtype: int, follow: bool) -> bool:
        own = self._dtype or self._type()
        if own == 10 and follow:
            try:
                return self._fs.stat(self.path).st_mode >> 12 == dtype
            except FileNotFoundError:
                return False
        return own == dtype

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"


class Scan:
    """What `scandir` returns: an iterator and a context manager."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterator[DirEntry]) -> None:
        self._entries = entries

    def __iter__(self) -> Iterator[DirEntry]:
        return self._entries

    def __next__(self) -> DirEntry:
        return next(self._entries)

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and let go of the directory's blocks."""
        self._entries.close()  # type: ignore[attr-defined]


def _joined(base: Any, name: Any) -> Any:
    """The path of a name in a directory, both str or both bytes."""
    slash: Any = b"/" if isinstance(base, bytes) else "/"
    return base + name if base.endswith(slash) else base + slash + name


def _is_folder(entry: DirEntry) -> bool:
    """Whether a walk goes into it; what cannot be told is a file, as for `os.walk`."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _refuse_loop(ino: int, above: Any) -> None:
    """Raise `Corrupt` where a directory is one of those above it: nested pairs of (inode, what is above that)."""
    while above:
        if above[0] == ino:
            raise Corrupt("directory tree", f"directory inode {ino}", "place", "no loop", "below itself")
        above = above[1]


class FileSystem:
    """An open XFS filesystem.  A context manager; `close` gives its memory back."""

    def __init__(
        self, mount: Mount, log_state: LogState | None, norecovery: bool, recovered: Report | None = None
    ) -> None:
        self.mount = mount
        self.geo = mount.geo
        self.log_state = log_state
        self.norecovery = norecovery
        #: What replaying the log did and left, where it was dirty.
        self.recovered = recovered
        self.root_ino = mount.geo.root_ino
        self._young: dict[tuple[int, bytes], int] = {}
        self._old: dict[tuple[int, bytes], int] = {}
        self._closed = False

    # -- life --------------------------------------------------------------------------------------------------

    def __enter__(self) -> FileSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release every buffer, the machine's memory and the devices."""
        if self._closed:
            return
        self._closed = True
        mount = self.mount
        mount.inodes.drop_all()
        mount.cache.release_all()
        mount.machine.close()
        mount.device.close()
        if mount.rtdev is not None:
            mount.rtdev.close()

    # -- by inode: what the faces use --------------------------------------------------------------------------

    def inode(self, ino: int, gen: int | None = None) -> Inode:
        """The inode of a number from outside (a handle, a user): looked up in the inode B+tree first.

        Raises ESTALE where it is free, of another generation, or part of the metadata directory.
        """
        from .inode.lookup import is_allocated

        if not self.geo.ino_valid(ino) or not is_allocated(self.mount, ino):
            raise posix(errno.ESTALE, f"inode {ino}")
        found = self.mount.inodes.get(ino)
        if found.is_metadata or (gen is not None and found.gen != gen):
            raise posix(errno.ESTALE, f"inode {ino}")
        return found

    def trusted_inode(self, ino: int) -> Inode:
        """The inode of a number that the filesystem itself gave (a directory entry, the superblock)."""
        return self.mount.inodes.get(ino)

    def lookup(self, parent: Inode, name: bytes) -> int:
        """The inode number of a name in a directory.  ENOENT, ENOTDIR, ENAMETOOLONG."""
        if not parent.is_dir:
            raise posix(errno.ENOTDIR, name)
        key = (parent.ino, name)
        ino = self._young.get(key)
        if ino is None:
            ino = self._old.get(key)
            if ino is None:
                if len(name) > NAME_MAX:
                    raise posix(errno.ENAMETOOLONG, name)
                ino = directory.lookup(self.mount, parent, name)
            if len(self._young) >= DENTRIES:
                self._old, self._young = self._young, {}
            self._young[key] = ino
        return ino

    def readdir(self, parent: Inode, cookie: int = 0) -> Iterator[directory.DirItem]:
        """(name, inode, DT_*, cookie of what follows) from `cookie` on, "." and ".." too.  Streams."""
        if not parent.is_dir:
            raise posix(errno.ENOTDIR, f"inode {parent.ino}")
        return directory.readdir(self.mount, parent, cookie)

    def readlink_inode(self, inode: Inode) -> bytes:
        """The target of a symbolic link."""
        if inode.kind != core.incore.S_IFLNK:
            raise posix(errno.EINVAL, f"inode {inode.ino}")
        return symlink.readlink(self.mount, inode)

    def read_inode(self, inode: Inode, offset: int, view: memoryview) -> int:
        """Fill `view` with file data from `offset`; bytes read, short only at the end of the file."""
        self._need_file(inode)
        return core.read_into(self.mount, inode, offset, view)

    def read_inode_bytes(self, inode: Inode, offset: int = 0, nbytes: int | None = None) -> bytes:
        """File data as one object."""
        self._need_file(inode)
        return core.read_bytes(self.mount, inode, offset, nbytes)

    def map(self, inode: Inode, offset: int, nbytes: int) -> Iterator[Mapping]:
        """What a byte range of a file consists of, clipped to its size."""
        self._need_file(inode)
        return core.mappings(self.mount, inode, offset, min(offset + nbytes, inode.size))

    def copy_to_fd(self, inode: Inode, out_fd: int) -> int:
        """Write a whole file to an empty regular file, holes kept; the kernel moves the data.  Bytes moved."""
        self._need_file(inode)
        return core.copy_to_fd(self.mount, inode, out_fd)

    def xattrs(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """(full name, bytes of the value) of each attribute."""
        return attributes.list_names(self.mount, inode)

    def xattr(self, inode: Inode, name: bytes) -> bytes:
        """One attribute's value; ENODATA."""
        return attributes.get(self.mount, inode, name)

    def _need_file(self, inode: Inode) -> None:
        kind = inode.kind
        if kind == core.incore.S_IFDIR:
            raise posix(errno.EISDIR, f"inode {inode.ino}")
        if kind != core.incore.S_IFREG:
            raise posix(errno.EINVAL, f"inode {inode.ino}")

    # -- paths -------------------------------------------------------------------------------------------------

    def resolve(self, path: AnyPath, *, follow_symlinks: bool = True) -> Inode:
        """The inode that a path leads to, from the root; symbolic links stay inside the image."""
        if isinstance(path, DirEntry) and path._fs is self and path._type() != 10:
            return path.load()
        return self._walk(path, follow_symlinks)[0]

    def _walk(self, path: AnyPath, follow: bool) -> tuple[Inode, list[tuple[int, bytes]]]:
        """(inode, trail of (inode, name) below the root) of a path."""
        raw = os.fsencode(path)
        if b"\0" in raw:
            raise ValueError("embedded null byte")
        if not raw:
            raise posix(errno.ENOENT, raw)
        inodes = self.mount.inodes
        todo = [part for part in raw.split(b"/") if part]
        todo.reverse()
        trailing = raw.endswith(b"/")
        trail: list[tuple[int, bytes]] = []
        here = inodes.get(self.root_ino)
        links = 0
        while todo:
            name = todo.pop()
            if not here.is_dir:
                raise posix(errno.ENOTDIR, raw)
            if name == b".":
                continue
            if name == b"..":
                if trail:
                    trail.pop()
                here = inodes.get(trail[-1][0] if trail else self.root_ino)
                continue
            try:
                ino = self.lookup(here, name)
            except FileNotFoundError:
                raise posix(errno.ENOENT, raw) from None
            child = inodes.get(ino)
            if child.kind == core.incore.S_IFLNK and (todo or follow or trailing):
                links += 1
                if links > MAX_SYMLINKS:
                    raise posix(errno.ELOOP, raw)
                target = symlink.readlink(self.mount, child)
                todo.extend(part for part in reversed(target.split(b"/")) if part)
                if target.startswith(b"/"):
                    trail.clear()
                    here = inodes.get(self.root_ino)
                continue
            trail.append((ino, name))
            here = child
        if trailing and not here.is_dir:
            raise posix(errno.ENOTDIR, raw)
        return here, trail

    def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> os.stat_result:
        """As `os.stat`; `st_dev` is 0."""
        return self.resolve(path, follow_symlinks=follow_symlinks).stat()

    def lstat(self, path: AnyPath) -> os.stat_result:
        """As `os.lstat`."""
        return self.resolve(path, follow_symlinks=False).stat()

    def exists(self, path: AnyPath) -> bool:
        """As `os.path.exists`."""
        return self._test(path, True, None)

    def lexists(self, path: AnyPath) -> bool:
        """As `os.path.lexists`."""
        return self._test(path, False, None)

    def isdir(self, path: AnyPath) -> bool:
        """As `os.path.isdir`."""
        return self._test(path, True, core.incore.S_IFDIR)

    def isfile(self, path: AnyPath) -> bool:
        """As `os.path.isfile`."""
        return self._test(path, True, core.incore.S_IFREG)

    def islink(self, path: AnyPath) -> bool:
        """As `os.path.islink`."""
        return self._test(path, False, core.incore.S_IFLNK)

    def ismount(self, path: AnyPath) -> bool:
        """Whether a path is the filesystem's root."""
        return self.exists(path) and self.resolve(path).ino == self.root_ino

    def getsize(self, path: AnyPath) -> int:
        """As `os.path.getsize`."""
        return self.resolve(path).size

    def samefile(self, one: AnyPath, other: AnyPath) -> bool:
        """As `os.path.samefile`."""
        return self.resolve(one).ino == self.resolve(other).ino

    def _test(self, path: AnyPath, follow: bool, kind: int | None) -> bool:
        try:
            inode = self.resolve(path, follow_symlinks=follow)
        except Error:
            raise
        except (OSError, ValueError):
            return False
        return kind is None or inode.kind == kind

    def realpath(self, path: AnyPath) -> Any:
        """The path with every symbolic link followed, as `os.path.realpath(strict=True)`."""
        trail = self._walk(path, True)[1]
        raw = b"/" + b"/".join(name for _, name in trail)
        return raw if isinstance(os.fspath(path), bytes) else os.fsdecode(raw)

    def readlink(self, path: AnyPath) -> Any:
        """As `os.readlink`."""
        target = self.readlink_inode(self.resolve(path, follow_symlinks=False))
        return target if isinstance(os.fspath(path), bytes) else os.fsdecode(target)

    # -- directories -------------------------------------------------------------------------------------------

    def scandir(self, path: AnyPath = "/") -> Scan:
        """The entries of a directory but "." and "..", in the disk's order; streams in bounded memory."""
        parent = self.resolve(path)
        if not parent.is_dir:
            raise posix(errno.ENOTDIR, os.fsencode(path))
        return Scan(self._entries(parent, os.fspath(path)))

    def _entries(self, parent: Inode, base: str | bytes) -> Iterator[DirEntry]:
        raw = isinstance(base, bytes)
        new = object.__new__
        for batch in directory.batches(self.mount, parent):
            for name, ino, dtype, _ in batch:
                if name[0] == 46 and (name == b"." or name == b".."):
                    continue
                entry = new(DirEntry)
                entry._fs = self
                entry._directory = base
                entry.name = name if raw else name.decode(_ENCODING, _ERRORS)
                entry._ino = ino
                entry._dtype = dtype
                entry._inode = None
                yield entry

    def listdir(self, path: AnyPath = "/") -> list[Any]:
        """As `os.listdir`: a list, as long as the directory."""
        return [entry.name for entry in self.scandir(path)]

    def walk(
        self,
        top: AnyPath = "/",
        topdown: bool = True,
        onerror: Callable[[OSError], None] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        """As `os.walk`: lists of one directory's names at a time.

        A directory that lies below itself is an error (`Corrupt`, to `onerror`) unless links are followed.
        """
        # what is left to do, last first: a directory with those above it, or one that is ready to be given
        left: list[Any] = [(os.fspath(top), ())]
        while left:
            item = left.pop()
            if len(item) == 3:
                yield item
                continue
            base, above = item
            folders: list[Any] = []
            files: list[Any] = []
            below = above
            try:
                parent = self.resolve(base)
                if not followlinks:
                    below = (parent.ino, above)
                    _refuse_loop(parent.ino, above)
                for entry in self.scandir(base):
                    (folders if _is_folder(entry) else files).append(entry.name)
            except OSError as error:
                if onerror is not None:
                    onerror(error)
                if not folders and not files:
                    continue
            if topdown:
                yield base, folders, files
            else:
                left.append((base, folders, files))
            for name in reversed(folders):
                path = _joined(base, name)
                if followlinks or not self._is_link(path):
                    left.append((path, below))

    def _is_link(self, path: Any) -> bool:
        try:
            return self.islink(path)
        except OSError:
            return False

    # -- files -------------------------------------------------------------------------------------------------

    @overload
    def open(self, path: AnyPath, mode: Literal["rb", "br"], buffering: int = -1) -> BinaryIO: ...

    @overload
    def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any: ...

    def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """As the built-in `open`, for reading; a writing mode raises EROFS."""
        if not mode or set(mode) - set("rwxabt+") or ("b" in mode and "t" in mode):
            raise ValueError(f"invalid mode: {mode!r}")
        if set(mode) & set("wxa+"):
            raise posix(errno.EROFS, os.fsencode(path))
        inode = self.resolve(path)
        if inode.kind == core.incore.S_IFDIR:
            raise posix(errno.EISDIR, os.fsencode(path))
        if inode.kind != core.incore.S_IFREG:
            raise posix(errno.ENXIO, os.fsencode(path))
        from .fileio import open_inode

        return open_inode(self.mount, inode, os.fsdecode(path), mode, buffering, encoding, errors, newline)

    def read_bytes(self, path: AnyPath) -> bytes:
        """A whole file.  Quickest for an entry of `scandir`."""
        if type(path) is DirEntry and path._dtype == 8 and path._inode is None and path._fs is self:
            found = self.mount.inodes.simple_file(path._ino)
            if found is not None:
                return self.mount.device.pread(found[1], found[0])
        return self.read_inode_bytes(self.resolve(path))

    def extents(self, path: AnyPath, *, attr_fork: bool = False) -> list[Extent]:
        """The extents of a file, holes included up to its size, as `xfs_bmap -v` counts them."""
        from .inode.extents import extents_of

        return [Extent(*fields) for fields in extents_of(self.mount, self.resolve(path), attr_fork)]

    def seek_data(self, path: AnyPath, offset: int) -> int:
        """The first byte of data at or after `offset`; ENXIO where there is none."""
        inode = self.resolve(path)
        self._need_file(inode)
        return core.seek(self.mount, inode, offset, True)

    def seek_hole(self, path: AnyPath, offset: int) -> int:
        """The first byte of a hole (or of an unwritten extent) at or after `offset`; the end of the file is one."""
        inode = self.resolve(path)
        self._need_file(inode)
        return core.seek(self.mount, inode, offset, False)

    # -- attributes --------------------------------------------------------------------------------------------

    def listxattr(self, path: AnyPath, *, follow_symlinks: bool = True) -> list[str]:
        """As `os.listxattr` gives it to root."""
        inode = self.resolve(path, follow_symlinks=follow_symlinks)
        return [os.fsdecode(name) for name, _ in attributes.list_names(self.mount, inode)]

    def getxattr(self, path: AnyPath, name: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        """As `os.getxattr`."""
        inode = self.resolve(path, follow_symlinks=follow_symlinks)
        return attributes.get(self.mount, inode, os.fsencode(name))

    def parents(self, inode: Inode | int) -> list[tuple[int, bytes]]:
        """(directory inode, name in it) of each of an inode's names, from its parent pointers.

        Raises `Unsupported` where the filesystem does not keep them.
        """
        if not self.geo.has_parent:
            raise Unsupported("this filesystem has no parent pointers")
        found = self.inode(inode) if isinstance(inode, int) else inode
        return [(ino, name) for ino, _gen, name in attributes.parents(self.mount, found)]

    # -- the whole ---------------------------------------------------------------------------------------------

    def statvfs(self, _path: AnyPath = "/") -> os.statvfs_result:
        """As `os.statvfs` on a read-only Linux mount."""
        from .report import statvfs

        return statvfs(self.mount)

    def info(self) -> dict[str, Any]:
        """Geometry, features and log, JSON-able."""
        from .report import info

        return info(self)

    def memory_report(self) -> dict[str, Any]:
        """What has been used so far: arena, buddy lists, buffers by kind, device calls.  JSON-able."""
        from .report import memory_report

        return memory_report(self)

    def path(self, path: AnyPath = "/") -> Path:
        """A path object with pathlib's shape."""
        from .path import Path

        return Path(self, path)


def open(
    image: AnyPath | BinaryIO,
    mode: str = "r",
    memory: str | int = "16M",
    buffers: str = "contiguous",
    partition: int | None = None,
    rtdev: AnyPath | BinaryIO | None = None,
    logdev: AnyPath | BinaryIO | None = None,
    norecovery: bool = False,
    *,
    offset: int | None = None,
    machine: str = "host",
    force: bool = False,
) -> FileSystem:
    """Open the XFS filesystem in a file, block device, disk image or seekable binary file object.

    `memory` is the machine's whole RAM; `machine` names its profile (`memory.PROFILES`); `buffers` the backing;
    `norecovery` reads past a dirty log; `force` past NEEDSREPAIR.  Raises `NotXfs`, `Unsupported`, `Corrupt`,
    `NoMemory`, `OSError`.
    """
    if mode != "r":
        raise Unsupported(f"mode {mode!r}: this version reads only (mode 'r')")
    mounted, log_state, recovered = mount_image(
        image, memory, buffers, partition, offset, rtdev, logdev, norecovery, machine, force
    )
    return FileSystem(mounted, log_state, norecovery, recovered)


__all__ = ["AnyPath", "Corrupt", "Device", "DirEntry", "Extent", "FileSystem", "Scan", "open", "open_device"]
