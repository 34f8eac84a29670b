"""Read everything that an open filesystem shows, and note what came out.

`inode_record` is about one inode and reads only what belongs to it; `survey` walks by path and takes the record of
each inode once.  Only `OSError` with an errno counts as an answer: everything else leaves `survey` as it came.
Whatever the library gives without end is stopped here: `Unbounded`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from pocketxfs.filesystem import FileSystem
from pocketxfs.format.inode import S_IFDIR, S_IFLNK, S_IFREG
from pocketxfs.inode import Inode
from pocketxfs.inode.extents import extents_of

#: No image of this campaign has so many of anything.
MOST = 200_000
MOST_DIRECTORIES = 3_000
#: Names of a directory looked up, values of attributes read, pieces of a file read.
LOOKUPS, VALUES, PIECES = 24, 8, 6
PIECE_BYTES = 4096
WHOLE_FILE_BYTES = 16_384

Record = tuple[Any, ...]


class Unbounded(AssertionError):
    """More came out than the image can hold."""


class Survey(NamedTuple):
    """What was seen: each inode's record, what belongs to no inode, and how many errors there were."""

    inodes: dict[int, Record]
    whole: dict[str, Any]
    errors: int


class _Guard:
    """Turns an `OSError` into a value, and counts."""

    __slots__ = ("errors",)

    def __init__(self) -> None:
        self.errors = 0

    def __call__(self, call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        try:
            return call(*arguments, **more)
        except OSError as error:
            if error.errno is None:
                raise AssertionError(f"{type(error).__name__} without an errno: {error}") from error
            str(error)
            self.errors += 1
            return ("!", type(error).__name__)


def taken(items: Iterable[Any], most: int = MOST) -> list[Any]:
    """All items, if there are not too many."""
    found = list(islice(items, most + 1))
    if len(found) > most:
        raise Unbounded(f"more than {most} items")
    return found


def _spread(items: list[Any], count: int) -> list[Any]:
    if len(items) <= count:
        return items
    step = (len(items) - 1) / (count - 1)
    return [items[round(index * step)] for index in range(count)]


def inode_record(fs: FileSystem, inode: Inode, guard: _Guard) -> Record:
    """What one inode shows.  Equal for equal inodes of one image, damaged elsewhere or not."""
    kind = inode.kind
    stat = inode.stat()
    if stat.st_blocks >> 63 or stat.st_size >> 63:
        raise Unbounded(f"a stat that no kernel could give: {stat}")
    parts: list[Any] = [
        tuple(stat),
        inode.gen,
        inode.projid,
        inode.flags,
        inode.flags2,
        inode.btime_ns,
        inode.rdev,
    ]
    if kind == S_IFDIR:
        parts.append(guard(_directory, fs, inode))
        entries = parts[-1]
        if entries and entries[0] != "!":
            names = [entry[0] for entry in _spread(entries, LOOKUPS)]
            parts.append([guard(fs.lookup, inode, name) for name in names])
            parts.append(guard(fs.lookup, inode, names[-1] + b" not there"))
            middle = entries[len(entries) // 2]
            parts.append(guard(lambda: taken(fs.readdir(inode, middle[3]))[:3]))
    elif kind == S_IFREG:
        parts.append(guard(_contents, fs, inode, guard))
    elif kind == S_IFLNK:
        target = guard(fs.readlink_inode, inode)
        if len(target) > 1024:
            raise Unbounded(f"a symlink of {len(target)} bytes")
        parts.append(target)
    parts.append(guard(lambda: taken(extents_of(fs.mount, inode))))
    parts.append(guard(lambda: taken(extents_of(fs.mount, inode, True))))
    attributes = guard(lambda: taken(fs.xattrs(inode)))
    parts.append(attributes)
    if attributes and attributes[0] != "!":
        for name, nbytes in _spread(attributes, VALUES):
            value = guard(fs.xattr, inode, name)
            if isinstance(value, bytes):
                if len(value) > 100_000:
                    raise Unbounded(f"an attribute of {len(value)} bytes")
                value = (nbytes, len(value), zlib.crc32(value))
            parts.append(value)
    guard(fs.xattr, inode, b"user.not there")
    guard(fs.xattr, inode, b"system.posix_acl_access")
    if fs.geo.has_parent:
        parts.append(guard(fs.parents, inode))
    return tuple(parts)


def _directory(fs: FileSystem, inode: Inode) -> list[Any]:
    return taken(fs.readdir(inode))


def _contents(fs: FileSystem, inode: Inode, guard: _Guard) -> Record:
    size = inode.size
    pieces = [(m.file_offset, m.nbytes, m.device_offset, m.state) for m in taken(fs.map(inode, 0, size))]
    parts: list[Any] = [tuple(pieces)]
    held = bytearray(PIECE_BYTES)
    with memoryview(held) as view:
        for offset, nbytes, _, _ in [*_spread(pieces, PIECES), (max(0, size - 5), 5, 0, 0)]:
            count = guard(fs.read_inode, inode, offset, view[: min(nbytes, PIECE_BYTES)])
            parts.append((count, zlib.crc32(view[:count])) if isinstance(count, int) else count)
    if size <= WHOLE_FILE_BYTES:
        data = guard(fs.read_inode_bytes, inode)
        if isinstance(data, bytes) and len(data) != size:
            raise AssertionError(f"{len(data)} bytes of a file of {size}")
        parts.append(data)
    elif size >= 1 << 40:  # more than this process may have
        parts.append(guard(fs.read_inode_bytes, inode))
    return tuple(parts)


def survey(fs: FileSystem, inos: Iterable[int] = (), only: frozenset[int] | None = None) -> Survey:
    """Everything that can be reached from the root, and `inos` by number as from outside.

    With `only`, records of those inodes and of ones never heard of; `fs.stat` of the rest, and no second walk.
    """
    guard = _Guard()
    inodes: dict[int, Record] = {}
    root = guard(fs.resolve, b"/")
    if isinstance(root, Inode):
        inodes[root.ino] = inode_record(fs, root, guard) if only is None or root.ino in only else (tuple(root.stat()),)
    todo = [b"/"]
    seen = {fs.root_ino}
    while todo:
        guard(_scan, fs, todo.pop(), guard, inodes, seen, todo, only)
    whole = {
        "statvfs": guard(lambda: tuple(fs.statvfs())),
        "info": guard(lambda: {key: value for key, value in fs.info().items() if key != "truncated"}),
        "handles": {ino: _handle(fs, ino, guard) for ino in inos},
    }
    guard(fs.memory_report)
    if only is None:
        guard(_library_walk, fs)
    return Survey(inodes, whole, guard.errors)


def _handle(fs: FileSystem, ino: int, guard: _Guard) -> Any:
    found = guard(fs.inode, ino)
    return found.gen if isinstance(found, Inode) else found


def _scan(
    fs: FileSystem, path: bytes, guard: _Guard, inodes: dict[int, Record], seen: set[int],
    todo: list[bytes], only: frozenset[int] | None,
) -> None:  # fmt: skip
    with fs.scandir(path) as entries:
        for entry in entries:
            ino = entry.inode()
            if ino in seen:
                continue
            seen.add(ino)
            if len(seen) > MOST_DIRECTORIES:
                raise Unbounded("more inodes than the image has")
            if only is not None and ino not in only:
                found = guard(entry.stat, follow_symlinks=False)
                inodes[ino] = (tuple(found),) if isinstance(found, os.stat_result) else found
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                continue
            guard(_entry, fs, entry)
            inode = guard(entry.load)
            if not isinstance(inode, Inode):
                inodes[ino] = inode
                continue
            inodes[ino] = inode_record(fs, inode, guard)
            if inode.is_dir:
                todo.append(entry.path)


def _entry(fs: FileSystem, entry: Any) -> None:
    """The calls shaped as those of `os`."""
    entry.stat(follow_symlinks=False)
    if entry.is_symlink():
        try:
            entry.stat()
            fs.stat(entry.path)
        except FileNotFoundError:
            pass
    elif entry.is_file():
        size = entry.stat().st_size
        if size <= WHOLE_FILE_BYTES:
            fs.read_bytes(entry)
        with fs.open(entry.path, "rb") as source:
            source.read(100)
        if size:
            fs.seek_hole(entry.path, 0)
    elif entry.is_dir():
        fs.stat(entry.path)
    os.fsdecode(entry.name)


def _library_walk(fs: FileSystem) -> None:
    errors: list[OSError] = []
    for count, (_, folders, files) in enumerate(fs.walk(b"/", onerror=errors.append)):
        if count > MOST_DIRECTORIES or len(folders) + len(files) > MOST:
            raise Unbounded("a walk without end")
    for error in islice(errors, 10):
        if error.errno is None:
            raise AssertionError(f"{type(error).__name__} without an errno") from error
