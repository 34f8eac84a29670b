"""Copying out of an image into a directory of the host.

Everything is created relative to an open directory (`dir_fd`), exclusively and without following symbolic links, so
that neither a name nor a link from the image, nor one that was in the destination before, leads anywhere else.  Few
directories of the destination are open at a time; the others are found again through "..", and recognised.
File data is moved by the kernel from the image to the file where it can.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ...errors import Error, posix
from . import attributes
from .links import Links
from .walk import ENTRY, Walk

if TYPE_CHECKING:
    from ...filesystem import FileSystem
    from ...inode import Inode
    from ..run import Run

_IFMT, _DIR, _REG, _LNK = 0o170000, 0o040000, 0o100000, 0o120000
_CHR, _BLK = 0o020000, 0o060000
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_TRUNCATE = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_SEARCH_DIR = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
#: Directories of the destination that are open at once.
MOST_OPEN = 32
#: No file after this one will fare better.
_FATAL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))
#: A second name that cannot be a link becomes a copy.
_NO_LINK = frozenset(
    (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOENT, errno.EOPNOTSUPP, errno.ENOTDIR, errno.ELOOP)
)
#: What became of a file that was in the way.
_STAYS, _GONE, _OVER = 0, 1, 2
_NOT_KEPT = frozenset((errno.EOPNOTSUPP, errno.ENOSYS))


def unsafe(name: bytes) -> bool:
    """Whether a name from an image must not be used as one."""
    return not name or b"/" in name or b"\0" in name or name in (b".", b"..")


class _Level:
    """A directory of the destination on the way down."""

    __slots__ = ("created", "fd", "identity")

    def __init__(self, fd: int, created: bool) -> None:
        self.fd, self.created = fd, created
        self.identity: tuple[int, int] | None = None


class Copier:
    """Copies into one directory of the host, given as the open `base`.  A context manager (it sets the umask)."""

    def __init__(
        self, run: Run, base: int, shown: bytes, *, recursive: bool, preserve: bool, no_clobber: bool, verbose: bool
    ) -> None:
        self.run, self.base, self.shown = run, base, shown
        self.recursive, self.preserve = recursive, preserve
        self.no_clobber, self.verbose = no_clobber, verbose
        self.links = Links()
        self.progress = run.progress("cp")
        self.uid, self.gid = os.geteuid(), os.getegid()
        self.root = self.uid == 0
        self._groups = frozenset() if self.root else frozenset(os.getgroups())
        # where the destination hands its group or its ACL down, every file must be told again what it is
        self._inherits = bool(os.fstat(base).st_mode & 0o2000) or _has_default_acl(base)
        self._protected: set[tuple[int, int]] = set()
        self._too_large: list[bytes] = []
        self._noted: set[str] = set()
        self._umask = 0
        self.files = self.folders = self.linked = self.nbytes = 0

    def __enter__(self) -> Copier:
        self._umask = os.umask(0)
        return self

    def __exit__(self, *_: object) -> None:
        os.umask(self._umask)
        self.links.close()

    def protect(self, path: str) -> None:
        """Never write over this file of the host: it is being read from."""
        status = os.stat(path)
        self._protected.add((status.st_dev, status.st_ino))

    # -- what is copied ----------------------------------------------------------------------------------------

    def single(self, fs: FileSystem, inode: Inode, source: bytes, leaf: bytes) -> None:
        """Something that is no directory, as `leaf` in the base."""
        try:
            self._copy(fs, inode, self.base, leaf, leaf, source)
            self._tell_too_large()
        except OSError as error:
            self._failed(source, error)

    def tree(self, fs: FileSystem, top: Inode, source: bytes, leaf: bytes | None) -> None:
        """A directory as `leaf` in the base, or what is in it straight into the base (`leaf` None)."""
        levels = [_Level(os.dup(self.base), False)]
        try:
            if leaf is not None:
                levels.append(self._make_folder(top, levels[0].fd, leaf))
            self._descend(fs, top, source, leaf, levels)
        except OSError as error:
            self._failed(source, error)
        finally:
            for level in levels:
                if level.fd >= 0:
                    os.close(level.fd)

    def _descend(self, fs: FileSystem, top: Inode, source: bytes, leaf: bytes | None, levels: list[_Level]) -> None:
        prefix = source if source.endswith(b"/") else source + b"/"
        start = len(prefix)
        below = leaf + b"/" if leaf is not None else b""
        read, tick, copy = fs.trusted_inode, self.progress.tick, self._copy
        self.progress.expect(fs, top)
        walk = Walk(fs, top.ino, prefix, self.run.fail)
        self.folders += 1
        for event, name, ino, _ in walk:
            if event != ENTRY:
                self._left(fs, ino, walk.prefix, levels, leaf is not None or walk.depth > 1)
                continue
            tick()
            try:
                if b"/" in name or b"\0" in name or not name:
                    raise posix(errno.EINVAL, name)
                inode = read(ino)
                if inode.mode & _IFMT == _DIR:
                    walk.check(ino)
                    levels.append(self._make_folder(inode, levels[-1].fd, name))
                    self._close_far(levels)
                    walk.descend(name, ino)
                    self.folders += 1
                else:
                    path = walk.prefix + name
                    copy(fs, inode, levels[-1].fd, name, below + path[start:], path)
                    if self._too_large:
                        self._tell_too_large()
            except OSError as error:
                self._failed(walk.prefix + name, error)

    def _failed(self, source: bytes, error: OSError) -> None:
        """Tell, and go on, unless the destination cannot take any more."""
        if not isinstance(error, Error) and error.errno in _FATAL:
            raise error
        self.run.fail(source, error)

    # -- directories -------------------------------------------------------------------------------------------

    def _make_folder(self, inode: Inode, parent: int, name: bytes) -> _Level:
        if unsafe(name):
            raise posix(errno.EINVAL, name)
        created = True
        try:
            os.mkdir(name, 0o700 if self.preserve else inode.mode & 0o1777 & ~self._umask | 0o700, dir_fd=parent)
        except FileExistsError:
            created = False
        try:
            return _Level(os.open(name, _OPEN_DIR, dir_fd=parent), created)
        except OSError as error:
            if not created and error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise OSError(errno.EEXIST, "the destination has something there that is no directory") from None
            raise

    def _close_far(self, levels: list[_Level]) -> None:
        """Keep the deepest directories open only."""
        far = len(levels) - 1 - MOST_OPEN
        if far > 0 and levels[far].fd >= 0:
            level = levels[far]
            status = os.fstat(level.fd)
            level.identity = (status.st_dev, status.st_ino)
            os.close(level.fd)
            level.fd = -1

    def _left(self, fs: FileSystem, ino: int, source: bytes, levels: list[_Level], own: bool) -> None:
        """A directory is complete: give it its own mode and times, and go back to the one above (if it is `own`)."""
        level = levels[-1]
        if own:
            self._reopen(levels[-2], level.fd)
            levels.pop()
        try:
            if self.preserve:
                self._attributes(fs, fs.trusted_inode(ino), level.fd, 0o700 if level.created else -1)
                self._tell_too_large()
            elif level.created:
                mode = fs.trusted_inode(ino).mode & 0o1777 & ~self._umask
                if mode & 0o700 != 0o700:
                    os.fchmod(level.fd, mode)
        except OSError as error:
            self._failed(source[:-1] or b"/", error)
        finally:
            if own:
                os.close(level.fd)

    @staticmethod
    def _reopen(above: _Level, below: int) -> None:
        """Open a directory again that was closed on the way down."""
        if above.fd >= 0:
            return
        above.fd = os.open("..", _OPEN_DIR, dir_fd=below)
        status = os.fstat(above.fd)
        if (status.st_dev, status.st_ino) != above.identity:
            raise OSError(errno.ESTALE, "the destination was moved about while it was written")

    # -- everything else ---------------------------------------------------------------------------------------

    def _copy(self, fs: FileSystem, inode: Inode, folder: int, name: bytes, target: bytes, source: bytes) -> None:
        """One file of any kind but a directory; `target` is its path from the base."""
        if inode.nlink > 1 and (self.recursive or self.preserve):
            first = self.links.meet(inode.ino, inode.nlink, target)
            if first is not None and self._link(first, folder, name):
                self.linked += 1
                self.run.done += 1
                return
            if first is not None:
                self.links.replace(inode.ino, target)
        kind = inode.mode & _IFMT
        made = False
        try:
            if kind == _REG:
                made = self._regular(fs, inode, folder, name)
            elif kind == _LNK:
                made = self._symlink(fs, inode, folder, name)
            else:
                made = self._special(fs, inode, folder, name)
        finally:
            if not made and inode.nlink > 1:
                self.links.forget(inode.ino)
        if made:
            self.files += 1
            self.run.done += 1
            if self.verbose:
                self._tell(source, target)

    def _tell(self, source: bytes, target: bytes) -> None:
        run = self.run
        if not run.args.json:
            run.out.write(b"'" + run.name(source) + b"' -> '" + run.name(self.shown + b"/" + target) + b"'\n")

    def _regular(self, fs: FileSystem, inode: Inode, folder: int, name: bytes) -> bool:
        mode = inode.mode & 0o7777
        if not self.preserve:
            mode &= 0o777 & ~self._umask
        elif self.root:
            if inode.uid != self.uid or inode.gid != self.gid:
                mode &= 0o700
        else:
            mode |= 0o200
        created = True
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=folder)
        except FileExistsError:
            room = self._make_room(folder, name, truncate=not self.preserve)
            if room == _STAYS:
                return False
            created = room == _GONE
            fd = os.open(name, _CREATE if created else _TRUNCATE, mode, dir_fd=folder)
        complete = False
        try:
            if inode.size:
                self.nbytes += fs.copy_to_fd(inode, fd)
            if self.preserve:
                self._attributes(fs, inode, fd, mode)
            complete = True
        finally:
            os.close(fd)
            if not complete and created:
                os.unlink(name, dir_fd=folder)
        return True

    def _symlink(self, fs: FileSystem, inode: Inode, folder: int, name: bytes) -> bool:
        target = fs.readlink_inode(inode)
        try:
            os.symlink(target, name, dir_fd=folder)
        except FileExistsError:
            if self._make_room(folder, name) == _STAYS:
                return False
            os.symlink(target, name, dir_fd=folder)
        if self.preserve:
            self._attributes_by_name(fs, inode, folder, name)
        return True

    def _special(self, fs: FileSystem, inode: Inode, folder: int, name: bytes) -> bool:
        kind = inode.mode & _IFMT
        mode = inode.mode & 0o7777 if self.preserve else inode.mode & 0o777 & ~self._umask
        rdev = inode.rdev if kind in (_CHR, _BLK) else 0
        try:
            os.mknod(name, kind | mode, rdev, dir_fd=folder)
        except FileExistsError:
            if self._make_room(folder, name) == _STAYS:
                return False
            os.mknod(name, kind | mode, rdev, dir_fd=folder)
        if self.preserve:
            self._attributes_by_name(fs, inode, folder, name)
        return True

    def _link(self, first: bytes, folder: int, name: bytes) -> bool:
        """Make `name` another name of a file copied before; False where it has to be copied instead."""
        parts = first.split(b"/")
        at = os.dup(self.base)
        try:
            for part in parts[:-1]:
                next_at = os.open(part, _SEARCH_DIR, dir_fd=at)
                os.close(at)
                at = next_at
            if os.stat(parts[-1], dir_fd=at, follow_symlinks=False).st_mode & _IFMT == _DIR:
                return False
            try:
                os.link(parts[-1], name, src_dir_fd=at, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                if self._make_room(folder, name) == _STAYS:
                    return True
                os.link(parts[-1], name, src_dir_fd=at, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        finally:
            os.close(at)
        return True

    # -- what was there before ---------------------------------------------------------------------------------

    def _make_room(self, folder: int, name: bytes, *, truncate: bool = False) -> int:
        """Take away what stands where a file shall be (`_GONE`); `_STAYS` where it shall not be touched (-n).

        With `truncate` a regular file of one name is left there, to be written over as cp(1) does (`_OVER`).
        """
        if self.no_clobber:
            return _STAYS
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if status.st_mode & _IFMT == _DIR:
            raise OSError(errno.EISDIR, "the destination has a directory there")
        if (status.st_dev, status.st_ino) in self._protected:
            raise OSError(errno.EBUSY, "the destination has the image itself there")
        if truncate and status.st_mode & _IFMT == _REG and status.st_nlink == 1:
            return _OVER
        os.unlink(name, dir_fd=folder)
        return _GONE

    # -- attributes --------------------------------------------------------------------------------------------

    def _attributes(self, fs: FileSystem, inode: Inode, fd: int, mode_now: int) -> None:
        """Owner, attributes, mode and times of an open file, in the order in which they do not undo each other.

        `mode_now` is the mode that it has, -1 where it is not known.
        """
        mode = inode.mode & 0o7777
        if self.root:
            if inode.uid != self.uid or inode.gid != self.gid or self._inherits or mode_now < 0:
                os.fchown(fd, inode.uid, inode.gid)
                mode_now = -1
        else:
            mode = self._without_owner(inode, mode)
            if inode.gid != self.gid and inode.gid in self._groups:
                os.fchown(fd, -1, inode.gid)
                mode_now = -1
        acls: list[tuple[bytes, bytes]] = []
        for name, value in attributes.of(fs, inode):
            if name in (attributes.ACL_ACCESS, attributes.ACL_DEFAULT):
                acls.append((name, value))
            else:
                self._set(fd, name, value)
        if self._inherits:
            for name in (attributes.ACL_ACCESS, attributes.ACL_DEFAULT):
                _remove_attribute(fd, name)
        if mode != mode_now or self._inherits or mode & 0o6000:
            os.fchmod(fd, mode)
        for name, value in acls:
            self._set(fd, name, value)
        os.utime(fd, ns=(inode.atime_ns, inode.mtime_ns))

    def _attributes_by_name(self, fs: FileSystem, inode: Inode, folder: int, name: bytes) -> None:
        """The same for what cannot be opened: a symbolic link, a device, a fifo, a socket."""
        if self.root and (inode.uid != self.uid or inode.gid != self.gid or self._inherits):
            os.chown(name, inode.uid, inode.gid, dir_fd=folder, follow_symlinks=False)
        path = b"/proc/self/fd/%d/%s" % (folder, name)
        for attribute, value in attributes.of(fs, inode):
            self._set(path, attribute, value)
        os.utime(name, ns=(inode.atime_ns, inode.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def _tell_too_large(self) -> None:
        """Fail the entry, copied otherwise, for the attributes that did not fit."""
        if self._too_large:
            lost, self._too_large = self._too_large, []
            first = os.fsdecode(lost[0])
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise OSError(errno.E2BIG, f"copied, but the destination has no room for attribute {first}{more}")

    def _without_owner(self, inode: Inode, mode: int) -> int:
        """A file that cannot be given to its owner must not act in his name, nor in his group's."""
        if inode.uid != self.uid:
            mode &= ~0o4000
        if inode.gid != self.gid and inode.gid not in self._groups:
            mode &= ~0o2000
        return mode

    def _set(self, where: int | bytes, name: bytes, value: bytes) -> None:
        """One attribute; what the destination does not keep at all is said once, what only root may set is not."""
        try:
            if isinstance(where, int):
                os.setxattr(where, name, value)
            else:
                os.setxattr(where, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NOT_KEPT:
                space = name.partition(b".")[0].decode("ascii", "replace")
                if space not in self._noted:
                    self._noted.add(space)
                    self.run.note(self.shown, f"does not keep {space} attributes; they are left out")
            elif error.errno in (errno.ENOSPC, errno.E2BIG):
                # ext4 says ENOSPC for a value that no inode of it could hold: that is no full disk
                self._too_large.append(name)
            elif self.root or error.errno not in (errno.EPERM, errno.EACCES):
                raise


def _has_default_acl(fd: int) -> bool:
    try:
        return bool(os.getxattr(fd, attributes.ACL_DEFAULT))
    except (OSError, AttributeError):
        return False


def _remove_attribute(fd: int, name: bytes) -> None:
    try:
        os.removexattr(fd, name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM):
            raise
