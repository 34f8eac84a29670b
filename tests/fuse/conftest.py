"""A session without a kernel: the protocol over a socket pair, on an image that ships with the tests."""

from __future__ import annotations

import lzma
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import pocketxfs
from pocketxfs.fuse import abi
from pocketxfs.fuse.session import Session

IMAGES = Path(__file__).parent.parent / "images"
#: What a kernel of today offers.
OFFERS = (1 << 31) - 1


class Wire:
    """The kernel's end of a session, and the session's, in one thread: a request is served where it is sent."""

    def __init__(self, fs: pocketxfs.FileSystem, **options: object) -> None:
        self.fs = fs
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        for end in (self.ours, theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.said: list[str] = []
        self.session = Session(fs, theirs.fileno(), log=self.said.append, **options)  # type: ignore[arg-type]
        self._unique = 0

    def send(self, raw: bytes) -> bytes | None:
        """Give the session these bytes as a request; its reply, or None."""
        self.ours.send(raw)
        self.session.handle(os.readv(self.session.fd, [self.session._request]))
        try:
            return self.ours.recv(4 << 20)
        except BlockingIOError:
            return None

    def ask(self, opcode: int, nodeid: int = 1, body: bytes = b"", uid: int = 0) -> tuple[int, bytes]:
        """(errno or 0, payload) of a well-formed request."""
        self._unique += 2
        raw = abi.FUSE_IN_HEADER.pack(40 + len(body), opcode, self._unique, nodeid, uid, 0, 1, 0, 0) + body
        reply = self.send(raw)
        assert reply is not None, abi.OPCODE_NAMES.get(opcode)
        length, error, unique = abi.FUSE_OUT_HEADER.unpack_from(reply)
        assert (length, unique) == (len(reply), self._unique)
        assert -512 < error <= 0
        assert error == 0 or len(reply) == 16
        return -error, reply[16:]

    def init(self, minor: int = 45, flags: int = OFFERS) -> bytes:
        """INIT; its reply."""
        error, reply = self.ask(abi.FUSE_INIT, 0, abi.FUSE_INIT_IN_EXT.pack(7, minor, 1 << 17, flags, 0xFFFF))
        assert error == 0
        return reply

    def lookup(self, name: bytes, parent: int = 1) -> int:
        """The nodeid of a name; fails where there is none."""
        error, reply = self.ask(abi.FUSE_LOOKUP, parent, name + b"\0")
        assert error == 0
        nodeid: int = abi.FUSE_ENTRY_OUT.unpack(reply)[0]
        assert nodeid
        return nodeid

    def walk(self, path: bytes) -> int:
        """The nodeid of a path."""
        nodeid = 1
        for name in path.strip(b"/").split(b"/"):
            nodeid = self.lookup(name, nodeid)
        return nodeid

    def close(self) -> None:
        """Both ends."""
        self.session.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A V5 image with everything small in it, made by the kernel."""
    path = tmp_path_factory.mktemp("golden") / "v5.img"
    data = lzma.decompress((IMAGES / "golden-v5.img.xz").read_bytes())
    with path.open("wb") as out:
        for at in range(0, len(data), 1 << 16):
            piece = data[at : at + (1 << 16)]
            if piece.count(0) == len(piece):
                out.truncate(at + len(piece))
                out.seek(at + len(piece))
            else:
                out.write(piece)
    return path


@pytest.fixture
def wire(golden: Path) -> Iterator[Wire]:
    """A session that has been through INIT."""
    with pocketxfs.open(golden) as fs:
        wire = Wire(fs)
        wire.init()
        yield wire
        wire.close()
