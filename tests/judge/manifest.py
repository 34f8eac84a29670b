"""Write down all that a kernel shows of a mounted filesystem: one JSON line an entry.

    python3 manifest.py MOUNTPOINT OUTPUT

A program of its own, standard library only: it runs on the machine and inside user-mode Linux.  Lines come depth first,
each directory's names in the order of their bytes; the first line is the filesystem's.  OUTPUT ending in .gz is
compressed.  Names are given as Latin-1 text, one character a byte.

Fields: p path; t type; mode uid gid size nlink ino rdev blocks; at mt ct bt in nanoseconds; dt dino as the parent
directory gives them; xattr name to base64; target; sha, see `digest`; ext extent map, see `lowlevel.fiemap`; order a
digest of the directory in reading order; link, on the second and later names of an inode, in place of all that follows
from the inode; xflags projid extsize cowextsize nextents as FSGETXATTR gives them.
Access times are right only if the mount does not change them (`noatime`, better read-only).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, TextIO

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import digest  # noqa: E402
import lowlevel  # noqa: E402

TYPES = {
    stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}  # fmt: skip
STATVFS = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "namemax")
Record = dict[str, Any]


def text(raw: bytes) -> str:
    """Bytes as one character each."""
    return raw.decode("latin-1")


def of_inode(path: bytes, info: os.stat_result) -> Record:
    """What does not depend on the entry's name."""
    record: Record = {
        "t": TYPES[stat.S_IFMT(info.st_mode)], "mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid,
        "gid": info.st_gid, "size": info.st_size, "nlink": info.st_nlink, "ino": info.st_ino, "rdev": info.st_rdev,
        "blocks": info.st_blocks, "at": info.st_atime_ns, "mt": info.st_mtime_ns, "ct": info.st_ctime_ns,
        "bt": lowlevel.birth_ns(path), "xattr": attributes(path),
    }  # fmt: skip
    kind = record["t"]
    if kind == "l":
        record["target"] = text(os.readlink(path))
    elif kind in "fd":
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            record.update(lowlevel.get_flags(fd)._asdict())
            if kind == "d":
                del record["nextents"]  # of a directory in short form it counts something else
            else:
                record["sha"] = contents(fd, info.st_size)
                record["ext"] = lowlevel.fiemap(fd)
        finally:
            os.close(fd)
    return record


def attributes(path: bytes) -> dict[str, str]:
    """Every extended attribute that the caller may see."""
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return {
        text(os.fsencode(name)): base64.b64encode(os.getxattr(path, name, follow_symlinks=False)).decode()
        for name in names
    }


def contents(fd: int, size: int) -> str:
    """The digest of an open file."""

    def pread(nbytes: int, offset: int) -> bytes:
        return os.pread(fd, nbytes, offset)

    if size <= digest.WHOLE_BELOW:
        return digest.digest(size, pread, iter([(0, size)]))
    parts = digest.segments(size, lambda at: os.lseek(fd, at, os.SEEK_DATA), lambda at: os.lseek(fd, at, os.SEEK_HOLE))
    return digest.digest(size, pread, parts)


def walk(top: bytes) -> Iterator[Record]:
    """Every entry below `top`, and `top` itself as "."."""
    linked: set[int] = set()

    def entry(path: bytes, shown: bytes, dtype: int, dino: int) -> Iterator[Record]:
        if dino in linked:
            yield {"p": text(shown), "dt": dtype, "dino": dino, "link": 1}
            return
        info = os.lstat(path)
        record = of_inode(path, info)
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            linked.add(info.st_ino)
        if not stat.S_ISDIR(info.st_mode):
            yield {"p": text(shown), "dt": dtype, "dino": dino, **record}
            return
        order = hashlib.sha256()
        children = []
        for name, ino, child_type in lowlevel.raw_directory(path):
            order.update(b"%s\0%d,%d\0" % (name, ino, child_type))
            if name not in (b".", b".."):
                children.append((name, ino, child_type))
        children.sort()
        record["order"] = order.hexdigest()
        yield {"p": text(shown), "dt": dtype, "dino": dino, **record}
        for name, ino, child_type in children:
            below = name if shown == b"." else shown + b"/" + name
            yield from entry(path + b"/" + name, below, child_type, ino)

    yield from entry(top, b".", 4, os.lstat(top).st_ino)


def filesystem(top: bytes) -> Record:
    """The first line: what statvfs shows."""
    lowlevel.read_ag_headers(top)
    now = os.statvfs(top)
    return {"statvfs": {name: getattr(now, "f_" + name) for name in STATVFS}}


def write(top: bytes, out: TextIO) -> int:
    """Write the manifest; the number of entries."""
    out.write(json.dumps(filesystem(top)) + "\n")
    count = 0
    for record in walk(top):
        out.write(json.dumps(record) + "\n")
        count += 1
    return count


def main(arguments: list[str]) -> int:
    """The program."""
    sys.setrecursionlimit(20000)
    top, output = os.fsencode(arguments[0]), arguments[1]
    if output.endswith(".gz"):
        with gzip.open(output, "wt", compresslevel=1) as packed:
            write(top, packed)
    else:
        with open(output, "w") as plain:
            write(top, plain)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
