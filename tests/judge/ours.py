"""What pocketxfs shows of a filesystem, in the form of `manifest`, through the public interface only.

Each entry is asked for in more than one way (as the directory gives it, by its path; a small file read whole and in
pieces), and the ways must agree.  What cannot be read becomes a record with `error`, and the rest goes on.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import traceback
from collections.abc import Iterator
from typing import Any

import pocketxfs

from . import digest
from .kernel import Built
from .lowlevel import FIEMAP_SHARED, FIEMAP_UNWRITTEN, join
from .manifest import TYPES, Record, text

#: In a directory of more names only every so-manieth is looked up by path too, and read by its entry.
LOOKUPS = 150
SMALL = 1 << 20


def opened(built: Built, **options: Any) -> pocketxfs.FileSystem:
    """Open a filesystem of the cache."""
    devices = {"logdev": built.log, "rtdev": built.rt}
    return pocketxfs.open(
        built.image, norecovery=built.recipe.dirty, **{name: path for name, path in devices.items() if path}, **options
    )


def of_inode(fs: pocketxfs.FileSystem, path: bytes, info: os.stat_result) -> Record:
    """What does not depend on the entry's name."""
    inode = fs.inode(info.st_ino)
    record: Record = {
        "t": TYPES[stat.S_IFMT(info.st_mode)], "mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid,
        "gid": info.st_gid, "size": info.st_size, "nlink": info.st_nlink, "ino": info.st_ino, "rdev": info.st_rdev,
        "blocks": info.st_blocks, "at": info.st_atime_ns, "mt": info.st_mtime_ns, "ct": info.st_ctime_ns,
        "bt": inode.btime_ns, "xattr": attributes(fs, path),
    }  # fmt: skip
    if record["t"] == "l":
        record["target"] = text(fs.readlink(path))
    elif record["t"] in "fd":
        record.update(flags(inode))
        if record["t"] == "f":
            record["ext"] = extents(fs, path)
            record["sha"] = contents(fs, path, info.st_size)
    return record


def flags(inode: Any) -> Record:
    """As FS_IOC_FSGETXATTR gives them."""
    from pocketxfs.fuse.ioctl import xflags

    found = xflags(inode)
    block = inode.geo.block_bytes
    record = {
        "xflags": found,
        "projid": inode.projid,
        "extsize": inode.extsize * block if found & 0x1800 else 0,
        "cowextsize": inode.cowextsize * block if found & 0x10000 else 0,
    }
    if stat.S_ISREG(inode.mode):
        record["nextents"] = inode.nextents
    return record


def attributes(fs: pocketxfs.FileSystem, path: bytes) -> dict[str, str]:
    """Every extended attribute."""
    found = {}
    for name in fs.listxattr(path, follow_symlinks=False):
        value = fs.getxattr(path, name, follow_symlinks=False)
        found[text(os.fsencode(name))] = base64.b64encode(value).decode()
    return found


def extents(fs: pocketxfs.FileSystem, path: bytes) -> list[list[int]]:
    """As FIEMAP gives them, joined."""
    runs: list[list[int]] = []
    for extent in fs.extents(path):
        if extent.device_offset is not None:
            bits = (FIEMAP_UNWRITTEN if extent.state == "unwritten" else 0) | (FIEMAP_SHARED if extent.shared else 0)
            join(runs, extent.file_offset, extent.device_offset, extent.nbytes, bits)
    return runs


def contents(fs: pocketxfs.FileSystem, path: bytes, size: int) -> str:
    """The digest of a file."""
    with fs.open(path, "rb", buffering=0) as source:

        def pread(nbytes: int, offset: int) -> bytes:
            source.seek(offset)
            pieces = []
            while nbytes:
                data = source.read(nbytes)
                if not data:
                    break
                pieces.append(data)
                nbytes -= len(data)
            return b"".join(pieces)

        if size <= digest.WHOLE_BELOW:
            found = digest.digest(size, pread, iter([(0, size)]))
        else:
            parts = digest.segments(size, lambda at: fs.seek_data(path, at), lambda at: fs.seek_hole(path, at))
            found = digest.digest(size, pread, parts)
    if size <= SMALL:
        whole = fs.read_bytes(path)
        again = digest.digest(size, lambda nbytes, at: whole[at : at + nbytes], iter([(0, size)]))
        if again != found or len(whole) != size:
            raise AssertionError(f"read_bytes and open().read() differ: {path!r}")
    return found


def walk(fs: pocketxfs.FileSystem, lookups: int = LOOKUPS) -> Iterator[Record]:
    """Every entry, depth first, names in the order of their bytes."""
    linked: set[int] = set()

    def entry(path: bytes, shown: bytes, dtype: int, dino: int, look_up: bool) -> Iterator[Record]:
        record: Record = {"p": text(shown), "dt": dtype, "dino": dino}
        children: list[tuple[bytes, int, int]] = []
        try:
            if dino in linked:
                yield {**record, "link": 1}
                return
            info = fs.inode(dino).stat()
            if look_up and fs.lstat(path) != info:
                raise AssertionError(f"lstat by path and by directory differ: {fs.lstat(path)} {info}")
            if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                linked.add(info.st_ino)
            record.update(of_inode(fs, path, info))
            if stat.S_ISDIR(info.st_mode):
                record["order"], children = directory(fs, path, dino, lookups)
        except Exception as error:  # a bug is reported with the entry that shows it, and the rest is compared too
            frame = traceback.extract_tb(error.__traceback__)[-1]
            record["error"] = f"{type(error).__name__}: {error} ({os.path.basename(frame.filename)}:{frame.lineno})"
        yield record
        children.sort()
        every = len(children) // lookups + 1
        for index, (name, ino, child_type) in enumerate(children):
            below = name if shown == b"." else shown + b"/" + name
            yield from entry(b"/" + below, below, child_type, ino, index % every == 0)

    yield from entry(b"/", b".", 4, fs.root_ino, True)


def directory(
    fs: pocketxfs.FileSystem, path: bytes, ino: int, lookups: int
) -> tuple[str, list[tuple[bytes, int, int]]]:
    """(digest in reading order, children); `scandir` must agree with `readdir`."""
    order = hashlib.sha256()
    children = []
    for name, child, dtype, _ in fs.readdir(fs.inode(ino)):
        order.update(b"%s\0%d,%d\0" % (name, child, dtype))
        if name not in (b".", b".."):
            children.append((name, child, dtype))
    count = 0
    with fs.scandir(path) as entries:
        for count, found in enumerate(entries, 1):
            if (found.name, found.inode()) != children[count - 1][:2]:
                raise AssertionError(f"scandir and readdir differ: {found.name!r}")
            if found.is_file(follow_symlinks=False) and count <= lookups:
                inode = fs.inode(found.inode())
                if found.stat() != inode.stat():
                    raise AssertionError(f"scandir's stat and the inode's differ: {found.name!r}")
                if inode.size <= SMALL and fs.read_bytes(found) != fs.read_inode_bytes(inode):
                    raise AssertionError(f"read_bytes of the entry and of the inode differ: {found.name!r}")
    if count != len(children):
        raise AssertionError(f"scandir gives {count} of {len(children)} names")
    return order.hexdigest(), children
