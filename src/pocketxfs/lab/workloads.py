"""What a filesystem is asked to do: live workloads, each a generator that yields after every step.

Steps are small (a directory, a file, a lookup), so that a sampler between them sees the memory as it changes.  All are
seeded.  Tasks that run "at once" are generators taken in turn: each holds, between its steps, the buffers that the
kernel's would hold while it waits for I/O.  Ready for writing: copy-in and untar are two more functions.

Limits: reading only, as pocketxfs is; one thread, so what overlaps is the holding, not the work.  Workloads that choose
at random choose among the first `MOST_ENTRIES` entries, so that what they know of a filesystem is bounded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from itertools import islice
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

from ..btree import AgBtree, bnobt, cntbt, inobt, rmapbt
from ..btree.ags import AGF_OPS, AGI_OPS
from ..format import ag, da
from ..format.dir import dir_hash
from ..inode.incore import INODE_OPS
from ..namespace import attributes, directory

if TYPE_CHECKING:
    from ..filesystem import DirEntry, FileSystem
    from ..inode import Inode

Steps = Generator[None, None, None]

#: File data that a reader takes at once.
STAGING_BYTES = 1 << 16
LOOKUPS, ATTRIBUTE_READS, READERS, READER_PATHS = 4000, 600, 8, 300
MIXED_STEPS, MIXED_TASKS = 6000, 24
MOST_ENTRIES, MOST_ATTRIBUTES = 50_000, 64


class Workload(NamedTuple):
    """`images`: the bundled ones that it runs on by default.  `run(fs, rng, size)`: its steps; `size` scales them."""

    name: str
    about: str
    images: tuple[str, ...]
    run: Callable[[FileSystem, random.Random, float], Steps]


def walk_tree(fs: FileSystem, top: str = "/") -> Iterator[DirEntry]:
    """Every entry below `top`, depth first."""
    left = [top]
    while left:
        with fs.scandir(left.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)


def _choice(fs: FileSystem) -> Iterator[DirEntry]:
    """What random workloads choose from."""
    return islice(walk_tree(fs), MOST_ENTRIES)


def _attributes(fs: FileSystem, inode: Inode) -> list[tuple[int, bytes]]:
    """(inode, name) of an inode's first attributes."""
    return [(inode.ino, name) for name, _ in islice(fs.xattrs(inode), MOST_ATTRIBUTES)]


# -- one after the other ---------------------------------------------------------------------------------------


def mount(fs: FileSystem, rng: random.Random, size: float) -> Steps:
    """What a mount and a df do: the superblocks, every AG's headers, the root."""
    fs.info()
    yield
    fs.statvfs()
    yield
    fs.listdir("/")
    yield


def walk(fs: FileSystem, rng: random.Random, size: float) -> Steps:
    """`ls -lR`: every entry, with its inode and the names of its attributes."""
    for entry in walk_tree(fs):
        entry.stat(follow_symlinks=False)
        for _ in fs.xattrs(entry.load()):
            pass
        yield


def copy_out(fs: FileSystem, rng: random.Random, size: float) -> Steps:
    """`cp -r`: every file's data and attributes."""
    with TemporaryFile(buffering=0) as copy:
        for entry in walk_tree(fs):
            inode = entry.load()
            if entry.is_file(follow_symlinks=False):
                copy.truncate(0)
                copy.seek(0)
                fs.copy_to_fd(inode, copy.fileno())
            for name, _ in list(fs.xattrs(inode)):
                fs.xattr(inode, name)
            yield


def lookups(fs: FileSystem, rng: random.Random, size: float) -> Steps:
    """Names looked up at random in every directory, past the cache of names."""
    folders = [fs.resolve("/")] + [e.load() for e in _choice(fs) if e.is_dir(follow_symlinks=False)]
    names = [(folder, _sample_names(fs, folder, rng)) for folder in folders]
    names = [(folder, found) for folder, found in names if found]
    for _ in range(int(LOOKUPS * size)):
        folder, found = rng.choice(names)
        ino = directory.lookup(fs.mount, folder, rng.choice(found))
        fs.mount.inodes.stat(ino)
        yield


def remote_attributes(fs: FileSystem, rng: random.Random, size: float) -> Steps:
    """Attributes read at random: 17 pages for the largest values."""
    owners = []
    for entry in _choice(fs):
        owners += _attributes(fs, entry.load())
    if not owners:
        return
    for _ in range(int(ATTRIBUTE_READS * size)):
        ino, name = rng.choice(owners)
        fs.xattr(fs.trusted_inode(ino), name)
        yield


def recovery(fs: FileSystem, rng: random.Random, size: float) -> Steps:
    """A dirty log, replayed when the filesystem was opened; then a look around."""
    yield from walk(fs, rng, size)


# -- at once ---------------------------------------------------------------------------------------------------


def parallel_readers(fs: FileSystem, rng: random.Random, size: float) -> Steps:
    """Eight readers of files and directories all over the tree, each in an order of its own."""
    paths = [entry.path for entry in _choice(fs)]
    most = min(len(paths), max(1, int(READER_PATHS * size)))
    readers = [_reader(fs, rng.sample(paths, most)) for _ in range(READERS)]
    while readers:
        reader = rng.choice(readers)
        if next(reader, StopIteration) is StopIteration:
            readers.remove(reader)
        yield


def _reader(fs: FileSystem, paths: list[str]) -> Steps:
    staging = memoryview(bytearray(STAGING_BYTES))
    for path in paths:
        inode = fs.resolve(path, follow_symlinks=False)
        yield
        if inode.is_dir:
            for _ in fs.readdir(inode):
                pass
        elif inode.mode >> 12 == 8:
            for offset in range(0, min(inode.size, 8 * STAGING_BYTES), STAGING_BYTES):
                fs.read_inode(inode, offset, staging)
                yield


def mixed(fs: FileSystem, rng: random.Random, size: float, tasks: int = MIXED_TASKS) -> Steps:
    """Operations of all kinds, many at once, each holding what a transaction of the kernel's would hold meanwhile.

    `tasks` of them are under way at any time: lookups that hold their path through the directory, attributes that hold
    their leaf, allocations that hold an AG's headers and its trees' paths, stats that hold their cluster.
    """
    known = _Known(fs, rng)
    running: list[Steps] = []
    try:
        for _ in range(int(MIXED_STEPS * size)):
            while len(running) < tasks:
                running.append(known.task())
            index = rng.randrange(len(running))
            if next(running[index], StopIteration) is StopIteration:
                running.pop(index)
            yield
    finally:
        for task in running:
            task.close()


class _Known:
    """What there is in a filesystem to work on."""

    def __init__(self, fs: FileSystem, rng: random.Random) -> None:
        self.fs, self.rng = fs, rng
        self.folders: list[tuple[int, list[bytes]]] = []
        self.attributes: list[tuple[int, bytes]] = []
        self.files: list[int] = []
        root = fs.resolve("/")
        self._add_folder(root)
        for entry in _choice(fs):
            inode = entry.load()
            if inode.is_dir:
                self._add_folder(inode)
            elif inode.mode >> 12 == 8:
                self.files.append(inode.ino)
                if inode.forkoff:
                    self.attributes += _attributes(fs, inode)
        if len(self.files) > 4000:
            self.files = rng.sample(self.files, 4000)
        self.kinds = [self._lookup, self._lookup, self._stat, self._bmap, self._allocation, self._list]
        if self.attributes:
            self.kinds.append(self._attribute)

    def _add_folder(self, inode: Inode) -> None:
        names = _sample_names(self.fs, inode, self.rng)
        if names:
            self.folders.append((inode.ino, names))

    def task(self) -> Steps:
        """The next operation."""
        return self.rng.choice(self.kinds)()

    def _lookup(self) -> Steps:
        """xfs_lookup within a transaction: every block of the path is held until the inode is there."""
        fs, mount = self.fs, self.fs.mount
        ino, names = self.rng.choice(self.folders)
        folder = mount.inodes.get(ino)
        name = self.rng.choice(names)
        with ExitStack() as held:
            if folder.format != 1:
                for buf in _directory_path(mount, folder, name):
                    held.enter_context(buf)
                    yield
            found = directory.lookup(mount, folder, name)
            yield
            held.enter_context(_cluster(fs, found))
            yield

    def _stat(self) -> Steps:
        with _cluster(self.fs, self.rng.choice(self.files)):
            yield

    def _bmap(self) -> Steps:
        """The extents of a file; a walk holds one block of each level."""
        inode = self.fs.trusted_inode(self.rng.choice(self.files))
        if inode.size:
            for _, _ in zip(self.fs.map(inode, 0, inode.size), range(64), strict=False):
                pass
        yield

    def _attribute(self) -> Steps:
        """A value is read while the leaf that names it is held."""
        mount = self.fs.mount
        ino, name = self.rng.choice(self.attributes)
        inode = mount.inodes.get(ino)
        with ExitStack() as held:
            if inode.aformat != 1:
                held.enter_context(attributes.read_block(mount, inode, 0))
                yield
            attributes.get(mount, inode, name)
            yield

    def _allocation(self) -> Steps:
        """What a transaction that allocates holds until it commits: AGF, AGI, and a path through each tree."""
        mount, rng = self.fs.mount, self.rng
        cache, geo = mount.cache, mount.geo
        agno = rng.randrange(geo.ag_count)
        with ExitStack() as held:
            for sector, ops in ((ag.AGF_SECTOR, AGF_OPS), (ag.AGI_SECTOR, AGI_OPS)):
                held.enter_context(cache.read(ag.header_daddr(geo, agno, sector), geo.sector_bytes, ops))
                yield
            for tree in self._trees(agno):
                walk = tree.leaves()
                held.callback(walk.close)
                for _, _ in zip(walk, range(1 + rng.randrange(3)), strict=False):
                    yield

    def _trees(self, agno: int) -> list[AgBtree]:
        cache = self.fs.mount.cache
        trees = [bnobt(cache, agno), cntbt(cache, agno), inobt(cache, agno)]
        return trees + [rmapbt(cache, agno)] if self.fs.geo.has_rmapbt else trees

    def _list(self) -> Steps:
        """A readdir that stops and goes on."""
        folder = self.fs.trusted_inode(self.rng.choice(self.folders)[0])
        for index, _ in enumerate(self.fs.readdir(folder)):
            if index % 500 == 0:
                yield


def _sample_names(fs: FileSystem, folder: Inode, rng: random.Random, most: int = 200) -> list[bytes]:
    """Some of a directory's names, alike at random, in bounded memory."""
    kept: list[bytes] = []
    for index, item in enumerate(fs.readdir(folder)):
        if item[0] in (b".", b".."):
            continue
        if len(kept) < most:
            kept.append(item[0])
        elif (place := rng.randrange(index + 1)) < most:
            kept[place] = item[0]
    return kept


def _directory_path(mount: Any, folder: Inode, name: bytes) -> Iterator[Any]:
    """The blocks that a lookup by hash goes through, each held: node and leaf, or a block-form directory's one.

    They are read as a transaction reads them (a create, a rename): reclaim must not re-enter the filesystem meanwhile.
    """
    geo, transaction = mount.geo, mount.machine.fs_region("transaction")
    if folder.size == geo.dir_block_bytes:
        with transaction:
            buf = directory.read_block(mount, folder, 0, directory.DATA_OPS)
        yield buf
        return
    wanted = dir_hash(name, geo)
    fsb = geo.dir_leaf_fsb
    for _ in range(da.MAX_DEPTH + 1):
        with transaction:
            buf = directory.read_block(mount, folder, fsb, directory.DA_OPS)
        yield buf
        head = da.header(buf, geo)
        if head.magic not in da.NODE_MAGICS:
            return
        index = da.lower_bound(buf, head.first_entry, head.nentries, wanted)
        if index == head.nentries:
            return
        fsb = da.pair(buf, head.first_entry, index)[1]


def _cluster(fs: FileSystem, ino: int) -> Any:
    """The inode's cluster buffer, held."""
    geo = fs.geo
    return fs.mount.cache.read(geo.inode_place(ino)[0], geo.cluster_bytes, INODE_OPS)


_DIRS = ("dir-4k", "dir-16k", "dir-64k")
WORKLOADS: dict[str, Workload] = {
    one.name: one
    for one in (
        Workload("mount", "open, df, list the root", ("dir-4k",), mount),
        Workload("walk", "ls -lR with attributes' names", _DIRS, walk),
        Workload("copy-out", "cp -r with attributes", ("dir-4k",), copy_out),
        Workload("readers", "eight readers all over the tree at once", ("dir-4k", "dir-64k"), parallel_readers),
        Workload("lookup", "names looked up at random", _DIRS, lookups),
        Workload("xattr", "remote attributes read at random", ("dir-4k",), remote_attributes),
        Workload("recovery", "a dirty log replayed, then ls -lR", ("dirty",), recovery),
        Workload("mixed", "all of it, many operations holding their buffers at once", ("dir-4k", "dir-64k"), mixed),
    )
}
