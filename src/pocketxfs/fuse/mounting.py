"""Getting a FUSE descriptor mounted, and a mount taken away.

`mount(2)` where this process may, in a child that alone loads ctypes; `fusermount3` for everybody else, which hands the
descriptor over a socket.  Sources: mount(2), fs/fuse/inode.c for the data string, libfuse's fusermount protocol
(_FUSE_COMMFD).  Limits: Linux.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from ..errors import Error, Unsupported

FUSE_DEVICE = "/dev/fuse"
FSTYPE = "fuse.pocketxfs"
FUSERMOUNT = ("fusermount3", "fusermount")

MS_RDONLY = 1 << 0
MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_SYNCHRONOUS = 1 << 4
MS_NOATIME = 1 << 10
MS_NODIRATIME = 1 << 11
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2

#: mount(2)'s flags by fusermount3's words for them
FLAG_WORDS = (
    (MS_RDONLY, "ro"),
    (MS_NOSUID, "nosuid"),
    (MS_NODEV, "nodev"),
    (MS_NOEXEC, "noexec"),
    (MS_SYNCHRONOUS, "sync"),
    (MS_NOATIME, "noatime"),
    (MS_NODIRATIME, "nodiratime"),
)


class MountRequest(NamedTuple):
    """What is to be mounted where.  `source` is what mount tables show."""

    source: str
    directory: str
    flags: int
    allow_other: bool
    default_permissions: bool
    max_read_bytes: int


class MountError(Error):
    """The kernel or fusermount3 refused to mount, or to unmount."""


def mount(request: MountRequest) -> int:
    """Mount, and return the descriptor of the FUSE device.  Raises `MountError`, `Unsupported`."""
    number = errno.EPERM
    if os.geteuid() == 0:
        fd = _open_device()
        try:
            number = _mount_directly(fd, request)
            if number == 0:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if number != errno.EPERM:
            raise _refused(request.directory, number)
    helper = find_fusermount()
    if helper is None:
        if number == errno.EPERM and os.geteuid() == 0:
            raise _refused(request.directory, number)
        raise Unsupported("fusermount3 was not found: install fuse3, or mount as root")
    return _mount_by_helper(helper, request)


def unmount(directory: str, *, lazy: bool = False, quiet: bool = False) -> None:
    """Unmount a directory, as root or through fusermount3.  Raises `MountError`."""
    number = errno.EPERM
    if os.geteuid() == 0:
        number = _in_child(_umount2, directory, MNT_DETACH if lazy else 0)
    if number == errno.EPERM:
        helper = find_fusermount()
        if helper is not None:
            words = [helper, "-u", *(["-z"] if lazy else []), *(["-q"] if quiet else []), "--", directory]
            number = 0 if _run(words) == 0 else -1
    if number > 0:
        hint = " (something still uses it; --lazy detaches it now)" if number == errno.EBUSY else ""
        raise MountError(f"{directory}: cannot unmount: {os.strerror(number)}{hint}", errno=number)
    if number < 0:
        raise MountError(f"{directory}: fusermount3 could not unmount it", errno=errno.EPERM)


def find_fusermount() -> str | None:
    """The path of fusermount3, or of its predecessor."""
    for name in FUSERMOUNT:
        for folder in (*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/bin"):
            path = os.path.join(folder, name)
            if folder and os.access(path, os.X_OK):
                return path
    return None


# -- mount(2) --------------------------------------------------------------------------------------------------


def _open_device() -> int:
    try:
        return os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unsupported(f"{FUSE_DEVICE} is not there: FUSE is not in the kernel, or not in this container") from None
    except OSError as error:
        raise MountError(f"{FUSE_DEVICE}: {error.strerror}", errno=error.errno) from error


def mount_data(fd: int, root_mode: int, uid: int, gid: int, request: MountRequest) -> str:
    """mount(2)'s data for FUSE."""
    words = [f"fd={fd}", f"rootmode={root_mode:o}", f"user_id={uid}", f"group_id={gid}"]
    if request.allow_other:
        words.append("allow_other")
    if request.default_permissions:
        words.append("default_permissions")
    words.append(f"max_read={request.max_read_bytes}")
    return ",".join(words)


def _mount_directly(fd: int, request: MountRequest) -> int:
    """0, or the errno of mount(2)."""
    data = mount_data(fd, 0o040000, os.getuid(), os.getgid(), request)
    return _in_child(_mount2, request.source, request.directory, FSTYPE, request.flags, data)


def _mount2(source: str, directory: str, fstype: str, flags: int, data: str) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    encode = os.fsencode
    failed = libc.mount(
        encode(source), encode(directory), encode(fstype), ctypes.c_ulong(flags), encode(data)
    )  # fmt: skip
    return ctypes.get_errno() if failed else 0


def _umount2(directory: str, flags: int) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.umount2(os.fsencode(directory), flags) else 0


def _in_child(function: object, *arguments: object) -> int:
    """What a function returns, an errno, when a child of this process calls it: ctypes is loaded there alone."""
    pid = os.fork()
    if pid == 0:
        number = 255
        try:
            number = function(*arguments)  # type: ignore[operator]
        finally:
            os._exit(min(number, 255))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _refused(directory: str, number: int) -> MountError:
    if not 0 < number < 255:
        return MountError(f"{directory}: the mount helper process failed")
    hint = {
        errno.ENODEV: " (FUSE is not in the kernel)",
        errno.EINVAL: " (a mount option that this kernel does not know?)",
        errno.EPERM: " (and fusermount3, which may, was not found)",
    }.get(number, "")
    return MountError(f"{directory}: cannot mount: {os.strerror(number)}{hint}", errno=number)


# -- fusermount3 -----------------------------------------------------------------------------------------------


def helper_options(request: MountRequest) -> str:
    """fusermount3's -o; commas and backslashes in the source are escaped as it expects them."""
    words = [word for flag, word in FLAG_WORDS if request.flags & flag]
    if request.allow_other:
        words.append("allow_other")
    if request.default_permissions:
        words.append("default_permissions")
    words.append(f"max_read={request.max_read_bytes}")
    words.append("subtype=pocketxfs")
    words.append("fsname=" + request.source.replace("\\", "\\\\").replace(",", "\\,"))
    return ",".join(words)


def _mount_by_helper(helper: str, request: MountRequest) -> int:
    from _socket import AF_UNIX, SOCK_STREAM, socketpair

    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    try:
        os.set_inheritable(theirs.fileno(), True)
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        words = [helper, "-o", helper_options(request), "--", request.directory]
        pid = os.posix_spawn(helper, words, environment)
        theirs.close()
        fd = _receive_fd(ours)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        ours.close()
        theirs.close()
    if fd is None:
        raise MountError(f"{request.directory}: {os.path.basename(helper)} did not mount it (exit code {status})")
    os.set_inheritable(fd, False)
    return fd


def _receive_fd(sock: object) -> int | None:
    """The descriptor that the other end sends, or None where it closes without."""
    from _socket import SCM_RIGHTS, SOL_SOCKET

    while True:
        try:
            _, ancillary, _, _ = sock.recvmsg(1, 64)  # type: ignore[attr-defined]
            break
        except InterruptedError:
            continue
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS and len(data) >= 4:
            import sys

            return int.from_bytes(data[:4], sys.byteorder, signed=True)
    return None


def _run(words: list[str]) -> int:
    pid = os.posix_spawn(words[0], words, os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# -- what is mounted -------------------------------------------------------------------------------------------


class Mounted(NamedTuple):
    """A line of mountinfo, as far as it matters here."""

    device: str
    directory: str
    fstype: str
    source: str


def mounts() -> list[Mounted]:
    """Everything that this process sees mounted, in the order of mounting."""
    found = []
    try:
        with open("/proc/self/mountinfo", "rb") as table:
            for line in table:
                left, _, right = line.partition(b" - ")
                fields, more = left.split(), right.split()
                if len(fields) >= 5 and len(more) >= 2:
                    found.append(
                        Mounted(
                            fields[2].decode(), _plain(fields[4]), more[0].decode("utf-8", "replace"), _plain(more[1])
                        )
                    )
    except FileNotFoundError:
        pass
    return found


def mounted_at(directory: str) -> Mounted | None:
    """What is mounted on a directory, the topmost."""
    return next((entry for entry in reversed(mounts()) if entry.directory == directory), None)


def _plain(field: bytes) -> str:
    """A mountinfo field with its octal escapes undone."""
    parts = field.split(b"\\")
    plain = bytearray(parts[0])
    for part in parts[1:]:
        if part[:3].isdigit():
            plain.append(int(part[:3], 8))
            plain += part[3:]
        else:
            plain += b"\\" + part
    return os.fsdecode(bytes(plain))
