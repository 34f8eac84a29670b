"""Whether an image may be mounted: not twice, and not while the kernel has it mounted.

An image is locked with flock(2), a block device also claimed with O_EXCL, as the kernel claims what it mounts.  What
the kernel uses is read from mountinfo and sysfs: loop devices by their backing file and offset, partitions, and
whatever is stacked upon them.  Limits: the lock is of the whole image, so two partitions of one image file cannot be
mounted at once; a mount in another mount namespace is seen only if it is XFS.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from ..errors import Error
from .mounting import mounts

_SYS_BLOCK, _SYS_DEV_BLOCK, _SYS_XFS = "/sys/block", "/sys/dev/block", "/sys/fs/xfs"
_SECTOR = 512
#: Devices stacked on devices: deeper than this nobody builds.
_DEPTH = 8


class Busy(Error):
    """Somebody else has the image."""

    default_errno = errno.EBUSY


#: A range of the image in bytes, and who has it.
Claim = tuple[int, int, str]


def lock(path: str, *, create: bool = False) -> int:
    """Lock a file or device against others; the descriptor that holds the lock.  Raises `Busy`, `OSError`."""
    from fcntl import LOCK_EX, LOCK_NB, flock

    flags = os.O_RDONLY | os.O_CLOEXEC
    fd = os.open(path, flags | os.O_CREAT if create else flags, 0o600)
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Busy(f"{path}: in use by another process (is it mounted already?)") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            os.close(fd)
            raise  # else: a filesystem without locks, on which nothing can be known
    return fd


def claim_device(path: str) -> int | None:
    """Claim a block device as the kernel's mounts do; None where it is not one, or is in use already."""
    if not stat.S_ISBLK(os.stat(path).st_mode):
        return None
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_EXCL)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return None
        raise


def kernel_claims(path: str) -> list[Claim]:
    """What of an image the kernel has mounted."""
    about = os.stat(path)
    mounted = {entry.device: f"mounted on {entry.directory}" for entry in mounts()}
    if stat.S_ISBLK(about.st_mode):
        return list(_of_device(f"{_SYS_DEV_BLOCK}/{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}", mounted))
    found: list[Claim] = []
    for name in _names(_SYS_BLOCK):
        backing = _text(f"{_SYS_BLOCK}/{name}/loop/backing_file")
        if backing and _same(backing.removesuffix(" (deleted)"), path, about):
            start = _number(f"{_SYS_BLOCK}/{name}/loop/offset")
            found += _of_disk(f"{_SYS_BLOCK}/{name}", start, mounted, 0)
    return found


def refuse_overlap(path: str, claims: list[Claim], start: int, nbytes: int) -> None:
    """Raise `Busy` where a part of [start, start + nbytes) of the image is the kernel's."""
    for begin, end, who in claims:
        if begin < start + nbytes and start < end:
            raise Busy(f"{path}: the kernel has it {who}")


def _same(backing: str, path: str, about: os.stat_result) -> bool:
    try:
        other = os.stat(backing)
    except OSError:
        return backing == os.path.realpath(path)
    return (other.st_dev, other.st_ino) == (about.st_dev, about.st_ino)


def _of_device(folder: str, mounted: dict[str, str]) -> Iterator[Claim]:
    """Claims on a block device, seen from its own beginning: its own, its parts', and those of the disk around it."""
    yield from _of_disk(folder, 0, mounted, 0)
    if os.path.exists(f"{folder}/partition"):
        whole = os.path.dirname(os.path.realpath(folder))
        who = _user(whole, mounted, 0)
        if who:
            start = _number(f"{folder}/start") * _SECTOR
            yield -start, _number(f"{whole}/size") * _SECTOR - start, who


def _of_disk(folder: str, base: int, mounted: dict[str, str], depth: int) -> Iterator[Claim]:
    who = _user(folder, mounted, depth)
    if who:
        yield base, base + _number(f"{folder}/size") * _SECTOR, who
    for name in _names(folder):
        part = f"{folder}/{name}"
        if os.path.exists(f"{part}/partition"):
            who = _user(part, mounted, depth)
            if who:
                start = base + _number(f"{part}/start") * _SECTOR
                yield start, start + _number(f"{part}/size") * _SECTOR, who


def _user(folder: str, mounted: dict[str, str], depth: int) -> str | None:
    """Who uses a device: a mount of it, or of something built upon it."""
    device = _text(f"{folder}/dev")
    if device and device in mounted:
        return mounted[device]
    name = os.path.basename(os.path.realpath(folder))
    if name in _names(_SYS_XFS):
        return f"mounted as XFS ({name}, in another namespace)"
    if depth < _DEPTH:
        for holder in _names(f"{folder}/holders"):
            who = _user(f"{_SYS_BLOCK}/{holder}", mounted, depth + 1)
            if who:
                return who
    return None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read(8192)).rstrip("\n")
    except OSError:
        return ""


def _number(path: str) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0
