"""The in-core inode, and the cache of them.

`Inode` spreads one decoded core over its slots (kernel: struct xfs_inode, xfs_inode_from_disk) and keeps the literal
area, so that its forks need no buffer.  `InodeCache` finds an inode's cluster from its number, judges it as
xfs_dinode_verify does, and keeps two generations of inodes, charged to the machine at `INODE_CHARGE_BYTES` each and
given back through a shrinker.  One thread at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..buffer import Buffer, BufferCache, BufferOps
from ..errors import Corrupt, NoMemory
from ..format import inode as fmt
from ..format import usual
from ..format.block import Block
from ..format.geometry import Geometry
from ..memory import NOFS, Machine

#: What one in-core inode is charged: the kernel's struct xfs_inode with its VFS inode, rounded.
INODE_CHARGE_BYTES = 1024

S_IFMT, S_IFREG, S_IFDIR, S_IFLNK = fmt.S_IFMT, fmt.S_IFREG, fmt.S_IFDIR, fmt.S_IFLNK
S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK = fmt.S_IFCHR, fmt.S_IFBLK, fmt.S_IFIFO, fmt.S_IFSOCK


def _nothing(_block: Block, _geo: Geometry) -> None:
    """A cluster is judged inode by inode, when one is taken from it."""


INODE_OPS = BufferOps("inode cluster", "inode", 2, _nothing)


class Inode:
    """One inode.  Field names are stat's where stat has one; times raw, see `atime_ns` and its kind."""

    __slots__ = (
        "aformat", "anextents", "atime", "bigtime", "btime", "changecount", "core", "cowextsize", "ctime",
        "data_extents", "extsize", "flags", "flags2", "forkoff", "format", "gen", "geo", "gid", "ino", "literal",
        "mode", "mtime", "nblocks", "nextents", "nlink", "projid", "size", "uid", "version",
    )  # fmt: skip

    geo: Geometry
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    gen: int
    nblocks: int
    flags: int
    flags2: int
    projid: int
    data_extents: list[fmt.Extent] | None

    def __init__(self, geo: Geometry, ino: int, raw: memoryview | bytes) -> None:
        """Decode and judge `raw`, the inode's bytes on disk.  Raises `Corrupt`."""
        core = fmt.decode_core(geo, ino, raw)
        (
            _, self.mode, version, self.format, onlink, self.uid, self.gid, self.nlink, projid, projid_hi, big,
            self.atime, self.mtime, self.ctime, self.size, self.nblocks, self.extsize, self.nextents, self.anextents,
            self.forkoff, self.aformat, _, _, self.flags, self.gen, _, _, self.changecount, _, flags2,
            self.cowextsize, self.btime, _, _,
        ) = core  # fmt: skip
        self.geo, self.ino, self.core, self.version, self.flags2 = geo, ino, core, version, flags2
        if flags2 & fmt.DIFLAG2_NREXT64:
            self.anextents, self.nextents = self.nextents, big
        self.bigtime = flags2 & fmt.DIFLAG2_BIGTIME != 0
        if version == 1:
            self.nlink, projid, projid_hi = onlink, 0, 0
        self.projid = projid | projid_hi << 16 if geo.has_projid32 else projid
        self.literal = bytes(raw[geo.inode_core_bytes :])
        self.data_extents = None

    # -- forks -------------------------------------------------------------------------------------------------

    @property
    def data_fork_bytes(self) -> int:
        """Room of the data fork in the inode."""
        return self.forkoff << 3 if self.forkoff else len(self.literal)

    @property
    def data_fork(self) -> bytes:
        """The data fork as it lies in the inode."""
        return self.literal[: self.data_fork_bytes]

    @property
    def attr_fork(self) -> bytes:
        """The attribute fork as it lies in the inode; empty where there is none."""
        return self.literal[self.forkoff << 3 :] if self.forkoff else b""

    # -- what it is --------------------------------------------------------------------------------------------

    @property
    def kind(self) -> int:
        """S_IFMT bits of the mode."""
        return self.mode & S_IFMT

    @property
    def dtype(self) -> int:
        """DT_* as readdir tells it."""
        return self.mode >> 12 & 0xF

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_realtime(self) -> bool:
        """Whether its data lies on the realtime device."""
        return self.flags & fmt.DIFLAG_REALTIME != 0 and self.mode & S_IFMT == S_IFREG

    @property
    def is_metadata(self) -> bool:
        """Whether it belongs to the metadata directory tree (metadir), which users do not see."""
        return self.flags2 & fmt.DIFLAG2_METADATA != 0

    @property
    def rdev(self) -> int:
        """Device number of a device node, as `os.makedev` gives it."""
        if self.mode & S_IFMT not in (S_IFCHR, S_IFBLK):
            return 0
        raw = int.from_bytes(self.literal[:4], "big")
        return os.makedev(raw >> 18 & 0x3FFF, raw & 0x3FFFF)

    @property
    def atime_ns(self) -> int:
        """Last access, ns since 1970."""
        return fmt.time_ns(self.atime, self.bigtime)

    @property
    def mtime_ns(self) -> int:
        """Last change of the data, ns since 1970."""
        return fmt.time_ns(self.mtime, self.bigtime)

    @property
    def ctime_ns(self) -> int:
        """Last change of the inode, ns since 1970."""
        return fmt.time_ns(self.ctime, self.bigtime)

    @property
    def btime_ns(self) -> int | None:
        """Creation, ns since 1970; V4 does not keep it."""
        return fmt.time_ns(self.btime, self.bigtime) if self.version == 3 else None

    def stat(self) -> os.stat_result:
        """What `os.lstat` would say of it under Linux (`st_dev` is 0)."""
        return fmt.stat_result(self.geo, self.ino, self.core, self.literal)

    def __repr__(self) -> str:
        return f"<Inode {self.ino} gen {self.gen} mode {self.mode:o} size {self.size}>"


class InodeCache:
    """In-core inodes of one filesystem, bounded and charged.  One thread at a time."""

    name = "inode"

    def __init__(self, machine: Machine, cache: BufferCache, geo: Geometry) -> None:
        self.machine, self.cache, self.geo = machine, cache, geo
        self.generation_size = max(16, machine.profile.ram_bytes >> 16)
        self._young: dict[int, Inode] = {}
        self._old: dict[int, Inode] = {}
        self._charged = 0
        self._cluster: Buffer | None = None
        self._data: memoryview | None = None
        self._key = -1
        self._cluster_bytes = geo.cluster_bytes
        #: Inodes of a cluster share the number's high bits: clusters are aligned to their size within the AG.
        self._shift = geo.inopblog + geo.cluster_blocks.bit_length() - 1
        self._mask = (1 << self._shift) - 1
        self._inode_log, self._inode_bytes = geo.inode_log, geo.inode_bytes
        self._usual_stat, self._usual_file = usual.stat_reader(geo), usual.file_reader(geo)
        machine.register_shrinker(self)

    def get(self, ino: int) -> Inode:
        """The inode of a number that comes from the filesystem itself.  Raises `Corrupt`, `NoMemory`, `DeviceError`."""
        inode = self._young.get(ino)
        if inode is not None:
            return inode
        inode = self._old.get(ino) or self.read(ino)
        if len(self._young) >= self.generation_size:
            self._old, self._young = self._young, {}
        if self._charge_one():
            self._young[ino] = inode
        return inode

    def _charge_one(self) -> bool:
        """Charge for the inode about to be kept; False where memory is short, and it is used but not kept."""
        wanted = len(self._young) + len(self._old) + 1
        if wanted > self._charged:
            step = min(32, self.generation_size)
            try:
                self.machine.charge(self.name, step * INODE_CHARGE_BYTES)
            except NoMemory:
                return False
            self._charged += step
        return True

    def read(self, ino: int) -> Inode:
        """Decode an inode from its cluster, without keeping it."""
        return Inode(self.geo, ino, self._raw(ino))

    def core(self, ino: int) -> tuple[fmt.Core, bytes]:
        """The judged core, and of a device node its number's bytes: a listing's way, which builds no in-core inode."""
        raw = self._raw(ino)
        geo = self.geo
        core = fmt.decode_core(geo, ino, raw)
        kind = core[1] >> 12
        if kind == 2 or kind == 6:
            return core, bytes(raw[geo.inode_core_bytes : geo.inode_core_bytes + 4])
        return core, b""

    def stat(self, ino: int) -> os.stat_result:
        """What `Inode.stat` says, straight from the cluster: a walk's way, which builds no in-core inode."""
        if ino >> self._shift != self._key:
            self._take_cluster(ino)
        data = self._data
        if data is not None and self._usual_stat is not None:
            found = self._usual_stat(ino, data, (ino & self._mask) << self._inode_log)
            if found is not None:
                return found
        core, device = self.core(ino)
        return fmt.stat_result(self.geo, ino, core, device)

    def simple_file(self, ino: int) -> tuple[int, int] | None:
        """(size, byte on the device) of a file whose data is one written extent from its start; None for any other.

        Most files are so, and reading one needs no in-core inode.
        """
        if ino >> self._shift != self._key:
            self._take_cluster(ino)
        data = self._data
        if data is None or self._usual_file is None:
            return None
        return self._usual_file(ino, data, (ino & self._mask) << self._inode_log)

    def _raw(self, ino: int) -> memoryview | bytes:
        """The inode's bytes in its cluster; the cluster stays held until another is wanted."""
        if ino >> self._shift != self._key or self._cluster is None:
            self._take_cluster(ino)
        offset = (ino & self._mask) << self._inode_log
        data = self._data
        if data is not None:
            return data[offset : offset + self._inode_bytes]
        assert self._cluster is not None
        return self._cluster.view(offset, self._inode_bytes)

    def _take_cluster(self, ino: int) -> None:
        geo = self.geo
        if not geo.ino_valid(ino):
            raise Corrupt("inode", f"inode {ino}", "number", "one within the filesystem", ino)
        self._drop_cluster()
        cluster = self.cache.read(geo.inode_place(ino)[0], self._cluster_bytes, INODE_OPS)
        self._cluster, self._data, self._key = cluster, cluster.data, ino >> self._shift

    def _drop_cluster(self) -> None:
        cluster, self._cluster, self._data, self._key = self._cluster, None, None, -1
        if cluster is not None:
            cluster.release()

    def readahead(self, inos: Iterable[int]) -> None:
        """Ask for the clusters of inodes that are about to be read; never waits."""
        last = -1
        for ino in inos:
            if self.geo.ino_valid(ino):
                daddr, _ = self.geo.inode_place(ino)
                if daddr != last:
                    self.cache.readahead(daddr, self._cluster_bytes, INODE_OPS)
                    last = daddr

    # -- reclaim -----------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Bytes that could be given back now."""
        return self._charged * INODE_CHARGE_BYTES

    def scan(self, nbytes: int, scope: object = None) -> int:
        """Forget inodes: the old generation, and the young one too where that does not do.  None inside NOFS."""
        if isinstance(scope, int) and scope >= NOFS:
            return 0
        self._drop_cluster()
        self._old = {}
        if nbytes > (self._charged - len(self._young)) * INODE_CHARGE_BYTES:
            self._young = {}
        keep = len(self._young)
        freed = (self._charged - keep) * INODE_CHARGE_BYTES
        self._charged = keep
        if freed:
            self.machine.uncharge(self.name, freed)
        return freed

    def owners(self) -> Iterable[tuple[str, int]]:
        """Who holds what, for the out-of-memory report."""
        return [(self.name, self._charged * INODE_CHARGE_BYTES)]

    def drop_all(self) -> None:
        """Forget everything."""
        self.scan(1 << 62)
