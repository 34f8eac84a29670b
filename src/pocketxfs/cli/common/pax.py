"""A streaming PAX archive (POSIX.1-2001), as GNU tar and bsdtar read it.

Each member has an extended header with its times in nanoseconds and whatever the ustar header has no room for:
long or non-ASCII names, large numbers, attributes (`SCHILY.xattr.*`), ACLs (`SCHILY.acl.access`, `.default`), and for
files with holes GNU's sparse format 1.0 (the map before the data).  Nothing is kept of a member once it is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import adler32

from .output import Writer

BLOCK = 512
#: tar writes whole records of twenty blocks.
RECORD = 20 * BLOCK
REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

#: The largest numbers of a header's fields.
_MOST_7, _MOST_11 = 8**7 - 1, 8**11 - 1
_NO_NAMES = bytes(64)


class Member:
    """What the headers of one member say."""

    __slots__ = (
        "atime_ns", "ctime_ns", "gid", "kind", "linkname", "major", "minor", "mode", "mtime_ns", "name", "records",
        "size", "uid",
    )  # fmt: skip

    def __init__(self, name: bytes, kind: bytes) -> None:
        self.name, self.kind = name, kind
        self.linkname = b""
        self.mode = self.uid = self.gid = self.size = self.major = self.minor = 0
        self.mtime_ns = 0
        self.atime_ns: int | None = None
        self.ctime_ns: int | None = None
        #: Further records of the extended header.
        self.records: list[tuple[bytes, bytes]] = []


def record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, LENGTH counting itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) + rest != length:
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def decimal_time(ns: int) -> bytes:
    """Seconds, with nine decimals where there are any."""
    if ns < 0:
        return b"-" + decimal_time(-ns)
    rest = ns % 1000000000
    return b"%d.%09d" % (ns // 1000000000, rest) if rest else b"%d" % (ns // 1000000000)


def padding(nbytes: int) -> int:
    """Zeros up to the next block."""
    return -nbytes % BLOCK


def headers(member: Member) -> bytes:
    """The extended header of a member, and its own."""
    name, linkname = member.name, member.linkname
    records: list[tuple[bytes, bytes]] = []
    binary = False
    for key, value in ((b"path", name), (b"linkpath", linkname)):
        if len(value) > 100 or not value.isascii():
            records.append((key, value))
            binary = binary or not _is_utf8(value)
    for key, number, most in (
        (b"uid", member.uid, _MOST_7),
        (b"gid", member.gid, _MOST_7),
        (b"size", member.size, _MOST_11),
    ):
        if number > most:
            records.append((key, b"%d" % number))
    times = record(b"mtime", decimal_time(member.mtime_ns))
    if member.atime_ns is not None:
        times += record(b"atime", decimal_time(member.atime_ns))
    if member.ctime_ns is not None:
        times += record(b"ctime", decimal_time(member.ctime_ns))
    if binary:
        records.insert(0, (b"hdrcharset", b"BINARY"))
    records += member.records
    body = b"".join([record(key, value) for key, value in records]) + times if records else times
    tail = name[name.rfind(b"/", 0, -1) + 1 :]
    extended = _ustar(b"PaxHeaders/" + tail, 0o644, 0, 0, len(body), 0, b"x", b"", 0, 0)
    own = _ustar(
        name, member.mode & 0o7777, member.uid, member.gid, member.size, member.mtime_ns // 1000000000, member.kind,
        linkname, member.major, member.minor,
    )  # fmt: skip
    return b"".join((extended, body, bytes(-len(body) % BLOCK), own))


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _ustar(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, linkname: bytes,
    major: int, minor: int,
) -> bytes:  # fmt: skip
    """A header block; a number that does not fit is 0 here, and the extended header has it."""
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\x0000%64b%07o\0%07o\0" % (
        name[:100].ljust(100, b"\0"), mode, uid if uid <= _MOST_7 else 0, gid if gid <= _MOST_7 else 0,
        size if size <= _MOST_11 else 0, mtime if 0 <= mtime <= _MOST_11 else 0, kind,
        linkname[:100].ljust(100, b"\0"), _NO_NAMES, major, minor,
    )  # fmt: skip
    # Adler-32's lower half is one more than the sum of the bytes, which never comes near 65521 here
    return b"%b%06o\0 %b" % (head[:148], (adler32(head) & 0xFFFF) - 1, head[156:].ljust(356, b"\0"))


class SparseMap:
    """The map of GNU's sparse format 1.0: how many bytes it takes one pass finds, another writes it."""

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        count = self.data_bytes = 0
        nbytes = 0
        for offset, length in runs:
            count += 1
            self.data_bytes += length
            nbytes += len(b"%d\n%d\n" % (offset, length))
        self.count = count
        nbytes += len(b"%d\n" % count)
        self.map_bytes = nbytes + padding(nbytes)
        self._pad = padding(nbytes)

    @property
    def member_bytes(self) -> int:
        """Size of the member: map and data."""
        return self.map_bytes + self.data_bytes

    def write(self, runs: Iterable[tuple[int, int]], out: Writer) -> None:
        """The map itself."""
        out.write(b"%d\n" % self.count)
        for offset, length in runs:
            out.write(b"%d\n%d\n" % (offset, length))
        out.zeros(self._pad)
