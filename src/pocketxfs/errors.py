"""Every error that pocketxfs raises on its own account.

One root, `Error`, an `OSError`, so that a POSIX caller can always look at `errno`; a few branches, each with its
errno and its exit code for the command line.  Ordinary POSIX outcomes (no such file, not a directory, a name too
long) are the built-in `OSError` subclasses, made by `posix()`.
"""

from __future__ import annotations

import errno as _errno
import os

#: Linux's "Structure needs cleaning"; other systems have no such number and get Linux's.
EUCLEAN: int = getattr(_errno, "EUCLEAN", 117)
#: The attribute asked for is not there (ENOATTR elsewhere).
ENODATA: int = getattr(_errno, "ENODATA", 61)


class Error(OSError):
    """Root of the errors that are pocketxfs's own.  `exit_code` is what the command line returns for it."""

    default_errno: int = _errno.EIO
    exit_code: int = 1

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(self.default_errno if errno is None else errno, message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Corrupt(Error):
    """What the disk says cannot be true.

    `structure` (AGF, bmbt block, ...), `where` (AG, block, inode in words), `field`, `expected`, `found`.
    """

    default_errno = EUCLEAN
    exit_code = 3

    def __init__(self, structure: str, where: str, field: str, expected: object = None, found: object = None) -> None:
        text = f"{structure} at {where}: bad {field}"
        if expected is not None or found is not None:
            text += f": expected {_show(expected)}, found {_show(found)}"
        super().__init__(text)
        self.structure, self.where, self.field = structure, where, field
        self.expected, self.found = expected, found


class Unsupported(Error):
    """A valid filesystem, or a request, that this version refuses by name."""

    default_errno = _errno.EOPNOTSUPP
    exit_code = 4


class NoMemory(Error):
    """The machine's memory (see `memory/`) is used up and nothing more can be reclaimed.  Nothing was changed."""

    default_errno = _errno.ENOMEM
    exit_code = 5


class NoAddresses(NoMemory):
    """Memory there is, but no room in the vmalloc area to map it (see `memory/vmalloc`), also after a purge."""


class ReclaimDeadlock(NoMemory):
    """Reclaim would have re-entered the filesystem from the middle of its own work (see `memory/context`)."""

    default_errno = getattr(_errno, "EDEADLK", 35)


class DeviceError(Error):
    """The device did not give the bytes that were asked of it: an I/O error, or an image cut short."""

    default_errno = _errno.EIO
    exit_code = 1


class NotXfs(Error):
    """There is no XFS filesystem where one was looked for."""

    default_errno = _errno.EINVAL
    exit_code = 4


def posix(number: int, name: str | bytes | None = None) -> OSError:
    """The built-in `OSError` subclass for an errno, with the path that it is about."""
    if name is None:
        return OSError(number, os.strerror(number))
    return OSError(number, os.strerror(number), os.fsdecode(name))


def _show(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 9:
        return f"{value:#x}" if value > 0xFFFF else str(value)
    return str(value)
