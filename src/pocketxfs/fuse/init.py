"""INIT: which of the kernel's offers are taken.  Pure; docs/mount.md gives the reason for each flag."""

from __future__ import annotations

import errno
from typing import NamedTuple

from . import abi

#: Taken wherever the kernel offers them.
WANTED = (
    abi.FUSE_ASYNC_READ
    | abi.FUSE_EXPORT_SUPPORT
    | abi.FUSE_HAS_IOCTL_DIR
    | abi.FUSE_DO_READDIRPLUS
    | abi.FUSE_READDIRPLUS_AUTO
    | abi.FUSE_ASYNC_DIO
    | abi.FUSE_NO_OPEN_SUPPORT
    | abi.FUSE_PARALLEL_DIROPS
    | abi.FUSE_ABORT_ERROR
    | abi.FUSE_MAX_PAGES
    | abi.FUSE_CACHE_SYMLINKS
    | abi.FUSE_NO_OPENDIR_SUPPORT
    | abi.FUSE_EXPLICIT_INVAL_DATA
    | abi.FUSE_INIT_EXT
)
#: Taken too where the kernel checks permissions (default_permissions); the flag would switch that on by itself.
WITH_PERMISSIONS = abi.FUSE_POSIX_ACL

MAX_BACKGROUND = 64
CONGESTION_THRESHOLD = 48
#: The kernel's own bound on max_pages where its administrator has set none.
MOST_PAGES = 256


class ProtocolError(Exception):
    """The kernel's protocol cannot be spoken; `errno` is what INIT is answered with."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.errno = errno.EPROTO


class Negotiated(NamedTuple):
    """What INIT came to.  `again`: the kernel speaks a newer major version and will send another INIT."""

    reply: bytes
    minor: int
    flags: int
    max_pages: int
    again: bool


def negotiate(
    body: memoryview | bytes, max_read_bytes: int, max_write_bytes: int, permissions: bool, page_bytes: int = 4096
) -> Negotiated:
    """Answer an INIT request's body.  Raises `ProtocolError`, or `ValueError` where the body is too short."""
    if len(body) < 8:
        raise ValueError("an INIT of less than eight bytes")
    major, minor = abi.FUSE_INIT_OUT_SHORT.unpack_from(body)
    if major > abi.FUSE_KERNEL_VERSION:
        reply = abi.FUSE_INIT_OUT_SHORT.pack(abi.FUSE_KERNEL_VERSION, abi.FUSE_KERNEL_MINOR_VERSION)
        return Negotiated(reply, 0, 0, 0, True)
    if major < abi.FUSE_KERNEL_VERSION or minor < abi.FUSE_OLDEST_MINOR_VERSION:
        raise ProtocolError(
            f"the kernel speaks FUSE {major}.{minor}; {abi.FUSE_KERNEL_VERSION}.{abi.FUSE_OLDEST_MINOR_VERSION} "
            "(Linux 5.4) or later is needed"
        )
    if len(body) < abi.FUSE_INIT_IN.size:
        raise ValueError("an INIT body that is cut short")
    _, _, max_readahead, flags = abi.FUSE_INIT_IN.unpack_from(body)
    if flags & abi.FUSE_INIT_EXT and len(body) >= abi.FUSE_INIT_IN_EXT.size:
        flags |= abi.FUSE_INIT_IN_EXT.unpack_from(body)[4] << 32
    wanted = WANTED | (WITH_PERMISSIONS if permissions else 0)
    taken = flags & wanted
    max_pages = max(1, min(MOST_PAGES, max_read_bytes // page_bytes)) if taken & abi.FUSE_MAX_PAGES else 0
    reply = abi.FUSE_INIT_OUT.pack(
        abi.FUSE_KERNEL_VERSION,
        abi.FUSE_KERNEL_MINOR_VERSION,
        max_readahead,
        taken & 0xFFFFFFFF,
        MAX_BACKGROUND,
        CONGESTION_THRESHOLD,
        max_write_bytes,
        1,
        max_pages,
        0,
        taken >> 32,
        0,
        0,
    )
    return Negotiated(reply, min(minor, abi.FUSE_KERNEL_MINOR_VERSION), taken, max_pages, False)
