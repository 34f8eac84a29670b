"""Bringing a filesystem up: devices, superblock, machine, cache, log state (kernel: xfs_mountfs, in small)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .buffer import BufferCache
from .device import Device, open_device
from .errors import Corrupt, DeviceError, NotXfs, Unsupported
from .format import superblock
from .format.geometry import Geometry
from .inode import Mount
from .memory import Machine, parse_size, profile

if TYPE_CHECKING:
    from .journal import LogState, Report

#: One read takes any superblock sector but the largest.
FIRST_READ_BYTES = 4096
#: What can be done where a log cannot be replayed.
WITHOUT = " (norecovery shows what lies on the disk, without the log)"


def read_superblock(device: Device, force: bool = False) -> superblock.Superblock:
    """The judged primary superblock.  Raises `NotXfs`, `Unsupported`, `Corrupt`."""
    first = device.pread(0, min(FIRST_READ_BYTES, device.size_bytes))
    if len(first) < superblock.SB_BYTES:
        raise NotXfs(f"{device.name}: {len(first)} bytes are too few for a filesystem")
    sector_bytes = superblock.decode(first).sb_sectsize
    if first[:4] == b"XFSB" and FIRST_READ_BYTES < sector_bytes <= 32768 and sector_bytes <= device.size_bytes:
        first = device.pread(0, sector_bytes)
    return superblock.verify(first, f"{device.name}, AG 0", force=force)


def mount_image(
    image: Any,
    memory: str | int,
    buffers: str,
    partition: int | None,
    offset: int | None,
    rtdev: Any,
    logdev: Any,
    norecovery: bool,
    machine_name: str,
    force: bool,
) -> tuple[Mount, LogState | None, Report | None]:
    """Everything behind `pocketxfs.open`; what was opened is closed again where it fails."""
    ram_bytes = parse_size(memory) if isinstance(memory, str) else memory
    shape = profile(machine_name, ram_bytes)
    opened: list[Any] = []
    try:
        device = open_device(image, partition=partition, offset=offset)
        opened.append(device)
        geo = Geometry(read_superblock(device, force))
        realtime = None
        if rtdev is not None:
            realtime = open_device(rtdev, whole=True)
            opened.append(realtime)
            _check_realtime(realtime, geo)
        log = None
        if logdev is not None:
            log = open_device(logdev, whole=True)
            opened.append(log)
        state = _judge_log(device, log, geo, norecovery)
        machine = Machine(shape)
        opened.append(machine)
        report = None
        if state is not None and not state.clean and not norecovery:
            device, geo, report = _replay(device, geo, machine, log, opened)
        cache = BufferCache(machine, device, geo, buffers)
        mounted = Mount(machine, device, realtime, cache, geo)
        root = mounted.inodes.get(geo.root_ino)
        if not root.is_dir:
            raise Corrupt("superblock", os.fsdecode(device.name), "sb_rootino", "a directory", oct(root.mode))
        if log is not None:
            log.close()
        return mounted, state, report
    except BaseException:
        for thing in reversed(opened):
            thing.close()
        raise


def _replay(
    device: Device, geo: Geometry, machine: Machine, log: Device | None, opened: list[Any]
) -> tuple[Device, Geometry, Report]:
    """The filesystem as its log makes it, in an overlay; the image is not touched."""
    from .journal import replay
    from .journal.recovery import reread_geometry

    opened.remove(device)  # the overlay closes it, also where the replay fails
    try:
        after, report = replay(device, geo, machine, log)
    except (Corrupt, Unsupported) as error:
        error.message += WITHOUT
        raise
    opened.append(after)
    return after, reread_geometry(after), report


def _check_realtime(device: Device, geo: Geometry) -> None:
    wanted = geo.rt_blocks << geo.block_log
    if wanted == 0:
        raise Unsupported("this filesystem has no realtime section, but a realtime device was named")
    if device.size_bytes < wanted:
        raise DeviceError(f"{device.name}: {device.size_bytes} bytes, the realtime section needs {wanted}")


def _judge_log(device: Device, logdev: Device | None, geo: Geometry, norecovery: bool) -> LogState | None:
    """Where the log stands; None where nobody can or need say."""
    from .journal import log_state

    if geo.log_start:
        source: Device = device
        base = geo.fsb_to_daddr(geo.log_start) << 9
    elif logdev is not None:
        source, base = logdev, 0
    elif norecovery:
        return None
    else:
        raise Unsupported("the log is on a device of its own: name it (--logdev), or read without it (--norecovery)")
    try:
        state = log_state(source, base, geo.log_blocks << geo.block_log, geo)
    except (Corrupt, DeviceError) as error:
        if norecovery:
            return None
        error.message += WITHOUT
        raise
    return state
