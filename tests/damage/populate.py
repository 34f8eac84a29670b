"""Fill a mounted filesystem with a few of everything:  python3 populate.py MOUNTPOINT

Standard library only: it also runs inside user-mode Linux.  What a filesystem cannot do (reflink on V4) is left out.
"""

from __future__ import annotations

import contextlib
import os
import random
import stat
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "judge"))

from lowlevel import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, clone_range, fallocate  # noqa: E402

NOBODY = 0xFFFFFFFF


def put(path: str, data: bytes = b"") -> None:
    """Make a file."""
    with open(path, "wb") as out:
        out.write(data)


def pattern(nbytes: int, seed: int) -> bytes:
    """Bytes without a pattern."""
    return random.Random(seed).randbytes(nbytes)


def names(directory: str, count: int, form: str) -> None:
    """A directory of many links to three files."""
    os.makedirs(directory, exist_ok=True)
    for index in range(count):
        if index < 3:
            put(f"{directory}/{form.format(index)}", form.encode())
        else:
            os.link(f"{directory}/{form.format(index % 3)}", f"{directory}/{form.format(index)}")


def every_other(path: str, bsize: int, extents: int) -> None:
    """As many extents as blocks; every tenth is written."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for index in range(extents):
        fallocate(fd, 0, 2 * index * bsize, bsize)
    for index in range(0, extents, 10):
        os.pwrite(fd, pattern(bsize, index), 2 * index * bsize)
    os.fsync(fd)
    os.close(fd)


def share(bsize: int, count: int) -> None:
    """Many shared extents: a refcount B+tree with something in it."""
    put("shared", pattern(2 * count * bsize, 5))
    src = os.open("shared", os.O_RDWR)
    os.fsync(src)
    with contextlib.suppress(OSError):
        fd = os.open("sharing", os.O_RDWR | os.O_CREAT)
        for index in range(count):
            clone_range(src, 2 * index * bsize, bsize, fd, 2 * index * bsize)
        clone_range(src, 0, 4 * bsize, fd, 3 * count * bsize)
        os.close(fd)
    os.close(src)


def attributes(bsize: int) -> None:
    """Attribute forks of every form."""
    for label in ("local", "leaf", "node", "remote", "mixed"):
        put(label)
    os.setxattr("local", "user.one", b"1")
    os.setxattr("local", "trusted.two", b"22")
    for index in range(12):
        os.setxattr("leaf", f"user.name-{index}", pattern(bsize // 40, index))
    for index in range(500 if bsize == 512 else max(60, bsize // 24)):
        os.setxattr("node", f"user.name-{index:03d}", pattern(50, index))
    for size in (bsize, 3 * bsize + 5, min(60_000, 11 * bsize)):
        os.setxattr("remote", f"user.size-{size}", pattern(size, size))
    for space in ("user", "trusted", "security"):
        os.setxattr("mixed", f"{space}.same", space.encode())
        os.setxattr("mixed", f"{space}.far", pattern(bsize + 9, len(space)))
    entries = [(0x01, 6, NOBODY), (0x02, 7, 1001), (0x04, 4, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    put("acl")
    os.setxattr("acl", "system.posix_acl_access", acl)
    os.mkdir("acl-dir")
    os.setxattr("acl-dir", "system.posix_acl_default", acl)
    os.mkdir("dir-leaf")
    for index in range(8):
        os.setxattr("dir-leaf", f"user.name-{index}", pattern(bsize // 20, index))


def files(bsize: int) -> None:
    """Data forks of every form, and inodes without one."""
    put("empty")
    put("one", b"x")
    put("blocks", pattern(3 * bsize + 77, 1))
    fd = os.open("holes", os.O_RDWR | os.O_CREAT)
    for at in (5, 40 * bsize, 5 << 30):
        os.pwrite(fd, pattern(100, at % 97), at)
    os.close(fd)
    fd = os.open("unwritten", os.O_RDWR | os.O_CREAT)
    fallocate(fd, 0, 0, 20 * bsize)
    os.pwrite(fd, pattern(bsize, 2), 3 * bsize)
    os.close(fd)
    every_other("extents-8", bsize, 8)
    every_other("extents-60", bsize, 60)
    # more than the root in the inode can hold in one level, where blocks are small
    every_other("extents-many", bsize, 1400 if bsize <= 1024 else 200)
    os.symlink("one", "link")
    os.symlink("t" * 200 + "/" + "u" * 700, "long-link")
    os.symlink("loop-b", "loop-a")
    os.symlink("loop-a", "loop-b")
    os.mkfifo("fifo")
    os.mknod("char", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(8, 1))
    os.mknod("socket", stat.S_IFSOCK | 0o600)


def directories(dirblk: int) -> None:
    """Every form of directory."""
    os.mkdir("empty")
    names("short", 5, "e{}")
    names("block", 16 if dirblk < 4096 else 40, "in a block {:03d}")
    names("leaf", dirblk // 24, "in a leaf {:04d}")
    names("node", dirblk // 8 + 60, "node {:05d}")
    os.makedirs("one/two/three/four")
    put("one/two/three/four/bottom", b"bottom")
    names("holes", dirblk // 16, "removed {:04d}")
    for index, name in enumerate(sorted(os.listdir("holes"))):
        if index % 5:
            os.unlink(f"holes/{name}")


def inodes(bsize: int) -> None:
    """Chunks with few inodes in use, one after another: inode B+trees of two levels where blocks are small."""
    chunks = 70 if bsize <= 1024 else 3
    os.mkdir("keep")
    os.mkdir("chunks")
    for index in range(64 * chunks):
        put(f"chunks/{index}")
    kept: dict[int, str] = {}
    for name in os.listdir("chunks"):
        kept.setdefault(os.stat(f"chunks/{name}").st_ino // 64, name)
    for name in kept.values():
        os.rename(f"chunks/{name}", f"keep/{name}")
    for name in os.listdir("chunks"):
        os.unlink(f"chunks/{name}")


def free_space(bsize: int) -> None:
    """Free extents that do not touch."""
    count = 400 if bsize <= 1024 else 40
    fd = os.open("swiss", os.O_RDWR | os.O_CREAT)
    fallocate(fd, 0, 0, 2 * count * bsize)
    for index in range(count):
        fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, (2 * index + 1) * bsize, bsize)
    os.fsync(fd)
    os.ftruncate(fd, 2 * 30 * bsize)
    os.close(fd)


def apart(bsize: int, dirblk: int) -> None:
    """A directory that grows in turns with a file, so that its blocks lie in pieces; an extent list in a B+tree."""
    os.mkdir("apart")
    fd = os.open("apart-file", os.O_RDWR | os.O_CREAT)
    for index in range(dirblk // 20):
        if index < 3:
            put(f"apart/{index:04d} " + "n" * 60)
        else:
            os.link(f"apart/{index % 3:04d} " + "n" * 60, f"apart/{index:04d} " + "n" * 60)
        if index % 10 == 0:
            os.pwrite(fd, b"x", index * bsize)
            os.fsync(fd)
    os.close(fd)


def main(arguments: list[str]) -> int:
    """The program."""
    top = os.path.abspath(arguments[0])
    os.umask(0o022)
    bsize = os.statvfs(top).f_frsize
    dirblk = int(arguments[1]) if len(arguments) > 1 else 4096
    for label, make, argument in (
        ("free", free_space, bsize), ("files", files, bsize), ("attributes", attributes, bsize),
        ("directories", directories, dirblk), ("inodes", inodes, bsize),
    ):  # fmt: skip
        os.mkdir(os.path.join(top, label))
        os.chdir(os.path.join(top, label))
        make(argument)
        os.chdir("/")
    os.chdir(top)
    apart(bsize, dirblk)
    os.mkdir("share")
    os.chdir("share")
    share(bsize, 100 if bsize <= 1024 else 10)
    os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
