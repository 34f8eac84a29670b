"""A session: requests read from the FUSE device, one after the other, answered, until the mount is gone.

One thread, one buffer for requests and one for replies, both in the machine's memory.  A request that cannot be parsed
fails alone: it is answered with an error, or dropped where it names nothing that could be answered.  A socket of type
SOCK_SEQPACKET does in place of the device.  Source: the kernel's Documentation/filesystems/fuse and fs/fuse/dev.c.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from struct import error as StructError
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, Error
from ..memory.process import peak_rss_bytes
from . import abi
from .init import Negotiated, ProtocolError, negotiate
from .server import HANDLERS, NO_REPLY, Server

if TYPE_CHECKING:
    from ..filesystem import FileSystem

#: Requests are small here, for data comes in with WRITE only; a BATCH_FORGET fills what there is.
REQUEST_BYTES = 16384
MAX_WRITE_BYTES = 4096
MOST_READ_BYTES = 1 << 20
LEAST_READ_BYTES = 1 << 17
#: The largest reply takes at most this part of the machine's memory.
READ_SHARE = 16

_in_header = abi.FUSE_IN_HEADER.unpack_from
_IN_BYTES, _OUT_BYTES = abi.FUSE_IN_HEADER.size, abi.FUSE_OUT_HEADER.size
_NEVER_ANSWERED = frozenset((abi.FUSE_FORGET, abi.FUSE_BATCH_FORGET, abi.FUSE_INTERRUPT, abi.FUSE_NOTIFY_REPLY))
#: Reading the device: try again; the mount is gone.
_AGAIN = frozenset((errno.EAGAIN, errno.EINTR, errno.ENOENT))
_GONE = frozenset((errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN, errno.ECONNRESET))
#: Writing a reply: the requester has given up, or the mount is gone; neither is an error here.
_UNWANTED = frozenset((errno.ENOENT, errno.ENODEV, errno.ECONNABORTED, errno.EPIPE, errno.ENOTCONN, errno.ECONNRESET))


class Session:
    """Serves one filesystem over one descriptor, which it does not close."""

    def __init__(
        self,
        fs: FileSystem,
        fd: int,
        *,
        splice: bool = False,
        permissions: bool = False,
        log: Callable[[str], None] | None = None,
        ready: Callable[[Negotiated], None] | None = None,
    ) -> None:
        """`permissions`: the kernel checks them.  `ready` is called when INIT has been answered."""
        self.fs, self.fd = fs, fd
        self._permissions = permissions
        self._log = log
        self._ready = ready
        machine = fs.mount.machine
        self._machine = machine
        self.max_read_bytes = read_bytes_for(machine.profile.ram_bytes)
        page_bytes = machine.page_bytes
        # both in one piece, though not always of RAM
        self._staging = machine.kmem_alloc_large(page_bytes + self.max_read_bytes, "staging")
        self._requests = machine.kmem_alloc_large(REQUEST_BYTES, "staging")
        self._request = self._requests.data
        # the payload begins on a page, the header lies right before it
        start = page_bytes - _OUT_BYTES
        self._reply = self._staging.data[start : start + _OUT_BYTES + self.max_read_bytes]
        self.server = Server(fs, self._reply[_OUT_BYTES:], fd if splice else None)
        self.negotiated: Negotiated | None = None
        self.ended = False
        #: Set, with a byte written to `wake_fd`'s other end, by whoever wants the loop to stop or to look up.
        self.stopping = False
        self.woken: Callable[[], None] | None = None
        #: requests, errors among the replies, malformed requests
        self.requests = self.errors = self.malformed = 0
        self._said = ""
        self._closed = False

    def close(self) -> None:
        """Give the buffers back."""
        if self._closed:
            return
        self._closed = True
        self.server.close()
        self._staging.free()
        self._requests.free()

    # -- the loop ----------------------------------------------------------------------------------------------

    def run(self, wake_fd: int | None = None) -> None:
        """Serve until the mount is gone, the other end is closed, or `stopping` is set.

        `wake_fd`, where it becomes readable, has `woken` called (which must read it empty).
        Raises `ProtocolError` where the kernel's protocol cannot be spoken, `OSError` where the device fails.
        """
        fd, request = self.fd, [self._request]
        wait = select.poll()
        wait.register(fd, select.POLLIN)
        if wake_fd is not None:
            wait.register(wake_fd, select.POLLIN)
        poll, readv, handle = wait.poll, os.readv, self.handle
        while not self.stopping and not self.ended:
            for ready, _ in poll():
                if ready != fd:
                    if self.woken is not None:
                        self.woken()
                    continue
                try:
                    nbytes = readv(fd, request)
                except OSError as error:
                    if error.errno in _AGAIN:
                        continue
                    if error.errno in _GONE:
                        return
                    raise
                if nbytes == 0:
                    return
                handle(nbytes)

    # -- one request -------------------------------------------------------------------------------------------

    def handle(self, nbytes: int) -> None:
        """Answer the request that lies in the request buffer."""
        request = self._request
        self.requests += 1
        if nbytes < _IN_BYTES:
            self.malformed += 1
            return
        length, opcode, unique, nodeid, uid, _, _, extensions, _ = _in_header(request)
        if unique == 0:
            self.malformed += 1
            return
        end = length - (extensions << 3)
        if length != nbytes or end < _IN_BYTES:
            self.malformed += 1
            self._fail(opcode, unique, errno.EINVAL)
            return
        try:
            if self.negotiated is None or opcode == abi.FUSE_INIT or opcode == abi.FUSE_DESTROY:
                count = self._control(opcode, request[_IN_BYTES:end])
            else:
                handler = HANDLERS.get(opcode, Server.unknown)
                count = handler(self.server, unique, nodeid, uid, request[_IN_BYTES:end])
        except DeviceError as error:
            self._report(opcode, nodeid, error)
            self._fail(opcode, unique, errno.EIO)
        except Error as error:
            self._report(opcode, nodeid, error)
            self._fail(opcode, unique, error.errno or errno.EIO)
        except OSError as error:
            self._fail(opcode, unique, error.errno or errno.EIO)
        except StructError:
            self.malformed += 1
            self._fail(opcode, unique, errno.EINVAL)
        except MemoryError as error:
            self._report(opcode, nodeid, error)
            self._fail(opcode, unique, errno.ENOMEM)
        except ProtocolError as error:
            self._fail(opcode, unique, error.errno)
            raise
        except Exception as error:  # a fault of this program: it fails this request, and is told
            self._report(opcode, nodeid, error)
            self._fail(opcode, unique, errno.EIO)
        else:
            if count != NO_REPLY:
                reply = self._reply
                abi.FUSE_OUT_HEADER.pack_into(reply, 0, _OUT_BYTES + count, 0, unique)
                self._send(reply[: _OUT_BYTES + count])
                if self._ready is not None and self.negotiated is not None:
                    ready, self._ready = self._ready, None
                    ready(self.negotiated)

    def _control(self, opcode: int, body: memoryview) -> int:
        """INIT, DESTROY, and what comes before INIT."""
        if opcode == abi.FUSE_DESTROY and self.negotiated is not None:
            self.ended = True
            return 0
        if opcode != abi.FUSE_INIT or self.negotiated is not None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            found = negotiate(body, self.max_read_bytes, MAX_WRITE_BYTES, self._permissions, self._machine.page_bytes)
        except ValueError:
            self.malformed += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
        self._reply[_OUT_BYTES : _OUT_BYTES + len(found.reply)] = found.reply
        if not found.again:
            self.negotiated = found
            self.server.no_open = bool(found.flags & abi.FUSE_NO_OPEN_SUPPORT)
            self.server.no_opendir = bool(found.flags & abi.FUSE_NO_OPENDIR_SUPPORT)
        return len(found.reply)

    def _fail(self, opcode: int, unique: int, number: int) -> None:
        if opcode in _NEVER_ANSWERED:
            return
        self.errors += 1
        self._send(abi.FUSE_OUT_HEADER.pack(_OUT_BYTES, -(number if 0 < number < 512 else errno.EIO), unique))

    def _send(self, reply: memoryview | bytes) -> None:
        try:
            os.write(self.fd, reply)
        except OSError as error:
            if error.errno not in _UNWANTED and self._log is not None:
                self._log(f"the kernel refused a reply of {len(reply)} bytes: {error.strerror}")

    def _report(self, opcode: int, nodeid: int, error: BaseException) -> None:
        """Tell what went wrong, once where it repeats itself."""
        if self._log is None:
            return
        name = abi.OPCODE_NAMES.get(opcode, f"opcode {opcode}")
        text = f"{name} of node {nodeid}: {error if isinstance(error, Error) else repr(error)}"
        if text == self._said:
            return
        self._said = text
        self._log(text)
        if not isinstance(error, Error) and not isinstance(error, MemoryError):
            from traceback import format_exception

            self._log("".join(format_exception(error)).rstrip())

    # -- what can be said about it -----------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """The filesystem's memory report with the session's numbers, JSON-able."""
        found = self.negotiated
        return {
            **self.fs.memory_report(),
            "session": {
                "pid": os.getpid(),
                "protocol": None if found is None else f"{abi.FUSE_KERNEL_VERSION}.{found.minor}",
                "max_read_bytes": self.max_read_bytes,
                "requests": self.requests,
                "errors": self.errors,
                "malformed": self.malformed,
                "kernel_lookups": self.server.lookups,
                "peak_rss_bytes": peak_rss_bytes(),
            },
        }


def read_bytes_for(ram_bytes: int) -> int:
    """The largest read that a machine of so much memory answers at once."""
    wanted = 1 << (max(1, ram_bytes // READ_SHARE)).bit_length() - 1
    return max(LEAST_READ_BYTES, min(MOST_READ_BYTES, wanted))
