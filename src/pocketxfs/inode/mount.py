"""What every operation on a mounted filesystem needs, in one place: machine, devices, cache, geometry, inodes."""

from __future__ import annotations

from ..buffer import BufferCache
from ..device import Device
from ..errors import Unsupported
from ..format.geometry import Geometry
from ..memory import Machine
from .incore import Inode, InodeCache


class Mount:
    """One open filesystem (kernel: struct xfs_mount)."""

    __slots__ = ("cache", "device", "geo", "inodes", "machine", "rtdev")

    def __init__(
        self, machine: Machine, device: Device, rtdev: Device | None, cache: BufferCache, geo: Geometry
    ) -> None:
        self.machine, self.device, self.rtdev = machine, device, rtdev
        self.cache, self.geo = cache, geo
        self.inodes = InodeCache(machine, cache, geo)

    def data_device(self, inode: Inode) -> Device:
        """The device that an inode's file data lies on.  Raises `Unsupported` for realtime data with none given."""
        if not inode.is_realtime:
            return self.device
        if self.rtdev is None:
            raise Unsupported(f"inode {inode.ino} is a realtime file: name the realtime device (--rtdev)")
        return self.rtdev
