"""The mount process: lock, open, mount, serve, and leave cleanly; in the background or in the foreground.

In the background the command forks at once; the child does everything and tells the parent over a pipe that the mount
is usable (INIT has been answered), or why it is not.  SIGINT, SIGTERM and SIGHUP unmount; SIGUSR1 writes the memory
report to the log.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Any

from ..errors import Error
from . import guard, mounting
from .data import can_splice
from .init import Negotiated, ProtocolError
from .live import Live
from .mounting import MountError, MountRequest
from .options import MountOptions
from .session import Session, read_bytes_for

_READY = b"\0"
#: How far the kernel reads ahead, where this process may tell it.
READAHEAD_BYTES = 512 << 10


class Failed(Error):
    """What the background process reported before it went away."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def mount(image: str, directory: str, options: MountOptions) -> None:
    """Mount `image` on `directory`.  Returns when the mount is usable; in the foreground, when it is gone.

    Raises `Error`, `OSError`.
    """
    image, directory = os.path.abspath(image), os.path.realpath(directory)
    if not os.path.isdir(directory):
        raise NotADirectoryError(20, os.strerror(20), directory)
    for name in ("log", "lock", "rtdev", "logdev"):
        path = getattr(options, name)
        if path is not None:
            setattr(options, name, os.path.abspath(path))
    if options.foreground:
        Process(image, directory, options, None).run()
        return
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _background(image, directory, options, write_end)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        told = pipe.read()
    if told == _READY:
        return
    os.waitpid(pid, 0)
    if not told:
        raise MountError(f"{image}: the mount process died before the mount was usable")
    raise Failed(told[1:].decode("utf-8", "surrogateescape"), told[0])


def _background(image: str, directory: str, options: MountOptions, pipe: int) -> None:
    """The child: never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir("/")
        Process(image, directory, options, pipe).run()
        code = 0
    except Error as error:
        _tell(pipe, error.exit_code, error.message)
    except OSError as error:
        text = error.strerror or str(error)
        _tell(pipe, 1, f"{os.fsdecode(error.filename)}: {text}" if error.filename else text)
    except MemoryError:
        _tell(pipe, 5, "the host has no memory left")
    except BaseException as error:
        _tell(pipe, 1, repr(error))
    finally:
        os._exit(code)


def _tell(pipe: int, code: int, text: str) -> None:
    try:
        os.write(pipe, bytes((code or 1,)) + text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # the mount was usable and the parent has gone: the log has it


class Process:
    """One mount from beginning to end."""

    def __init__(self, image: str, directory: str, options: MountOptions, pipe: int | None) -> None:
        """`pipe`: where to tell that the mount is usable; None in the foreground."""
        self.image, self.directory, self.options, self._pipe = image, directory, options, pipe
        self._log_fd: int | None = None
        self._session: Session | None = None
        self._device = ""
        self._report_wanted = False
        self._wake_r = self._wake_w = -1

    def run(self) -> None:
        """All of it.  Raises `Error`, `OSError` for what stops it before the mount is usable, or fails it later."""
        held: list[int] = []
        options = self.options
        if options.log is not None:
            self._log_fd = os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        elif self._pipe is None:
            self._log_fd = 2
        try:
            claims = self._secure(held)
            from ..filesystem import open as open_filesystem

            try:
                fs = open_filesystem(self.image, **options.open_arguments())
            except ValueError as error:
                raise Error(str(error)) from None
            except Error as error:
                guard.refuse_overlap(self.image, claims, 0, 1 << 62)  # most likely the reason
                if not error.message.startswith(self.image):
                    error.message = f"{self.image}: {error.message}"
                raise
            with fs:
                if fs.recovered is not None:
                    left = "".join(f"; left for Linux: {words}" for words in fs.recovered.unfinished_words())
                    self._log(f"{self.image}: {fs.recovered.transactions} transactions replayed in memory{left}")
                guard.refuse_overlap(self.image, claims, fs.mount.device.base_bytes, fs.mount.device.size_bytes)
                self._serve(fs)
        except BaseException as error:
            if self._log_fd not in (None, 2):
                self._log(f"{self.image}: {error}")
            raise
        finally:
            for fd in held:
                os.close(fd)

    def _secure(self, held: list[int]) -> list[guard.Claim]:
        """Lock everything that is read; what the kernel has of the image."""
        options = self.options
        if options.lock is not None:
            held.append(guard.lock(options.lock, create=True))
        for path in (self.image, options.rtdev, options.logdev):
            if path is not None:
                held.append(guard.lock(path))
        claims = guard.kernel_claims(self.image)
        claimed = guard.claim_device(self.image)
        if claimed is not None:
            held.append(claimed)
        return claims

    def _serve(self, fs: Any) -> None:
        options = self.options
        request = MountRequest(
            options.fsname or self.image,
            self.directory,
            options.flags,
            options.allow_other,
            options.default_permissions,
            read_bytes_for(fs.mount.machine.profile.ram_bytes),
        )
        fd = mounting.mount(request)
        mounted = mounting.mounted_at(self.directory)
        self._device = mounted.device if mounted is not None else ""
        os.set_blocking(fd, False)
        session = None
        try:
            session = self._session = Session(
                fs,
                fd,
                splice=options.splice and can_splice(),
                permissions=options.default_permissions,
                log=self._log,
                ready=self._usable,
            )
            session.server.live = Live(session)
            session.server.lists_trusted = _in_first_namespace()
            session.woken = self._woken
            self._catch_signals()
            session.run(self._wake_r)
        except ProtocolError as error:
            raise MountError(f"{self.directory}: {error}") from None
        finally:
            if session is not None:
                session.close()
            os.close(fd)
            self._leave()

    def _read_further_ahead(self) -> None:
        """Let the kernel read files ahead in larger steps than its 128 KiB, where root may say so.

        Not before INIT is answered: the kernel cuts the step to what it offered there.
        """
        most = self._session.max_read_bytes if self._session is not None else READAHEAD_BYTES
        wanted = min(READAHEAD_BYTES, most) >> 10
        try:
            with open(f"/sys/class/bdi/{self._device}/read_ahead_kb", "r+b", 0) as knob:
                if int(knob.read()) < wanted:
                    knob.write(str(wanted).encode())
        except (OSError, ValueError):
            pass  # an ordinary user's mount keeps the kernel's own step

    def _usable(self, found: Negotiated) -> None:
        """INIT has been answered: let the command return, and settle down."""
        self._read_further_ahead()
        self._log(
            f"{self.image} on {self.directory}: FUSE 7.{found.minor}, flags {found.flags:#x}, "
            f"reads of up to {found.max_pages} pages"
        )
        if self._pipe is not None:
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            os.close(null)
            os.write(self._pipe, _READY)
            os.close(self._pipe)
            self._pipe = None
        gc.collect()
        gc.freeze()

    # -- signals -----------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        """Handlers only set flags; the byte that the interpreter writes to the pipe wakes the loop."""
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGUSR1, self._want_report)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _stop(self, number: int, frame: object) -> None:
        if self._session is not None:
            self._session.stopping = True

    def _want_report(self, number: int, frame: object) -> None:
        self._report_wanted = True

    def _woken(self) -> None:
        """The loop has seen the byte: do what the handlers wanted."""
        try:
            os.read(self._wake_r, 512)
        except BlockingIOError:
            pass
        if self._report_wanted and self._session is not None:
            self._report_wanted = False
            from json import dumps

            self._log(dumps(self._session.report()))

    # -- the end -----------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Unmount, unless that is what ended the session.  The device is closed: nothing waits for an answer now."""
        signal.set_wakeup_fd(-1)
        for fd in (self._wake_r, self._wake_w):
            if fd >= 0:
                os.close(fd)
        self._wake_r = self._wake_w = -1
        found = mounting.mounted_at(self.directory)
        if found is None or found.fstype != mounting.FSTYPE or (self._device and found.device != self._device):
            self._log(f"{self.directory}: unmounted")
            return
        try:
            mounting.unmount(self.directory, lazy=True, quiet=True)
            self._log(f"{self.directory}: unmounted by this process")
        except Error as error:
            self._log(str(error))

    def _log(self, text: str) -> None:
        if self._log_fd is None:
            return
        from time import strftime

        line = f"{strftime('%Y-%m-%d %H:%M:%S')} pocketxfs[{os.getpid()}]: {text}\n"
        try:
            os.write(self._log_fd, line.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # a log that cannot be written must not take the mount down


def _in_first_namespace() -> bool:
    """Whether user 0 here is the host's: `trusted.` attributes are for that one alone."""
    try:
        with open("/proc/self/uid_map", "rb") as table:
            return table.read().split() == [b"0", b"0", b"4294967295"]
    except OSError:
        return True
