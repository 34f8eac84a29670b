"""Trees that the kernel made, against the records that xfs_db prints of them.

The images of the first tests are made here, in a few seconds each; those of the last come from the judges' cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import struct
import subprocess

import pytest

from pocketxfs.btree import (
    bmbt,
    bnobt,
    cntbt,
    finobt,
    inobt,
    inode_chunk,
    read_agf,
    read_agfl,
    read_agi,
    refcount_shared,
    refcountbt,
    rmapbt,
)
from pocketxfs.btree.inodes import bmbt_extents
from pocketxfs.buffer import BACKINGS, BufferCache
from pocketxfs.device import open_device
from pocketxfs.errors import Unsupported
from pocketxfs.format import superblock
from pocketxfs.format.geometry import Geometry
from pocketxfs.inode.incore import Inode
from pocketxfs.memory import Machine, profile
from tests.conftest import no_judge
from tests.judge import kernel, recipes

pytestmark = pytest.mark.judged

#: The newest there is: the older one does not know every feature.
XFS_DB = kernel.xfsprogs("xfs_db", "6.1" if kernel.missing("kernel", "next") else "next")
FICLONERANGE = 0x4020940D
MKFS = {
    "1k-everything": "-b size=1024 -d agcount=2 -m rmapbt=1,reflink=1,finobt=1 -i sparse=1",
    "4k-plain": "-b size=4096 -d agcount=3 -m rmapbt=0,reflink=0,finobt=0 -i sparse=0",
    "2k-nrext64": "-b size=2048 -s size=2048 -d agcount=2 -m rmapbt=1,reflink=1,finobt=1 -i nrext64=1,size=1024",
}


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def fill(top, reflink):
    """Fragmented free space, many inode chunks with holes, long extent maps, shared blocks, attributes."""
    bsize = os.statvfs(top).f_bsize
    many = os.path.join(top, "many")
    os.mkdir(many)
    for i in range(6000):
        with open(f"{many}/{i}", "wb") as file:
            file.write(b"x" * (1 + i % 3 * bsize))
    os.sync()
    for i in range(0, 6000, 2):
        os.unlink(f"{many}/{i}")
    for i in range(2001, 2300, 2):  # whole chunks go
        os.unlink(f"{many}/{i}")

    def opened(name):
        return os.open(os.path.join(top, name), os.O_RDWR | os.O_CREAT)

    fd = opened("sparse")
    for i in range(2500):
        os.pwrite(fd, b"y", i * 2 * bsize)
        if i % 100 == 0:
            os.fsync(fd)
    os.close(fd)
    fd = opened("unwritten")
    for i in range(300):
        os.posix_fallocate(fd, i * 3 * bsize, bsize)
    os.close(fd)
    fd = opened("attributes")
    for i in range(500):
        os.setxattr(fd, f"user.{i:04}", os.urandom(100 + i % 700))
    os.close(fd)
    if reflink:
        source, target = opened("source"), opened("target")
        os.pwrite(source, b"z" * bsize * 3000, 0)
        os.fsync(source)
        for i in range(0, 3000, 2):
            fcntl.ioctl(target, FICLONERANGE, struct.pack("=qQQQ", source, i * bsize, bsize, i * bsize))
        os.close(source)
        os.close(target)


@pytest.fixture(scope="module", params=MKFS)
def image(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trees")
    path, top = str(directory / "image"), str(directory / "top")
    os.mkdir(top)
    with open(path, "wb") as file:
        file.truncate(320 << 20)
    run("mkfs.xfs", "-q", *MKFS[request.param].split(), path)
    kernel.own_mounts()
    run("mount", "-o", "loop", path, top)
    try:
        fill(top, "reflink=1" in MKFS[request.param])
        inos = {name: os.stat(os.path.join(top, name)).st_ino for name in ("sparse", "unwritten", "attributes")}
    finally:
        run("umount", top)
    yield path, inos
    os.unlink(path)


@contextlib.contextmanager
def opened_cache(path, backing):
    machine = Machine(profile("x86_64", 1 << 20))
    device = open_device(path)
    cache = BufferCache(machine, device, Geometry(superblock.verify(device.pread(0, 32768))), backing)
    yield cache
    assert all(buf.holds == 0 for buf in cache._table.values())
    cache.release_all()
    device.close()
    machine.close()


@pytest.fixture(params=BACKINGS)
def cache(request, image):
    with opened_cache(image[0], request.param) as cache:
        yield cache


@functools.cache
def btdump(path, *commands):
    """The records of the tree whose root the commands lead to."""
    words = [*XFS_DB, "-r"]
    for command in (*commands, "btdump"):
        words += ["-c", command]
    found = []
    inside = False
    for line in run(*words, path).splitlines():
        if "recs[" in line:
            inside = True
        elif not re.match(r"^\d+:\[", line):
            inside = False
        elif inside:
            inner = line[line.index("[") + 1 : line.rindex("]")]
            found.append(tuple(int(word, 0) for word in inner.split(",")))
    return found


@functools.cache
def fields(path, *commands):
    words = [*XFS_DB, "-r"]
    for command in (*commands, "print"):
        words += ["-c", command]
    return dict(re.findall(r"^(\S+) = (.*)$", run(*words, path), re.M))


def depth(tree):
    return 1 + max(level for level, _ in tree.blocks())


def compare_free_space(path, cache, agno):
    by_place = list(bnobt(cache, agno).records())
    assert by_place == btdump(path, f"agf {agno}", "addr bnoroot")
    by_size = list(cntbt(cache, agno).records())
    assert by_size == btdump(path, f"agf {agno}", "addr cntroot")
    assert sorted(by_size) == by_place
    return by_place


def compare_inodes(path, cache, agno):
    ours = list(inobt(cache, agno).records())
    theirs = btdump(path, f"agi {agno}", "addr root")
    if not cache.geo.has_sparse:
        theirs = [(start, 0, 64, freecount, free) for start, freecount, free in theirs]
    assert ours == theirs
    if cache.geo.has_finobt:
        # xfs_db reads this one as if it were the other; what it holds follows from that
        assert list(finobt(cache, agno).records()) == [chunk for chunk in ours if chunk[3]]
    return ours


def compare_reverse_map(path, cache, agno):
    theirs = [
        (start, count, owner & (1 << 64) - 1, offset, unwritten | bmbt_block << 1 | attr << 2)
        for start, count, owner, offset, unwritten, attr, bmbt_block in btdump(path, f"agf {agno}", "addr rmaproot")
    ]
    ours = list(rmapbt(cache, agno).records())
    assert ours == theirs
    return ours


def compare_reference_counts(path, cache, agno):
    ours = list(refcountbt(cache, agno).records())
    assert ours == [(*record[:3], record[3] == 1) for record in btdump(path, f"agf {agno}", "addr refcntroot")]
    return ours


def test_headers(image, cache):
    path, _ = image
    geo = cache.geo
    free = 0
    for agno in range(geo.ag_count):
        agf, printed = read_agf(cache, agno), fields(path, f"agf {agno}")
        assert agf.agf_length == int(printed["length"]) and agf.agf_seqno == agno
        for ours, theirs in {
            "agf_bno_root": "bnoroot", "agf_cnt_root": "cntroot", "agf_bno_level": "bnolevel",
            "agf_cnt_level": "cntlevel", "agf_flfirst": "flfirst", "agf_fllast": "fllast", "agf_flcount": "flcount",
            "agf_freeblks": "freeblks", "agf_longest": "longest", "agf_btreeblks": "btreeblks",
        }.items():  # fmt: skip
            assert getattr(agf, ours) == int(printed[theirs]), ours
        if geo.has_rmapbt:
            assert (agf.agf_rmap_root, agf.agf_rmap_level) == (int(printed["rmaproot"]), int(printed["rmaplevel"]))
            assert agf.agf_rmap_blocks == int(printed["rmapblocks"])
        if geo.has_reflink:
            assert agf.agf_refcount_root == int(printed["refcntroot"])
            assert agf.agf_refcount_level == int(printed["refcntlevel"])
        agi, tail, unlinked = read_agi(cache, agno)
        printed = fields(path, f"agi {agno}")
        assert (agi.agi_count, agi.agi_freecount) == (int(printed["count"]), int(printed["freecount"]))
        assert (agi.agi_root, agi.agi_level) == (int(printed["root"]), int(printed["level"]))
        if geo.has_finobt:
            assert (tail.agi_free_root, tail.agi_free_level) == (int(printed["free_root"]), int(printed["free_level"]))
        assert set(unlinked) == {0xFFFFFFFF}
        assert len(read_agfl(cache, agno)) == agf.agf_flcount
        free += agf.agf_freeblks
        # what the header says is what the trees hold
        extents = list(bnobt(cache, agno).records())
        assert sum(count for _, count in extents) == agf.agf_freeblks
        assert max(count for _, count in extents) == agf.agf_longest
        chunks = list(inobt(cache, agno).records())
        assert sum(chunk[2] for chunk in chunks) == agi.agi_count
        assert sum(chunk[3] for chunk in chunks) == agi.agi_freecount
    assert free > 0


def test_free_space(image, cache):
    for agno in range(cache.geo.ag_count):
        by_place = compare_free_space(image[0], cache, agno)
        for start, count in by_place[:: max(1, len(by_place) // 30)]:
            assert bnobt(cache, agno).lookup_le(start + count - 1) == (start, count)
            assert bnobt(cache, agno).lookup_ge(start) == (start, count)
            assert cntbt(cache, agno).lookup_ge((count, 0))[1] == count
    assert depth(bnobt(cache, 0)) >= 2


def test_inodes(image, cache):
    path, inos = image
    for agno in range(cache.geo.ag_count):
        ours = compare_inodes(path, cache, agno)
        for chunk in ours[::20]:
            for agino in (chunk[0], chunk[0] + 63):
                assert inode_chunk(cache, agno, agino) == (chunk[0], chunk[1], chunk[4])
        assert inode_chunk(cache, agno, 0) is None
    assert cache.geo.block_bytes > 1024 or depth(inobt(cache, 0)) >= 2


def test_reverse_map(image, cache):
    if not cache.geo.has_rmapbt:
        with pytest.raises(Unsupported, match="rmapbt"):
            rmapbt(cache, 0)
        return
    for agno in range(cache.geo.ag_count):
        ours = compare_reverse_map(image[0], cache, agno)
        assert len({record[4] for record in ours}) >= 3 or agno
    assert depth(rmapbt(cache, 0)) >= 2


def test_reference_counts(image, cache):
    if not cache.geo.has_reflink:
        assert list(refcount_shared(cache, 0, 0, 1 << 20)) == []
        return
    shared = 0
    for agno in range(cache.geo.ag_count):
        ours = compare_reference_counts(image[0], cache, agno)
        shared += len(ours)
        plain = [(start, count) for start, count, _, staging in ours if not staging]
        assert list(refcount_shared(cache, agno, 0, 1 << 30)) == plain
        if len(plain) > 20:
            (first, count), last = plain[7], plain[15]
            found = list(refcount_shared(cache, agno, first + count - 1, last[0] - (first + count - 1)))
            assert found == plain[7:15]
    assert shared >= 1000 and max(depth(refcountbt(cache, agno)) for agno in range(cache.geo.ag_count)) >= 2


@pytest.mark.parametrize("name, attr", [("sparse", False), ("unwritten", False), ("attributes", True)])
def test_extent_maps(image, cache, name, attr):
    path, inos = image
    ino = inos[name]
    geo = cache.geo
    daddr, inside = geo.inode_place(ino)
    inode = Inode(geo, ino, cache.device.pread((daddr << 9) + inside, geo.inode_bytes))
    fork = inode.attr_fork if attr else inode.data_fork
    if (inode.aformat if attr else inode.format) != 3:
        assert attr, "the test wants a fork in B+tree format"
        pytest.skip("this attribute fork has few extents")
    raw = btdump(path, f"inode {ino}") if not attr else None
    ours = list(bmbt_extents(cache, fork, ino, attr_fork=attr))
    if raw is not None:
        assert [(offset, start, count, int(flag)) for offset, start, count, flag in ours] == raw
        assert len(raw) == inode.nextents
        middle = raw[len(raw) // 2]
        assert next(bmbt_extents(cache, fork, ino, middle[0]))[:3] == middle[:3]
        assert len(list(bmbt_extents(cache, fork, ino, middle[0]))) == len(raw) - len(raw) // 2
    else:
        assert len(ours) == inode.anextents
    if name == "sparse":
        assert depth(bmbt(cache, fork, ino)) >= (2 if geo.block_bytes == 1024 else 1)


@pytest.mark.parametrize(
    "name", ["uml-v4-block-512", "metadata-uuid-1k", "sparse-inodes", "block-64k-rmapbt", "metadir"]
)
def test_every_tree_of_the_matrix(name):
    """Other makers, other shapes: V4, a changed UUID, sparse chunks, 64 KiB blocks, metadir."""
    recipe = recipes.ALL[name]
    lacking = kernel.lacks(recipe)
    if lacking:
        no_judge(lacking)
    path = str(kernel.ensure(recipe).image)
    with opened_cache(path, "unmapped") as cache:
        for agno in range(cache.geo.ag_count):
            compare_free_space(path, cache, agno)
            compare_inodes(path, cache, agno)
            if cache.geo.has_rmapbt:
                compare_reverse_map(path, cache, agno)
            if cache.geo.has_reflink:
                compare_reference_counts(path, cache, agno)
