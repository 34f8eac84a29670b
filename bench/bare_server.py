"""A FUSE server that does nothing but answer: one file, every read from memory.  The floor under any server in Python.

    python bench/bare_server.py DIRECTORY [SIZE]        in the foreground, as root; ends when unmounted

It takes the same INIT flags as pocketxfs and the shortest way otherwise: one blocking read, one writev, no dispatch to
speak of.
"""

from __future__ import annotations

import errno
import os
import sys

from pocketxfs.fuse import abi, init, mounting

FOREVER = 1 << 31


def main() -> None:
    """Serve until unmounted."""
    directory = os.path.realpath(sys.argv[1])
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 1 << 30
    fd = mounting.mount(mounting.MountRequest("bare", directory, mounting.MS_RDONLY, False, False, 1 << 20))
    data = memoryview(os.urandom(1 << 20))
    request = memoryview(bytearray(1 << 17))
    header, out, read_in = abi.FUSE_IN_HEADER, abi.FUSE_OUT_HEADER, abi.FUSE_READ_IN

    def attr(nodeid: int) -> tuple[int, ...]:
        mode, length = (0o40755, 0) if nodeid == 1 else (0o100644, size)
        return (nodeid, length, length >> 9, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    while True:
        try:
            count = os.readv(fd, [request])
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ECONNABORTED):
                return
            raise
        _, opcode, unique, nodeid, *_ = header.unpack_from(request)
        if opcode == abi.FUSE_READ:
            _, offset, wanted, *_ = read_in.unpack_from(request, 40)
            wanted = max(0, min(wanted, size - offset))
            os.writev(fd, (out.pack(16 + wanted, 0, unique), data[:wanted]))
            continue
        reply = b""
        error_number = 0
        if opcode == abi.FUSE_INIT:
            reply = init.negotiate(request[40:count], 1 << 20, 4096, False).reply
        elif opcode == abi.FUSE_LOOKUP:
            reply = abi.FUSE_ENTRY_OUT.pack(2, 1, FOREVER, FOREVER, 0, 0, *attr(2))
        elif opcode == abi.FUSE_GETATTR:
            reply = abi.FUSE_ATTR_OUT.pack(FOREVER, 0, 0, *attr(nodeid))
        elif opcode == abi.FUSE_STATFS:
            reply = bytes(80)
        elif opcode in (abi.FUSE_FORGET, abi.FUSE_BATCH_FORGET, abi.FUSE_INTERRUPT):
            continue
        else:
            error_number = -errno.ENOSYS
        os.writev(fd, (out.pack(16 + len(reply), error_number, unique), reply))


if __name__ == "__main__":
    main()
