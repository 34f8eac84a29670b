"""Calls that Python's library lacks: fallocate modes, reflink, file flags, FIEMAP, statx, raw directory reading.

Standard library only: `populate` and `manifest` run it on the machine and inside user-mode Linux.  Sources: the
kernel's uapi headers (falloc.h, fs.h, fiemap.h, stat.h).  Linux, 64-bit.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)

FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 0x10

FICLONERANGE = 0x4020940D
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
FS_IOC_FIEMAP = 0xC020660B
XFS_IOC_GOINGDOWN = 0x8004587D
XFS_IOC_EXCHANGE_RANGE = 0x40285881
XFS_IOC_SET_RESBLKS = 0xC0105872
XFS_IOC_AG_GEOMETRY = 0xC080583D
_FSXATTR = struct.Struct("=5I8x")
_FIEMAP = struct.Struct("=QQIIII")
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")
FIEMAP_LAST, FIEMAP_UNWRITTEN, FIEMAP_SHARED, FIEMAP_DELALLOC = 0x1, 0x800, 0x2000, 0x4

#: fsxattr flag bits (FS_XFLAG_*).
XFLAGS = {
    "realtime": 0x1, "prealloc": 0x2, "immutable": 0x8, "append": 0x10, "sync": 0x20, "noatime": 0x40, "nodump": 0x80,
    "rtinherit": 0x100, "projinherit": 0x200, "nosymlinks": 0x400, "extsize": 0x800, "extszinherit": 0x1000,
    "nodefrag": 0x2000, "filestream": 0x4000, "cowextsize": 0x10000,
}  # fmt: skip


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def fallocate(fd: int, mode: int, offset: int, nbytes: int) -> None:
    """fallocate(2)."""
    _check(_libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(nbytes)), "fallocate")


def clone_range(src: int, src_offset: int, nbytes: int, dst: int, dst_offset: int) -> None:
    """Share blocks of one file with another (FICLONERANGE); `nbytes` 0 is to the end."""
    fcntl.ioctl(dst, FICLONERANGE, struct.pack("=qQQQ", src, src_offset, nbytes, dst_offset))


def exchange_range(fd1: int, fd2: int, nbytes: int) -> None:
    """Exchange the contents of two files from their beginnings (XFS_IOC_EXCHANGE_RANGE)."""
    fcntl.ioctl(fd2, XFS_IOC_EXCHANGE_RANGE, struct.pack("=iIQQQQ", fd1, 0, 0, 0, nbytes, 0))


class FileFlags(NamedTuple):
    """struct fsxattr."""

    xflags: int
    extsize: int
    nextents: int
    projid: int
    cowextsize: int


def get_flags(fd: int) -> FileFlags:
    """FS_IOC_FSGETXATTR."""
    return FileFlags(*_FSXATTR.unpack(fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(28))))


def set_flags(fd: int, *names: str, projid: int | None = None, extsize: int = 0, cowextsize: int = 0) -> None:
    """Add flags by name, set the project id and the allocation hints (bytes)."""
    now = get_flags(fd)
    xflags = now.xflags
    for name in names:
        xflags |= XFLAGS[name]
    packed = _FSXATTR.pack(xflags, extsize or now.extsize, 0, now.projid if projid is None else projid, cowextsize)
    fcntl.ioctl(fd, FS_IOC_FSSETXATTR, packed)


def shutdown(fd: int, *, flush_log: bool = True) -> None:
    """Stop the filesystem as a power cut would; `flush_log` writes the log first."""
    fcntl.ioctl(fd, XFS_IOC_GOINGDOWN, struct.pack("=I", 1 if flush_log else 2))


def freeze(fd: int) -> None:
    """Stop all changes to a filesystem, everything written back (FIFREEZE)."""
    fcntl.ioctl(fd, FIFREEZE, 0)


def thaw(fd: int) -> None:
    """Go on."""
    fcntl.ioctl(fd, FITHAW, 0)


def reserve(fd: int, nblocks: int) -> None:
    """Set how many blocks the filesystem keeps from users for its own needs."""
    fcntl.ioctl(fd, XFS_IOC_SET_RESBLKS, struct.pack("=QQ", nblocks, 0))


def read_ag_headers(top: bytes) -> None:
    """Have XFS read every AGF and AGI: statfs counts an AG's free space B+trees only once its AGF is in core.

    Elsewhere (a FUSE mount) this does nothing.
    """
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for agno in range(1 << 20):
            try:
                fcntl.ioctl(fd, XFS_IOC_AG_GEOMETRY, struct.pack("=I124x", agno))
            except OSError:
                return
    finally:
        os.close(fd)


def fiemap(fd: int) -> list[list[int]]:
    """[offset, device offset, bytes, flags] of a file, neighbours that continue each other joined; no holes."""
    runs: list[list[int]] = []
    start, count = 0, 512
    while True:
        buffer = bytearray(_FIEMAP.pack(start, (1 << 64) - 1 - start, 0, 0, count, 0) + bytes(56 * count))
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
        mapped = _FIEMAP.unpack_from(buffer)[3]
        flags = 0
        for index in range(mapped):
            logical, physical, nbytes, flags = _FIEMAP_EXTENT.unpack_from(buffer, 32 + 56 * index)
            kept = flags & (FIEMAP_UNWRITTEN | FIEMAP_SHARED | FIEMAP_DELALLOC)
            join(runs, logical, physical, nbytes, kept)
            start = logical + nbytes
        if mapped < count or flags & FIEMAP_LAST:
            return runs


def join(runs: list[list[int]], logical: int, physical: int, nbytes: int, flags: int) -> None:
    """Append a run, or lengthen the last one where this continues it."""
    if runs:
        last = runs[-1]
        if last[0] + last[2] == logical and last[1] + last[2] == physical and last[3] == flags:
            last[2] += nbytes
            return
    runs.append([logical, physical, nbytes, flags])


_BTIME_MASK = 0x800
_statx_buffer = ctypes.create_string_buffer(256)


def birth_ns(path: bytes) -> int | None:
    """Creation time, where the filesystem keeps one (V5)."""
    at_fdcwd, nofollow = -100, 0x100
    _check(_libc.statx(at_fdcwd, path, nofollow, _BTIME_MASK, _statx_buffer), "statx")
    if not struct.unpack_from("=I", _statx_buffer)[0] & _BTIME_MASK:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", _statx_buffer, 80)
    return int(seconds * 1_000_000_000 + nanoseconds)


def raw_directory(path: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, inode, DT_*) in the kernel's own order, "." and ".." too."""
    buffer = ctypes.create_string_buffer(1 << 18)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while filled := _check(_libc.getdents64(fd, buffer, len(buffer)), "getdents64"):
            data, at = buffer.raw[:filled], 0
            while at < filled:
                ino, _, length, dtype = struct.unpack_from("=QqHB", data, at)
                yield data[at + 19 : data.index(0, at + 19)], ino, dtype
                at += length
    finally:
        os.close(fd)
