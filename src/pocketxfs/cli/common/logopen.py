"""What the verbs about the log open: the bare device, its geometry, a machine, the log; nothing is replayed yet."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING

from ...device import Device, open_device
from ...errors import Error, Unsupported
from ...format import features as f
from ...format.geometry import Geometry
from ...journal.head import LogState, find_state
from ...journal.recovery import log_ring
from ...journal.ring import Ring
from ...memory import Machine, parse_size, profile
from ...mounting import read_superblock
from ..run import Run
from .args import UsageError
from .target import Target

if TYPE_CHECKING:
    from ...filesystem import FileSystem
    from ...fuse.guard import Claim


class _Held:
    """A descriptor that holds a lock."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._fd)


def open_filesystem(run: Run, target: Target) -> FileSystem:
    """The replayed filesystem, for the time that the caller needs it: it takes memory of its own."""
    from ... import open as open_image

    args = run.args
    return open_image(
        target.image, memory=args.memory, buffers=args.buffers, machine=args.machine, partition=args.partition,
        offset=args.offset, logdev=args.logdev, rtdev=args.rtdev, force=args.force,
    )  # fmt: skip


class LogSource:
    """An image's device and log.  A context manager."""

    def __init__(self, run: Run, target: Target, *, writable: bool = False) -> None:
        args = run.args
        self._run, self._image = run, target.image
        self._opened: list[Device | Machine | _Held] = []
        try:
            claims = self._lock(target.image, args.logdev) if writable else []
            self.device = open_device(target.image, partition=args.partition, offset=args.offset, writable=writable)
            self._opened.append(self.device)
            if claims:
                from ...fuse.guard import refuse_overlap

                refuse_overlap(target.image, claims, self.device.base_bytes, self.device.size_bytes)
            self.geo = Geometry(read_superblock(self.device, args.force))
            self.logdev: Device | None = None
            if args.logdev is not None:
                self.logdev = open_device(args.logdev, whole=True, writable=writable)
                self._opened.append(self.logdev)
            if not self.geo.log_start and self.logdev is None:
                raise Unsupported("the log is on a device of its own: name it (--logdev)")
            self.ring: Ring = log_ring(self.device, self.geo, self.logdev)
            self.state: LogState = find_state(self.ring)
            self.machine = Machine(profile(args.machine, parse_size(args.memory)))
            self._opened.append(self.machine)
        except ValueError as error:
            self.close()
            raise UsageError(str(error)) from None
        except BaseException as error:
            self.close()
            if isinstance(error, Error) and not error.message.startswith(target.image):
                error.message = f"{target.image}: {error.message}"
            raise

    def __enter__(self) -> LogSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self, *paths: str | None) -> list[Claim]:
        """Nobody else may have what is going to be written; what the kernel has of the image."""
        from ...fuse import guard

        claims: list[Claim] = []
        for path in paths:
            if path is None:
                continue
            self._opened.append(_Held(guard.lock(path)))
            claimed = guard.claim_device(path)
            if claimed is not None:
                self._opened.append(_Held(claimed))
            claims = claims or guard.kernel_claims(path)
        return claims

    def close(self) -> None:
        """Let go of everything."""
        for thing in reversed(self._opened):
            if isinstance(thing, Machine) and self._run.args.memory_report is not None:
                self._run.add_report({"image": self._image, **thing.report()})
            thing.close()
        self._opened.clear()

    def facts(self) -> dict[str, object]:
        """Geometry and state of the log, JSON-able."""
        geo, state = self.geo, self.state
        return {
            "internal": bool(geo.log_start),
            "blocks": self.ring.blocks,
            "bytes": self.ring.blocks << 9,
            "device_offset": self.ring.base_bytes,
            "version": 2 if geo.sb.sb_versionnum & f.LOGV2 else 1,
            "sector_bytes": geo.log_sector_bytes,
            "stripe_unit_bytes": geo.sb.sb_logsunit if geo.sb.sb_logsunit > 1 else 0,
            "state": "clean" if state.clean else "dirty",
            "reason": state.reason,
            "head_block": state.head_block,
            "head_cycle": state.head_cycle,
            "tail_block": state.tail_block,
            "last_lsn": state.last_lsn,
            "torn_block": None if state.torn_block < 0 else state.torn_block,
        }

    def lines(self) -> list[str]:
        """The same for people."""
        geo, state, ring = self.geo, self.state, self.ring
        where = f"internal, at byte {ring.base_bytes} of the device" if geo.log_start else "on a device of its own"
        version = 2 if geo.sb.sb_versionnum & f.LOGV2 else 1
        unit = geo.sb.sb_logsunit if geo.sb.sb_logsunit > 1 else 0
        lines = [
            f"log    {ring.blocks} blocks of 512 bytes ({ring.blocks >> 11} MiB), {where}",
            f"       version {version}, sectors of {geo.log_sector_bytes} bytes"
            + (f", records in multiples of {unit} bytes" if unit else ""),
            f"head   block {state.head_block}, cycle {state.head_cycle}",
            f"tail   block {state.tail_block}",
            f"state  {'clean' if state.clean else 'dirty'}: {state.reason}",
        ]
        if state.torn_block >= 0:
            lines.append(
                f"torn   the record at block {state.torn_block} was cut short by the crash, and does not count"
            )
        return lines
