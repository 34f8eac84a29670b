"""What a mount tells about itself, through attributes of its files that no listing shows.

    pocketxfs.memory    on the root: the live memory report, JSON
    pocketxfs.pid       on the root: the process that serves the mount
    pocketxfs.extents   on a file: one line for each extent, where FIEMAP (which FUSE does not hand on) would tell it:
                        offset, bytes, place on the device (- in a hole), state; where they are too many for one
                        attribute the last line is "more OFFSET", and pocketxfs.extents.OFFSET goes on from there

An attribute needs no socket and no path, works for whoever may use the mount, and goes away with it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from ..errors import Unsupported, posix
from .mounting import FSTYPE, mounted_at

if TYPE_CHECKING:
    from ..inode import Inode
    from .session import Session

MEMORY, PID, EXTENTS = "pocketxfs.memory", "pocketxfs.pid", "pocketxfs.extents"
#: The kernel's bound on an attribute's value.
XATTR_SIZE_MAX = 65536
#: For the line that says that there is more.
_MORE_ROOM = 32


class Live:
    """The serving side."""

    __slots__ = ("_memory", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._memory = b""

    def __call__(self, inode: Inode, name: bytes) -> bytes:
        """The value of an attribute; ENODATA for others."""
        fs = self._session.fs
        if inode.ino == fs.root_ino:
            if name == MEMORY.encode():
                from json import dumps

                return dumps(self._session.report(), separators=(",", ":")).encode()
            if name == PID.encode():
                return str(os.getpid()).encode()
        if inode.mode & 0o170000 == 0o100000:
            word, _, start = name.partition(b".extents")
            if word == b"pocketxfs" and (not start or (start[:1] == b"." and start[1:].isdigit())):
                return _extents(self._session, inode, int(start[1:] or 0))
        raise posix(errno.ENODATA, name)


def _extents(session: Session, inode: Inode, start: int) -> bytes:
    from ..inode.extents import extents_of

    text = bytearray()
    for offset, nbytes, place, state, shared, realtime in extents_of(session.fs.mount, inode):
        if offset + nbytes <= start:
            continue
        words = [state, *(["shared"] if shared else []), *(["realtime"] if realtime else [])]
        line = f"{offset} {nbytes} {'-' if place is None else place} {','.join(words)}\n".encode()
        if len(text) + len(line) > XATTR_SIZE_MAX - _MORE_ROOM:
            return bytes(text) + b"more %d\n" % offset
        text += line
    return bytes(text)


# -- the asking side -------------------------------------------------------------------------------------------


def is_mount(directory: str) -> bool:
    """Whether a pocketxfs mount is on a directory.  Asks the mount table, not the mount."""
    found = mounted_at(os.path.realpath(directory))
    return found is not None and found.fstype == FSTYPE


def report_of(directory: str) -> dict[str, Any]:
    """The live memory report of the mount on a directory.  Raises `Unsupported` where there is none, `OSError`."""
    if not is_mount(directory):
        raise Unsupported(f"{directory}: not a pocketxfs mount")
    from json import loads

    found: dict[str, Any] = loads(os.getxattr(directory, MEMORY))
    return found


def pid_of(directory: str) -> int | None:
    """The process that serves the mount, or None where it does not answer any more."""
    try:
        return int(os.getxattr(directory, PID))
    except (OSError, ValueError):
        return None
