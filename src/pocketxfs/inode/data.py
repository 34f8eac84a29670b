"""File data: holes, unwritten extents as zeros, realtime files, sizes that end in mid-block.

Data never passes through the arena: it is read straight into the caller's memory, or moved by the kernel from the
image to a descriptor (`copy_file_range`, `sendfile`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from ..device import Device
from ..errors import DeviceError, NoMemory
from ..format import inode as fmt
from .fork import data_extents, extents_from
from .incore import Inode
from .mount import Mount

HOLE, DATA, UNWRITTEN = 0, 1, 2
STATE_NAMES = ("hole", "data", "unwritten")
#: Where the kernel cannot move the data: one piece of it at a time goes through memory.
COPY_BYTES = 1 << 17
ZEROS = bytes(4096)


class Mapping(NamedTuple):
    """A run of file data: `device_offset` in bytes of `device`, or -1 in a hole."""

    file_offset: int
    nbytes: int
    device: Device | None
    device_offset: int
    state: int


def mappings(mount: Mount, inode: Inode, start: int, end: int) -> Iterator[Mapping]:
    """What [start, end) of a file consists of, in order and without gaps; the caller clips `end` to the size."""
    geo = mount.geo
    log = geo.block_log
    at = start
    device: Device | None = None
    realtime = inode.is_realtime
    place = geo.rtb_to_daddr if realtime else geo.fsb_to_daddr
    for offset, first, count, unwritten in extents_from(mount, inode, start >> log):
        begin = offset << log
        if begin >= end:
            break
        if begin > at:
            yield Mapping(at, begin - at, None, -1, HOLE)
            at = begin
        if device is None:
            device = mount.data_device(inode)
        stop = min((offset + count) << log, end)
        yield Mapping(at, stop - at, device, (place(first) << 9) + at - begin, UNWRITTEN if unwritten else DATA)
        at = stop
    if at < end:
        yield Mapping(at, end - at, None, -1, HOLE)


def read_into(mount: Mount, inode: Inode, offset: int, view: memoryview) -> int:
    """Fill `view` with the file's bytes from `offset`; the number read, short only at the end of the file."""
    size = inode.size
    want = min(len(view), size - offset)
    if want <= 0:
        return 0
    if inode.format == fmt.FMT_EXTENTS and not inode.flags & 1:
        extents = data_extents(inode)
        if len(extents) == 1:
            first, start, count, unwritten = extents[0]
            log = mount.geo.block_log
            begin = offset - (first << log)
            if begin >= 0 and not unwritten and begin + want <= count << log:
                mount.device.pread_into((mount.geo.fsb_to_daddr(start) << 9) + begin, (view[:want],))
                return want
    done = 0
    for piece in mappings(mount, inode, offset, offset + want):
        target = view[done : done + piece.nbytes]
        if piece.state == DATA and piece.device is not None:
            piece.device.pread_into(piece.device_offset, (target,))
        else:
            _zero(target)
        done += piece.nbytes
    return done


def _zero(view: memoryview) -> None:
    for at in range(0, len(view), len(ZEROS)):
        piece = view[at : at + len(ZEROS)]
        piece[:] = ZEROS[: len(piece)]


def read_bytes(mount: Mount, inode: Inode, offset: int = 0, nbytes: int | None = None) -> bytes:
    """The file's bytes as one object; for callers that asked for exactly that."""
    size = inode.size - offset
    if nbytes is not None and nbytes < size:
        size = nbytes
    if size <= 0:
        return b""
    if inode.format == fmt.FMT_EXTENTS and not inode.flags & 1:
        extents = data_extents(inode)
        if len(extents) == 1:
            first, start, count, unwritten = extents[0]
            log = mount.geo.block_log
            begin = offset - (first << log)
            if begin >= 0 and not unwritten and begin + size <= count << log:
                return mount.device.pread((mount.geo.fsb_to_daddr(start) << 9) + begin, size)
    try:
        held = bytearray(size)
    except (MemoryError, OverflowError):
        raise NoMemory(f"inode {inode.ino}: {size} bytes are too many for one object") from None
    with memoryview(held) as view:
        read_into(mount, inode, offset, view)
    return bytes(held)


def copy_to_fd(mount: Mount, inode: Inode, out_fd: int) -> int:
    """Write a whole file to an empty regular file that `out_fd` has open, keeping its holes; bytes of data moved.

    Unwritten extents become holes.  Raises `DeviceError` where the image ends early, `OSError` for `out_fd`'s errors.
    """
    size = inode.size
    moved = at = 0
    if size == 0:
        return 0
    for piece in mappings(mount, inode, 0, size):
        if piece.state != DATA or piece.device is None:
            continue
        if piece.file_offset != at:
            os.lseek(out_fd, piece.file_offset, os.SEEK_SET)
        _move(piece.device, piece.device_offset, piece.nbytes, out_fd)
        at = piece.file_offset + piece.nbytes
        moved += piece.nbytes
    if at != size:
        os.ftruncate(out_fd, size)
    return moved


_CANNOT_MOVE = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTSOCK))


def _move(device: Device, offset: int, nbytes: int, out_fd: int) -> None:
    """Move bytes of a device to where `out_fd` stands."""
    fd = device.fileno()
    sendfile = getattr(os, "sendfile", None)
    if fd is not None and sendfile is not None:
        source = device.base_bytes + offset
        try:
            while nbytes:
                count = sendfile(out_fd, fd, source, nbytes)
                if count == 0:
                    raise DeviceError(f"{device.name}: ends at byte {source}, {nbytes} more were expected")
                source += count
                offset += count
                nbytes -= count
        except OSError as error:
            if isinstance(error, DeviceError) or error.errno not in _CANNOT_MOVE:
                raise
        else:
            return
    while nbytes:
        chunk = memoryview(device.pread(offset, min(nbytes, COPY_BYTES)))
        offset += len(chunk)
        nbytes -= len(chunk)
        while chunk:
            chunk = chunk[os.write(out_fd, chunk) :]


def seek(mount: Mount, inode: Inode, offset: int, want_data: bool) -> int:
    """SEEK_DATA or SEEK_HOLE as Linux's XFS answers: unwritten extents with nothing cached are holes.

    Raises `OSError(ENXIO)` at or past the end, or where no data follows.
    """
    size = inode.size
    if not 0 <= offset < size:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    for piece in mappings(mount, inode, offset, size):
        if (piece.state == DATA) == want_data:
            return piece.file_offset
    if want_data:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    return size
