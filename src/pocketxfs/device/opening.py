"""From what the user names to the device that holds the filesystem.

The choice, where neither a partition nor an offset is given: XFS at byte 0 is the whole device; else the one partition
that begins with XFS; several are refused with a list, none is refused with what is there instead.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, Unsupported
from .base import Device
from .file import open_path

if TYPE_CHECKING:
    from .partitions import Partition

XFS_MAGIC = b"XFSB"


def open_device(
    source: Any,
    *,
    partition: int | None = None,
    offset: int | None = None,
    whole: bool = False,
    writable: bool = False,
) -> Device:
    """Open a file, a block device (by path) or a seekable binary file object, and find the filesystem in it.

    `partition` takes that partition and `offset` all from that byte on, whatever they hold; `whole` takes everything
    (a log or realtime device).  Raises `NotXfs`, `PartitionChoice`, `Unsupported`, `DeviceError`, and the `OSError`
    of a path that cannot be opened.
    """
    if (partition is not None) + (offset is not None) + bool(whole) > 1:
        raise Unsupported("a partition, an offset, or the whole device: one of them only")
    device = _open(source, writable)
    try:
        if whole:
            return device
        if offset is not None:
            return _narrow(device, offset, device.size_bytes - offset, f"{device.name} from byte {offset}")
        if partition is None:
            if device.size_bytes >= 4 and device.pread(0, 4) == XFS_MAGIC:
                _reset(device)
                return device
            from .partitions import find_xfs

            found = find_xfs(device)
        else:
            from .partitions import numbered

            found = numbered(device, partition)
        return _partition(device, found)
    except BaseException:
        device.close()
        raise


def _open(source: Any, writable: bool) -> Device:
    if isinstance(source, (str, bytes, os.PathLike)):
        return open_path(os.fspath(source), writable=writable)
    if hasattr(source, "read") or hasattr(source, "readinto"):
        from .fileobject import FileObjectDevice

        return FileObjectDevice(source, writable=writable)
    raise TypeError(f"a path or a seekable binary file object is needed, not {type(source).__name__}")


def _partition(device: Device, found: Partition) -> Device:
    nbytes = min(found.size_bytes, device.size_bytes - found.start_bytes)
    return _narrow(device, found.start_bytes, nbytes, f"{device.name}, partition {found.number}")


def _narrow(device: Device, start_bytes: int, nbytes: int, name: str) -> Device:
    if start_bytes < 0 or nbytes <= 0:
        raise DeviceError(f"{name}: begins outside the device ({device.size_bytes} bytes)")
    return device.window(start_bytes, nbytes, name)


def _reset(device: Device) -> None:
    """The probe is not the filesystem's reading: what is counted from here on is."""
    device.reads = device.read_bytes = device.segments = 0
