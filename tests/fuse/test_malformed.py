"""No request takes a session down: a malformed one gets an error for a reply, or is dropped; a good one still works."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pocketxfs
from pocketxfs.fuse import abi
from pocketxfs.fuse.session import REQUEST_BYTES

from .conftest import Wire

OPCODES = sorted(abi.OPCODE_NAMES)
#: DESTROY ends a session, as it should.
HARMLESS = [opcode for opcode in OPCODES if opcode != abi.FUSE_DESTROY]
BODIES: dict[int, bytes] = {
    abi.FUSE_LOOKUP: b"directories\0",
    abi.FUSE_FORGET: abi.FUSE_FORGET_IN.pack(1),
    abi.FUSE_BATCH_FORGET: abi.FUSE_BATCH_FORGET_IN.pack(1, 0) + abi.FUSE_FORGET_ONE.pack(5, 1),
    abi.FUSE_GETATTR: bytes(16),
    abi.FUSE_OPEN: bytes(8),
    abi.FUSE_OPENDIR: bytes(8),
    abi.FUSE_READ: abi.FUSE_READ_IN.pack(0, 0, 4096, 0, 0, 0, 0),
    abi.FUSE_READDIR: abi.FUSE_READ_IN.pack(0, 0, 4096, 0, 0, 0, 0),
    abi.FUSE_READDIRPLUS: abi.FUSE_READ_IN.pack(0, 0, 4096, 0, 0, 0, 0),
    abi.FUSE_GETXATTR: abi.FUSE_GETXATTR_IN.pack(4096, 0) + b"user.name\0",
    abi.FUSE_LISTXATTR: abi.FUSE_GETXATTR_IN.pack(4096, 0),
    abi.FUSE_ACCESS: bytes(8),
    abi.FUSE_IOCTL: abi.FUSE_IOCTL_IN.pack(0, 0, 0x80086601, 0, 0, 8),
    abi.FUSE_LSEEK: abi.FUSE_LSEEK_IN.pack(0, 0, 3, 0),
    abi.FUSE_STATX: abi.FUSE_STATX_IN.pack(0, 0, 0, 0, 0xFFF),
    abi.FUSE_INTERRUPT: struct.pack("=Q", 2),
}


def check_reply(raw: bytes, reply: bytes | None) -> None:
    """A reply, where there is one, is a whole one, to this request."""
    if reply is None:
        return
    length, error, unique = abi.FUSE_OUT_HEADER.unpack_from(reply)
    assert length == len(reply)
    assert unique == struct.unpack_from("=Q", raw, 8)[0] != 0
    assert -512 < error <= 0


def alive(wire: Wire) -> None:
    """A good request is answered as before."""
    assert not wire.session.ended
    assert wire.ask(abi.FUSE_GETATTR, 1, bytes(16))[0] == 0


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """From nearly right to anything at all."""
    opcode = draw(
        st.sampled_from(HARMLESS) | st.integers(0, (1 << 32) - 1).filter(lambda value: value != abi.FUSE_DESTROY)
    )
    body = draw(st.just(BODIES.get(opcode, b"")) | st.binary(max_size=200))
    for _ in range(draw(st.integers(0, 3))):
        if body:
            at = draw(st.integers(0, len(body) - 1))
            body = body[:at] + draw(st.binary(max_size=9)) + body[at + draw(st.integers(0, 9)) :]
    length = 40 + len(body) if draw(st.booleans()) else draw(st.integers(0, (1 << 32) - 1))
    extensions = draw(st.just(0) | st.integers(0, 0xFFFF))
    nodeid = draw(st.sampled_from((0, 1, 128, 131, 200, 32768)) | st.integers(0, (1 << 64) - 1))
    raw = abi.FUSE_IN_HEADER.pack(length, opcode, draw(st.integers(0, (1 << 64) - 1)), nodeid, 0, 0, 1, extensions, 0)
    return (raw + body)[: draw(st.just(1 << 20) | st.integers(1, 250))]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=requests())
def test_requests_of_any_shape(wire: Wire, raw: bytes) -> None:
    check_reply(raw, wire.send(raw))
    alive(wire)


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_malformed_requests(golden: Path, seed: int) -> None:
    """Mutations of good requests, random bytes, wrong lengths: 2,500 a seed."""
    rng = random.Random(seed)
    with pocketxfs.open(golden, memory="4M") as fs:
        wire = Wire(fs)
        wire.init()
        inodes = [
            fs.lstat(path).st_ino for path in ("/directories/node", "/acls/access", "/special/symlink-1", "/flags/sync")
        ]
        for number in range(2500):
            opcode = rng.choice(HARMLESS)
            body = bytearray(BODIES.get(opcode, rng.randbytes(rng.randrange(100))))
            length = 40 + len(body)
            unique = rng.choice((number + 1, 0, rng.getrandbits(64)))
            nodeid = rng.choice((1, rng.choice(inodes), rng.getrandbits(64), rng.randrange(1 << 20)))
            kind = rng.randrange(6)
            if kind == 0:
                length = rng.choice((0, 39, length - 1, length + 1, 0xFFFFFFFF, rng.getrandbits(32)))
            elif kind == 1 and body:
                del body[rng.randrange(len(body)) :]
                length = 40 + len(body)
            elif kind == 2:
                for _ in range(rng.randrange(1, 8)):
                    if body:
                        body[rng.randrange(len(body))] = rng.randrange(256)
            elif kind == 3:
                opcode = rng.choice((0, 7, 4096, 1 << 20, rng.getrandbits(32)))
            elif kind == 4:
                body += rng.randbytes(rng.randrange(1, REQUEST_BYTES * 2))
                length = 40 + len(body)
            raw = abi.FUSE_IN_HEADER.pack(length, opcode, unique, nodeid, 0, 0, 1, rng.choice((0, 0, 1, 0xFFFF)), 0)
            raw = rng.randbytes(rng.randrange(1, 300)) if kind == 5 and rng.random() < 0.5 else raw + bytes(body)
            if len(raw) >= 8 and struct.unpack_from("=I", raw, 4)[0] == abi.FUSE_DESTROY:
                continue
            check_reply(raw, wire.send(raw))
        alive(wire)
        assert wire.session.malformed > 100
        assert not [line for line in wire.said if "Traceback" in line]
        wire.close()
