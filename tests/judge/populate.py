"""Fill a mounted filesystem with files of every layout: what the recipes are made of.

    python3 populate.py MOUNTPOINT JSON-LIST-OF-[PART, ARGUMENTS]

A program of its own, standard library only: it runs on the machine and inside user-mode Linux.  Each part makes one
directory named after it.  `dirblk` is the directory block size, `isize` the inode size: the counts at which forms
change depend on them.  All is deterministic but the times that the kernel sets.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import socket
import stat
import struct
import sys
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lowlevel  # noqa: E402
from lowlevel import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, clone_range, fallocate, set_flags  # noqa: E402

Part = Callable[..., None]
PARTS: dict[str, Part] = {}


def part(function: Part) -> Part:
    """Register a part under its function's name."""
    PARTS[function.__name__] = function
    return function


def pattern(nbytes: int, seed: int = 1) -> bytes:
    """Bytes that compress badly and differ everywhere."""
    return random.Random(seed).randbytes(nbytes)


def put(path: str | bytes, data: bytes = b"") -> None:
    """Make a file."""
    with open(path, "wb") as out:
        out.write(data)


@contextlib.contextmanager
def opened(path: str | bytes):  # type: ignore[no-untyped-def]
    """A descriptor, made if need be."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def names(directory: str | bytes, seed: str, count: int, form: str = "{:07d}") -> None:
    """Many names in one directory, cheaply: hard links to a file each thousand names."""
    directory = os.fsencode(directory)
    os.makedirs(directory, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY)
    try:
        for index in range(count):
            name = (seed + form.format(index)).encode()
            if index % 1000 == 0:
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
                first = name
            else:
                os.link(first, name, src_dir_fd=fd, dst_dir_fd=fd)
    finally:
        os.close(fd)


def colliding(length: int, count: int) -> list[bytes]:
    """Names with one directory hash (rol 7, xor a byte): bit 0 of a byte meets bit 7 of the next."""
    found = []
    for bits in range(count):
        raw = bytearray(b"Collide-" + b"Ab" * length)
        for place in range(length):
            if bits >> place & 1:
                raw[8 + 2 * place] ^= 1
                raw[9 + 2 * place] ^= 0x80
        found.append(bytes(raw))
    return found


@part
def files(bsize: int, **_: int) -> None:
    """Sizes about the block, holes, space beyond the end, files beyond 4 GiB."""
    put("empty")
    put("one", b"x")
    for label, size in (("block-1", bsize - 1), ("block", bsize), ("block+1", bsize + 1), ("blocks", 3 * bsize + 77)):
        put(label, pattern(size, size))
    put("mebibyte", pattern(1 << 20))
    with opened("hole-first") as fd:
        os.pwrite(fd, pattern(100), 10 * bsize + 5)
    with opened("hole-between") as fd:
        os.pwrite(fd, pattern(2 * bsize), 0)
        os.pwrite(fd, pattern(2 * bsize + 9), 50 * bsize)
    with opened("hole-last") as fd:
        os.pwrite(fd, pattern(bsize + 3), 0)
        os.ftruncate(fd, 40 * bsize + 1)
    with opened("only-hole") as fd:
        os.ftruncate(fd, 12_345_678)
    with opened("beyond-end") as fd:
        os.pwrite(fd, pattern(bsize // 2), 0)
        fallocate(fd, FALLOC_KEEP_SIZE, 0, 16 * bsize)
    with opened("cut-short") as fd:
        os.pwrite(fd, pattern(9 * bsize), 0)
        os.fsync(fd)
        os.ftruncate(fd, 4 * bsize + 11)
    with opened("five-gib") as fd:
        for at in (0, (4 << 30) - 3, 5 << 30):
            os.pwrite(fd, pattern(5000, at % 97), at)
    with opened("far") as fd:
        os.pwrite(fd, pattern(999), 1 << 43)


@part
def farthest(bsize: int, **_: int) -> None:
    """The last offsets that a file can have."""
    with opened("end-of-offsets") as fd:
        os.pwrite(fd, b"the end", (1 << 63) - 1 - 2 * bsize - 7)
        os.pwrite(fd, b"the beginning", 0)


@part
def unwritten(bsize: int, **_: int) -> None:
    """Allocated and never written: zeros, whatever the disk holds there."""
    with opened("all") as fd:
        fallocate(fd, 0, 0, 32 * bsize)
    with opened("mid-block-end") as fd:
        fallocate(fd, 0, 0, 7 * bsize + 123)
    with opened("islands") as fd:
        fallocate(fd, 0, 0, 64 * bsize)
        for block in range(1, 64, 6):
            os.pwrite(fd, pattern(bsize, block), block * bsize)
    with opened("part-of-block") as fd:
        fallocate(fd, 0, 0, 16 * bsize)
        os.pwrite(fd, b"some bytes", 5 * bsize + bsize // 2)
    with opened("zeroed") as fd:
        os.pwrite(fd, pattern(20 * bsize), 0)
        os.fsync(fd)
        fallocate(fd, FALLOC_ZERO_RANGE, 3 * bsize + 10, 8 * bsize)
    with opened("with-holes") as fd:
        fallocate(fd, 0, 0, 40 * bsize)
        for block in range(0, 40, 5):
            fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, block * bsize, bsize)
        os.pwrite(fd, pattern(2 * bsize), 17 * bsize)
    with opened("beyond-end") as fd:
        os.pwrite(fd, pattern(100), 0)
        fallocate(fd, FALLOC_KEEP_SIZE, bsize, 8 * bsize)


@part
def unwritten_plain(bsize: int, **_: int) -> None:
    """What remains of `unwritten` without FALLOC_ZERO_RANGE and punching (realtime, old kernels)."""
    with opened("all") as fd:
        fallocate(fd, 0, 0, 32 * bsize)
    with opened("islands") as fd:
        fallocate(fd, 0, 0, 64 * bsize)
        for block in range(1, 64, 6):
            os.pwrite(fd, pattern(bsize, block), block * bsize)


def every_other(path: str, bsize: int, extents: int, *, written_every: int = 50) -> None:
    """A file whose every other block is a hole: as many extents as blocks."""
    with opened(path) as fd:
        for index in range(extents):
            fallocate(fd, 0, 2 * index * bsize, bsize)
        for index in range(0, extents, written_every):
            os.pwrite(fd, pattern(bsize, index), 2 * index * bsize)


@part
def fragmented(bsize: int, extents: tuple[int, ...] = (5, 21, 60, 300), **_: int) -> None:
    """Extent lists in the inode and in B+trees; with attributes that take room from the root."""
    for count in extents:
        every_other(f"extents-{count}", bsize, count)
    every_other("with-attributes", bsize, 200)
    os.setxattr("with-attributes", "user.room", pattern(150))
    every_other("attributes-first", bsize, 0)
    os.setxattr("attributes-first", "user.room", pattern(100))
    every_other("attributes-first", bsize, 100)
    with opened("alternating") as fd:
        fallocate(fd, 0, 0, 200 * bsize)
        for block in range(0, 200, 2):
            os.pwrite(fd, pattern(bsize, block), block * bsize)
    with opened("backwards") as fd:
        for block in reversed(range(0, 120, 2)):
            os.pwrite(fd, pattern(bsize, block), block * bsize)
            if block % 20 == 0:
                os.fsync(fd)


@part
def reflinks(bsize: int, **_: int) -> None:
    """Shared extents, and what was written over them since."""
    put("source", pattern(64 * bsize + 500))
    with opened("source") as src:
        os.fsync(src)
        for label in ("whole", "changed", "longer", "again"):
            with opened(label) as fd:
                clone_range(src, 0, 0, fd, 0)
        with opened("range") as fd:
            clone_range(src, 8 * bsize, 16 * bsize, fd, 100 * bsize)
        with opened("interleaved") as fd:
            os.pwrite(fd, pattern(40 * bsize, 3), 0)
            os.fsync(fd)
            for block in range(0, 40, 4):
                clone_range(src, (block + 1) * bsize, 2 * bsize, fd, block * bsize)
    with opened("changed") as fd:
        for block in range(2, 60, 7):
            os.pwrite(fd, pattern(bsize, block), block * bsize)
        os.fsync(fd)
    with opened("longer") as fd:
        os.pwrite(fd, pattern(3 * bsize, 9), 65 * bsize)
    with opened("cow-hint") as fd:
        set_flags(fd, "cowextsize", cowextsize=16 * bsize)
        with opened("source") as src:
            clone_range(src, 0, 0, fd, 0)
        os.pwrite(fd, b"new", 30 * bsize)
    os.unlink("again")


@part
def directories(dirblk: int, isize: int, **_: int) -> None:
    """Every form of directory, full, emptied and in between."""
    os.mkdir("empty")
    names("short-1", "a", 1)
    names("short", "entry", 6, "{}")
    names("short-full", "n", isize // 26, "{:02d}")
    names("block", "in-a-block-", max(30, dirblk // 100))
    names("leaf", "in-a-leaf-", dirblk // 12)
    names("node", "in-a-node-", dirblk // 5)
    names("free-index", "with a rather long name to fill blocks sooner than hashes do, number ", dirblk // 8)
    for form, keep in (("block", 3), ("leaf", 7), ("node", 5), ("node", 400)):
        directory = f"{form}-removed-{keep}"
        names(directory, "entry-", {"block": dirblk // 100, "leaf": dirblk // 12, "node": dirblk // 5}[form])
        for index, name in enumerate(sorted(os.listdir(directory))):
            if index % keep:
                os.unlink(f"{directory}/{name}")
    names("emptied", "entry-", dirblk // 20)
    for name in os.listdir("emptied"):
        os.unlink(f"emptied/{name}")
    names("shrunk", "entry-", dirblk // 20)
    for name in sorted(os.listdir("shrunk"))[3:]:
        os.unlink(f"shrunk/{name}")
    names("refilled", "old-", dirblk // 12)
    for name in sorted(os.listdir("refilled"))[10:-10]:
        os.unlink(f"refilled/{name}")
    names("refilled", "of another length ", dirblk // 20, "{}")
    os.mkdir("types")
    for index in range(dirblk // 64):
        path = f"types/{index}"
        if index % 4 == 0:
            os.mkdir(path)
        elif index % 4 == 1:
            os.symlink("target", path)
        elif index % 4 == 2:
            os.mkfifo(path)
        else:
            put(path)


@part
def collisions(count: int = 600, **_: int) -> None:
    """Names of one hash, more than a leaf block of a small directory holds."""
    os.mkdir("names")
    for name in colliding(10, count):
        put(b"names/" + name)
    os.mkdir("few")
    for name in colliding(3, 8):
        put(b"few/" + name)


@part
def deep(depth: int = 60, **_: int) -> None:
    """Directories in directories."""
    here = os.open(".", os.O_RDONLY)
    for level in range(depth):
        os.mkdir(f"level-{level}", dir_fd=here)
        below = os.open(f"level-{level}", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


@part
def odd_names(**_: int) -> None:
    """Every byte, every length's end, text of several scripts, names that mislead programs."""
    for byte in range(1, 256):
        if byte not in b"/.":
            put(bytes([byte]))
    for raw in (
        b"n" * 255, b"\xff" * 255, b"\xc3\x28", b"caf\xe9", "naïve".encode(), "名前".encode(), b"a\nb", b"...", b"..x",
        b". ", b"-rf", b"--help", b"$(x)", b" leading", b"trailing ", b"a\tb", b"\x1b[31mred",
        b"back\\slash",
        b"qu\"ote'", b"*", b"IMAGE:PATH", b"C:", b"nul",
        "e\u0301".encode(), "\u202eevil".encode(), b"x" * 254, b"\x01\x02",
        b"a" + b"\xed\xa0\x80",
    ):  # fmt: skip
        put(raw, raw)
    os.mkdir(b"\xf0\x28dir")
    put(b"\xf0\x28dir/\xf0\x28file")
    os.symlink(b"\xf0\x28dir/\xf0\x28file", b"\xf0link")


@part
def case_names(**_: int) -> None:
    """For directories that ignore the case of ASCII letters."""
    for name in (b"MixedCase", b"UPPER", b"lower", b"\xc4\xd6", b"N0T-letters_[]"):
        put(name, name)
    names("Block", "Entry-", 60)
    names("Node", "Entry-", 1500)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The VFS form of a POSIX ACL: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF


def wide_acl(users: int) -> bytes:
    """An ACL that names many users."""
    named = [(0x02, 4 | index % 4, 2000 + index) for index in range(users)]
    return acl((0x01, 6, NOBODY), *named, (0x04, 4, NOBODY), (0x08, 5, 777), (0x10, 7, NOBODY), (0x20, 0, NOBODY))


@part
def attributes(bsize: int, **_: int) -> None:
    """Attribute forks of every form, on every type of file, in the three namespaces, and ACLs."""

    def many(path: str, count: int, value: int, form: str = "user.name-{:04d}") -> None:
        for index in range(count):
            os.setxattr(path, form.format(index), pattern(value, index), follow_symlinks=False)

    for label in (
        "short",
        "short-full",
        "leaf",
        "node",
        "removed",
        "remote",
        "empty-value",
        "long-name",
        "sizes",
        "spaces",
    ):
        put(label)
    os.setxattr("short", "user.one", b"1")
    many("short-full", 4, 12)
    many("leaf", 12, 40)
    many("node", max(60, bsize // 20), 60)
    many("removed", max(60, bsize // 20), 60)
    for index in range(max(60, bsize // 20)):
        if index % 3:
            os.removexattr("removed", f"user.name-{index:04d}")
    put("emptied")
    many("emptied", 30, 50)
    for name in os.listxattr("emptied"):
        os.removexattr("emptied", name)
    for size in (1000, 3000, 4000, 4096, 5000, 20_000, 65_535, 65_536):
        os.setxattr("remote", f"user.size-{size}", pattern(size, size))
    os.setxattr("empty-value", "user.nothing", b"")
    os.setxattr("long-name", "user." + "n" * 250, b"the longest name")
    os.setxattr("long-name", b"user." + b"\xff\xc3\x28" * 30, b"not text")
    for size in range(0, 300, 7):
        os.setxattr("sizes", f"user.{size}", pattern(size, size))
    for space in ("user", "trusted", "security"):
        os.setxattr("spaces", f"{space}.same-name", space.encode())
        os.setxattr("spaces", f"{space}.remote", pattern(10_000, len(space)))
    put("collisions")
    for name in colliding(6, 60):
        os.setxattr("collisions", b"user." + name, name[-12:])
    put("replaced")
    for size in (10, 3000, 50, 30_000, 70):
        os.setxattr("replaced", "user.value", pattern(size, size))
    os.mkdir("directory")
    many("directory", 20, 70)
    os.symlink("target", "symlink")
    many("symlink", 20, 70, "trusted.name-{:04d}")
    os.symlink("t" * 900, "long-symlink")
    os.setxattr("long-symlink", "trusted.x", b"y", follow_symlinks=False)
    os.mkfifo("fifo")
    os.setxattr("fifo", "security.label", b"some label\0")
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.setxattr("device", "trusted.remote", pattern(9000))
    put("capable", b"#!/bin/sh\n")
    os.setxattr("capable", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))


@part
def acls(widest: int = 200, **_: int) -> None:
    """POSIX ACLs: access and default, small and wide (V4 allows 25 entries), minimal ones that become a mode."""
    small = acl((0x01, 6, NOBODY), (0x02, 7, 1001), (0x04, 4, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY))
    put("access")
    os.setxattr("access", "system.posix_acl_access", small)
    os.mkdir("default")
    os.setxattr("default", "system.posix_acl_default", small)
    put("default/inherits")
    os.mkdir("default/inherits-too")
    for users in (20, widest):
        put(f"wide-{users}")
        os.setxattr(f"wide-{users}", "system.posix_acl_access", wide_acl(users))
        os.mkdir(f"both-{users}")
        os.setxattr(f"both-{users}", "system.posix_acl_access", wide_acl(users))
        os.setxattr(f"both-{users}", "system.posix_acl_default", wide_acl(users - 5))
    put("only-mode")
    os.setxattr("only-mode", "system.posix_acl_access", acl((0x01, 6, NOBODY), (0x04, 5, NOBODY), (0x20, 1, NOBODY)))
    put("with-user-attributes")
    os.setxattr("with-user-attributes", "system.posix_acl_access", small)
    os.setxattr("with-user-attributes", "user.SGI_ACL_FILE", b"not an ACL")


@part
def special(isize: int, **_: int) -> None:
    """Devices, fifos, sockets, symlinks of every length, hard links, modes and owners."""
    for label, kind in (("char", stat.S_IFCHR), ("block", stat.S_IFBLK)):
        for major, minor in ((0, 0), (1, 3), (255, 255), (511, 262_143)):
            os.mknod(f"{label}-{major}-{minor}", kind | 0o640, os.makedev(major, minor))
    os.mkfifo("fifo")
    os.mknod("socket", stat.S_IFSOCK | 0o755)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener, contextlib.suppress(OSError):
        listener.bind("bound-socket")
    for length in (1, 5, isize - 176 - 1, isize - 176, isize - 176 + 1, isize - 100, isize, 600, 1020, 1023):
        if length < 1024 and not os.path.lexists(f"symlink-{length}"):
            os.symlink("s" * length, f"symlink-{length}")
    os.symlink("../files/one", "symlink")
    os.symlink("nowhere", "dangling")
    os.symlink("loop-b", "loop-a")
    os.symlink("loop-a", "loop-b")
    os.symlink("/", "root")
    os.symlink(b"\xff\xfe", "bytes")
    put("linked", b"linked")
    os.mkdir("links")
    for index in range(40):
        os.link("linked", f"links/{index}")
    os.link("fifo", "fifo-again")
    os.link("dangling", "dangling-again", follow_symlinks=False)
    for mode in (0, 0o777, 0o4755, 0o2755, 0o1777, 0o7777, 0o2644, 0o001):
        put(f"mode-{mode:04o}")
        os.chmod(f"mode-{mode:04o}", mode)
        os.mkdir(f"directory-{mode:04o}")
        os.chmod(f"directory-{mode:04o}", mode)
    for owner in (0, 1, 65_534, 65_536, 2_000_000_000, 0xFFFFFFFE):
        put(f"owner-{owner}")
        os.chown(f"owner-{owner}", owner, 0xFFFFFFFE - owner)


@part
def times(**_: int) -> None:
    """Before 1970, after 2038, at the edges of both encodings; nanoseconds."""
    moments = (
        0, 1, -1, 999_999_999, -(1 << 31) * 10**9, ((1 << 31) - 1) * 10**9 + 999_999_999, (1 << 31) * 10**9 + 5,
        -86_400 * 10**9 - 1, 4_102_444_800 * 10**9 + 123_456_789, 16_299_260_424 * 10**9, 16_299_260_425 * 10**9,
        -2_147_483_649 * 10**9, 1_448_000_000_123_456_789,
    )  # fmt: skip
    for index, moment in enumerate(moments):
        put(f"time-{index}")
        os.utime(f"time-{index}", ns=(moment, moments[-1 - index]))
        os.mkdir(f"directory-{index}")
        os.utime(f"directory-{index}", ns=(moment, moment))
        os.symlink("x", f"symlink-{index}")
        os.utime(f"symlink-{index}", ns=(moment, moment), follow_symlinks=False)


@part
def flags(bsize: int, projid32: int = 1, **_: int) -> None:
    """Inode flags, project ids, allocation hints.  Last, as some of it cannot be changed afterwards."""
    for projid in (0, 1, 65_535, *((65_536, 0xFFFFFFFE) if projid32 else ())):
        put(f"project-{projid}")
        with opened(f"project-{projid}") as fd:
            set_flags(fd, projid=projid)
    for name in ("immutable", "append", "sync", "noatime", "nodump", "nodefrag", "extsize"):
        with opened(name) as fd:
            set_flags(fd, name, extsize=4 * bsize if name == "extsize" else 0)
    for name in ("projinherit", "nosymlinks", "extszinherit", "filestream", "noatime", "immutable"):
        os.mkdir("directory-" + name)
        put(f"directory-{name}/inside")
        fd = os.open("directory-" + name, os.O_RDONLY)
        set_flags(
            fd, name, extsize=4 * bsize if name == "extszinherit" else 0, projid=7 if name == "projinherit" else None
        )
        os.close(fd)
    put("directory-projinherit/inherits")


@part
def sf8(**_: int) -> None:
    """Short-form directories with 8-byte inode numbers: past 2 TiB, directories far from their parents."""
    for index in range(24):
        os.mkdir(f"d{index}")
        os.mkdir(f"d{index}/sub")
        put(f"d{index}/file", pattern(100, index))
        put(f"d{index}/sub/file", pattern(100, index))
    os.mkdir("mixed")
    put("mixed/near")
    for index in range(8):
        os.rename(f"d{index}/file", f"mixed/f{index}")
    os.mkdir("was-mixed")
    for index in range(8, 16):
        os.rename(f"d{index}/file", f"was-mixed/f{index}")
    for name in os.listdir("was-mixed"):
        os.unlink(f"was-mixed/{name}")
    put("was-mixed/near")
    os.mkdir("directories")
    for index in range(16, 24):
        os.rename(f"d{index}/sub", f"directories/s{index}")
    os.mkdir("block")
    for index in range(16, 24):
        os.rename(f"d{index}/file", f"block/a rather long name, so that this is no short form: {index}")


def fill_up(path: str, bsize: int) -> tuple[int, int]:
    """(descriptor, blocks): a file that takes all free space, the filesystem's own reserve too."""
    top = os.open(".", os.O_RDONLY)
    lowlevel.reserve(top, 0)
    os.close(top)
    filler = os.open(path, os.O_RDWR | os.O_CREAT)
    at, step = 0, max(1, os.statvfs(".").f_bavail // 2)
    while step:
        try:
            fallocate(filler, 0, at * bsize, step * bsize)
            at += step
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            step //= 2
    os.fsync(filler)
    return filler, at


@part
def scattered(bsize: int, count: int = 2000, margin: int = 500, **_: int) -> None:
    """Free space in single blocks; what grows then has an extent a block: B+tree forks of directories and attributes,
    directory blocks in pieces."""
    filler, blocks = fill_up("filler", bsize)
    os.ftruncate(filler, (blocks - 40) * bsize)  # room to cut the rest in
    room = min((blocks - 40) // 2, count)
    for index in range(room):
        fallocate(filler, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 2 * index * bsize, bsize)
    os.fsync(filler)
    put("attributes")
    for index in range(20):
        os.setxattr("attributes", f"user.remote-{index}", pattern(min(60_000, 15 * bsize), index))
    put("pieces", pattern(60 * bsize))
    with opened("pieces") as fd:
        os.fsync(fd)
    try:
        names("directory", "a name of some length so that blocks fill fast ", (room - margin) * bsize // 100)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    os.ftruncate(filler, 2 * room * bsize)
    os.close(filler)


@part
def sparse_inodes(bsize: int, count: int = 1200, **_: int) -> None:
    """Inode chunks with holes: made where free space is too short for whole chunks."""
    filler, blocks = fill_up("filler", bsize)
    # gaps that an aligned cluster of inodes fits and an aligned chunk of 64 does not
    for index in range(0, blocks - 16, 16):
        fallocate(filler, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, index * bsize, 7 * bsize)
    os.fsync(filler)
    for index in range(count):
        put(f"file-{index}")
    os.ftruncate(filler, 0)
    os.close(filler)


@part
def freed_inodes(count: int = 400, **_: int) -> None:
    """Inode chunks with free inodes among used ones: the free-inode B+tree has work."""
    for index in range(count):
        put(f"{index:05d}", b"x" * (index % 5))
    for index in range(count):
        if index % 3 == 1:
            os.unlink(f"{index:05d}")


@part
def quotas(**_: int) -> None:
    """Files of several owners and projects."""
    for owner in (0, 1000, 1001, 70_000):
        put(f"owner-{owner}", pattern(10_000, owner))
        os.chown(f"owner-{owner}", owner, owner)


@part
def realtime(bsize: int, **_: int) -> None:
    """Files on the realtime device: by flag, by inheritance; holes and unwritten ranges there."""
    with opened("flagged") as fd:
        set_flags(fd, "realtime")
        os.pwrite(fd, pattern(300_000), 0)
    with opened("ordinary") as fd:
        os.pwrite(fd, pattern(100_000), 0)
    os.mkdir("inherits")
    fd = os.open("inherits", os.O_RDONLY)
    set_flags(fd, "rtinherit")
    os.close(fd)
    put("inherits/file", pattern(123_457))
    put("inherits/empty")
    with opened("inherits/unwritten") as fd:
        fallocate(fd, 0, 0, 400_000)
        os.pwrite(fd, pattern(5000), 100_001)
    with opened("inherits/holes") as fd:
        for block in range(0, 40, 2):
            os.pwrite(fd, pattern(bsize, block), block * 65_536)
    with opened("inherits/many") as fd:
        for block in range(100):
            os.pwrite(fd, pattern(10, block), block * 262_144)


@part
def million(count: int = 1_000_000, **_: int) -> None:
    """One directory of very many names."""
    names("names", "file-", count)


@part
def deep_trees(bsize: int, extents: int, **_: int) -> None:
    """A B+tree of extents of several levels."""
    every_other("extents", bsize, extents, written_every=997)


@part
def tree(count: int, nbytes: int, per_directory: int = 100, **_: int) -> None:
    """A tree of many small files, like a system's: `nbytes` of data over `count` files of very unlike sizes."""
    rng = random.Random(42)
    average = nbytes / count
    block = pattern(1 << 20, 7)
    for first in range(0, count, per_directory):
        directory = f"{first // (per_directory * 50):03d}/{first // per_directory % 50:02d}"
        os.makedirs(directory, exist_ok=True)
        here = os.open(directory, os.O_RDONLY)
        for index in range(first, min(count, first + per_directory)):
            size = min(1 << 20, int(rng.expovariate(1) ** 2 * average / 2))
            fd = os.open(f"file-{index:06d}.txt", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here)
            if size:
                start = rng.randrange((1 << 20) - size + 1)
                os.write(fd, memoryview(block)[start : start + size])
            os.close(fd)
        os.close(here)


def main(arguments: list[str]) -> int:
    """The program."""
    top, parts = os.path.abspath(arguments[0]), json.loads(arguments[1])
    os.umask(0o022)
    bsize = os.statvfs(top).f_frsize
    for name, options in parts:
        directory = os.path.join(top, name)
        os.makedirs(directory, exist_ok=True)
        os.chdir(directory)
        PARTS[name](**{"bsize": bsize, **options})
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
