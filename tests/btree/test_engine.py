"""The engine over trees written by hand, against a plain list."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketxfs.buffer import BACKINGS
from pocketxfs.errors import Corrupt, DeviceError
from pocketxfs.format import btree as fmt

from .build import AG_BLOCKS, AGNO, INO, Disk, close, make_geo, open_ag, open_inode, sample

V4_TREES = (fmt.BNOBT, fmt.CNTBT, fmt.INOBT, fmt.BMBT)
CASES = [(tree, True) for tree in fmt.TREES] + [(tree, False) for tree in V4_TREES]
case = pytest.mark.parametrize("tree, v5", CASES, ids=[f"{tree.kind}-v{5 if v5 else 4}" for tree, v5 in CASES])


def built(tree, v5, count=200, leaf_fill=5, node_fill=3, backing="contiguous", block_log=10, seed=1, sparse=True):
    geo = make_geo(block_log, v5, sparse=sparse)
    disk = Disk(geo)
    records = sample(tree, count, geo, seed)
    if tree.is_long:
        fork = disk.inode_tree(tree, records, leaf_fill, node_fill)
        return disk, records, lambda cache: open_inode(cache, tree, fork)
    root, levels = disk.ag_tree(tree, records, leaf_fill, node_fill)
    return disk, records, lambda cache: open_ag(cache, tree, root, levels)


def decoded(tree, records, geo):
    return list(tree.decode(b"".join(tree.rec.pack(*record) for record in records), geo))


@case
@pytest.mark.parametrize("count", [1, 5, 6, 15, 16, 200])
def test_iterates_in_order(tree, v5, count):
    disk, records, opened = built(tree, v5, count)
    cache = disk.cache()
    assert list(opened(cache).records()) == decoded(tree, records, disk.geo)
    close(cache)


@case
def test_full_blocks(tree, v5):
    geo = make_geo(10, v5)
    room = geo.block_bytes - tree.header_bytes(geo)
    disk, records, opened = built(tree, v5, 500, tree.maxrecs(room, 0), tree.maxrecs(room, 1))
    cache = disk.cache()
    assert list(opened(cache).records()) == decoded(tree, records, geo)
    close(cache)


@pytest.mark.parametrize("backing", BACKINGS)
@pytest.mark.parametrize("tree", fmt.TREES, ids=lambda tree: tree.kind)
def test_big_blocks_with_every_backing(tree, backing):
    geo = make_geo(14)
    disk = Disk(geo)
    records = sample(tree, 900, geo)
    if tree.is_long:
        fork = disk.inode_tree(tree, records, 300, 2)
    else:
        root, levels = disk.ag_tree(tree, records, 300, 2)
    cache = disk.cache(backing)
    found = open_inode(cache, tree, fork) if tree.is_long else open_ag(cache, tree, root, levels)
    assert list(found.records()) == decoded(tree, records, geo)
    assert found.lookup_le(tree.rec_key(records[-1])) is not None
    close(cache)


@case
def test_lookups_against_a_list(tree, v5):
    disk, records, opened = built(tree, v5, 120)
    cache = disk.cache()
    found = opened(cache)
    keys = [tree.rec_key(record) for record in records]
    values = decoded(tree, records, disk.geo)

    def near(key):
        if isinstance(key, int):
            return [key - 1, key, key + 1]
        return [(key[0] - 1, *key[1:]), key, (*key[:-1], key[-1] + 1), (key[0] + 1, *key[1:])]

    for probe in sorted({p for key in keys[::7] + keys[-1:] for p in near(key)}):
        below = [value for key, value in zip(keys, values, strict=True) if key <= probe]
        above = [value for key, value in zip(keys, values, strict=True) if key >= probe]
        assert found.lookup_le(probe) == (below[-1] if below else None)
        if probe not in keys:
            assert found.lookup_ge(probe) == (above[0] if above else None)
        start = max(len(below) - 1, 0)
        assert list(found.records(probe)) == values[start:]
    close(cache)


@case
def test_empty(tree, v5):
    geo = make_geo(10, v5)
    disk = Disk(geo)
    if tree is fmt.BMBT:
        cache = disk.cache()
        with pytest.raises(Corrupt, match="numrecs"):
            list(open_inode(cache, tree, fmt.IROOT.pack(1, 0) + bytes(100)).records())
    else:
        fork = disk.inode_tree(tree, []) if tree.is_long else b""
        root = None if tree.is_long else disk.ag_tree(tree, [])
        cache = disk.cache()
        found = open_inode(cache, tree, fork) if root is None else open_ag(cache, tree, *root)
        assert list(found.records()) == []
        assert found.lookup_le((9, 9, 9) if tree.repeats else 9) is None
        assert found.lookup_ge((0, 0, 0) if tree.repeats else 0) is None
    close(cache)


@case
def test_blocks_lists_each_once(tree, v5):
    disk, _, opened = built(tree, v5)
    cache = disk.cache()
    blocks = list(opened(cache).blocks())
    expected = [(level, number) for level, numbers in disk.made[tree].items() for number in numbers]
    assert sorted(blocks) == sorted(expected)
    close(cache)


def test_holds_one_block_a_level():
    disk, _, opened = built(fmt.BNOBT, True, 300, 4, 3)
    cache = disk.cache()
    found = opened(cache)
    walk = found.records()
    for _ in range(50):
        next(walk)
        assert sum(buf.holds for buf in cache._table.values()) == found.levels
    walk.close()
    close(cache)


def test_walks_in_little_memory():
    geo = make_geo(12)
    disk = Disk(geo)
    records = sample(fmt.BNOBT, 1500, geo)
    root, levels = disk.ag_tree(fmt.BNOBT, records, 10, 8)
    cache = disk.cache(ram=256 << 10)
    assert list(open_ag(cache, fmt.BNOBT, root, levels).records()) == records
    assert cache.report()["kinds"]["bnobt"]["reclaimed"] > 50
    close(cache)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tree=st.sampled_from(fmt.TREES), count=st.integers(1, 150), leaf=st.integers(1, 30), node=st.integers(2, 9),
    seed=st.integers(0, 1 << 30), sparse=st.booleans(),
)  # fmt: skip
def test_any_shape(tree, count, leaf, node, seed, sparse):
    disk, records, opened = built(tree, True, count, leaf, node, seed=seed, sparse=sparse)
    cache = disk.cache()
    values = decoded(tree, records, disk.geo)
    found = opened(cache)
    assert list(found.records()) == values
    pick = records[seed % len(records)]
    wanted = tree.rec_key(pick)
    assert tree.rec_key(pick) == wanted and found.lookup_le(wanted) in values
    close(cache)


# -- damage --------------------------------------------------------------------------------------------------------


def attempt(disk, opened):
    """Walk it all: a value or our error."""
    cache = disk.cache()
    try:
        return list(opened(cache).records())
    finally:
        close(cache)


def header_fields(tree, v5):
    wide = tree.is_long
    fields = {"magic": (0, ">I"), "level": (4, ">H"), "numrecs": (6, ">H")}
    fields["leftsib"] = (8, ">Q" if wide else ">I")
    fields["rightsib"] = (16, ">Q") if wide else (12, ">I")
    if v5:
        at = 24 if wide else 16
        fields["blkno"] = (at, ">Q")
        fields["uuid"] = (at + 16, ">Q")
        fields["owner"] = (at + 32, ">Q" if wide else ">I")
    return fields


@case
@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_header_field_is_judged(tree, v5, level):
    disk, records, opened = built(tree, v5)
    numbers = disk.made[tree][level]
    for field, (place, form) in header_fields(tree, v5).items():
        for number in (numbers[0], numbers[len(numbers) // 2], numbers[-1]):
            at = disk.offset(tree, number) + place
            saved = bytes(disk.data)
            (old,) = struct.unpack_from(form, disk.data, at)
            most = (1 << 8 * struct.calcsize(form)) - 1
            for new in {0, 1, most, old ^ 1, number, (old + 1) & most} - {old}:
                struct.pack_into(form, disk.data, at, new)
                disk.seal(tree, number)
                if field == "numrecs" and level == 0 and 0 < new < old:
                    # fewer records are a tree too; what is left must be right
                    found = attempt(disk, opened)
                    assert len(found) == len(records) - (old - new)
                else:
                    with pytest.raises(Corrupt):
                        attempt(disk, opened)
                disk.data[:] = saved


@case
@pytest.mark.parametrize("level", [1, 2])
def test_every_pointer_is_judged(tree, v5, level):
    disk, _, opened = built(tree, v5)
    room = disk.geo.block_bytes - tree.header_bytes(disk.geo)
    number = disk.made[tree][level][0]
    at = disk.offset(tree, number) + tree.header_bytes(disk.geo) + tree.maxrecs(room, level) * tree.node_key_bytes
    saved = bytes(disk.data)
    others = [disk.made[tree][level - 1][-1], disk.made[tree][level - 1][1], number, disk.made[tree][level][-1]]
    for index in range(2):
        place = at + index * tree.ptr_bytes
        (old,) = tree.ptr.unpack_from(disk.data, place)
        for new in {0, 1, (1 << 32) - 1, (1 << (8 * tree.ptr_bytes)) - 1, 5, old + 1, *others} - {old}:
            tree.ptr.pack_into(disk.data, place, new)
            disk.seal(tree, number)
            with pytest.raises(Corrupt):
                attempt(disk, opened)
            disk.data[:] = saved


@case
@pytest.mark.parametrize("level", [0, 1])
def test_order_is_judged(tree, v5, level):
    disk, _, opened = built(tree, v5)
    numbers = disk.made[tree][level]
    size = tree.node_key_bytes if level else tree.rec_bytes
    for number in (numbers[0], numbers[-2]):
        at = disk.offset(tree, number) + tree.header_bytes(disk.geo)
        saved = bytes(disk.data)
        first, second = bytes(disk.data[at : at + size]), bytes(disk.data[at + size : at + 2 * size])
        disk.data[at : at + 2 * size] = second + first
        disk.seal(tree, number)
        with pytest.raises(Corrupt):
            attempt(disk, opened)
        disk.data[:] = saved


@case
def test_swapped_leaves_are_found(tree, v5):
    """Two leaves exchanged, headers and all made good again, so that only the order between blocks is wrong."""
    disk, _, opened = built(tree, v5)
    numbers = disk.made[tree][0]
    a, b = (disk.offset(tree, number) + tree.header_bytes(disk.geo) for number in (numbers[1], numbers[2]))
    size = 5 * tree.rec_bytes
    disk.data[a : a + size], disk.data[b : b + size] = disk.data[b : b + size], disk.data[a : a + size]
    disk.seal(tree, numbers[1])
    disk.seal(tree, numbers[2])
    with pytest.raises(Corrupt):
        attempt(disk, opened)


def test_wrong_crc_uuid_and_owner():
    disk, _, opened = built(fmt.BMBT, True)
    number = disk.made[fmt.BMBT][0][3]
    at = disk.offset(fmt.BMBT, number)
    disk.data[at + 1000] ^= 1
    with pytest.raises(Corrupt, match="crc"):
        attempt(disk, opened)
    disk.data[at + 1000] ^= 1
    struct.pack_into(">Q", disk.data, at + 56, INO + 1)
    disk.seal(fmt.BMBT, number)
    with pytest.raises(Corrupt, match="owner"):
        attempt(disk, opened)


def test_range_of_records():
    bad = {
        fmt.BNOBT: [(0, 1), (5, 0), (AG_BLOCKS - 1, 2), (1 << 31, 1)],
        fmt.CNTBT: [(0, 1), (AG_BLOCKS - 1, 2), (6, 0)],
        fmt.INOBT: [
            (0, 0, 0), (64 + 1, 64 << 8, 0), (128, 64 << 8 | 3, 0), (128, 0xFF << 16 | 64 << 8, 0),
            (AG_BLOCKS * 2 - 32, 64 << 8, 0),
        ],
        fmt.RMAPBT: [(4, 0, 1, 0), (AG_BLOCKS - 1, 2, 1, 0)],
        fmt.REFCOUNTBT: [(5, 1, 1), (5 | 1 << 31, 1, 2), (0, 1, 2), (5, 0, 2), (5, 1, 0)],
        fmt.RTRMAPBT: [(4096, 1, 1, 0), (5, 0, 1, 0)],
        fmt.RTREFCOUNTBT: [(4095, 2, 2), (5, 1, 1)],
    }  # fmt: skip
    geo = make_geo()
    for tree, records in bad.items():
        for record in records:
            disk = Disk(geo)
            if tree.is_long:
                fork = disk.inode_tree(tree, [record])
                with pytest.raises(Corrupt):
                    attempt(disk, lambda cache, tree=tree, fork=fork: open_inode(cache, tree, fork))
            else:
                root, levels = disk.ag_tree(tree, [record])
                with pytest.raises(Corrupt):
                    attempt(disk, lambda cache, tree=tree, root=root: open_ag(cache, tree, root, 1))


@pytest.mark.parametrize("tree", [fmt.BMBT, fmt.RTRMAPBT, fmt.RTREFCOUNTBT], ids=lambda tree: tree.kind)
def test_any_bytes_in_an_inode_root(tree):
    import random

    disk, _, _ = built(tree, True)
    rng = random.Random(5)
    for length in (0, 1, 3, 4, 5, 20, 100, 336):
        for _ in range(40):
            fork = bytearray(rng.randbytes(length))
            if length > 4 and rng.random() < 0.8:
                struct.pack_into(">HH", fork, 0, rng.randrange(4), rng.randrange(6))
            try:
                attempt(disk, lambda cache, fork=bytes(fork): open_inode(cache, tree, fork))
            except Corrupt:
                pass


@case
def test_random_flips_give_a_value_or_our_error(tree, v5):
    import random

    rng = random.Random(11)
    disk, records, opened = built(tree, v5, 60)
    right = decoded(tree, records, disk.geo)
    saved = bytes(disk.data)
    numbers = [number for level in disk.made[tree].values() for number in level]
    for _ in range(150):
        number = rng.choice(numbers)
        at = disk.offset(tree, number)
        for _ in range(rng.randrange(1, 4)):
            disk.data[at + rng.randrange(disk.geo.block_bytes)] ^= 1 << rng.randrange(8)
        disk.seal(tree, number)
        try:
            found = attempt(disk, opened)
        except Corrupt:
            pass
        else:
            assert len(found) <= len(right)
        disk.data[:] = saved


def test_device_cut_short():
    disk, _, opened = built(fmt.BNOBT, True)
    cache = disk.cache()
    cache.device.size_bytes = disk.start + disk.offset(fmt.BNOBT, disk.made[fmt.BNOBT][0][3])
    with pytest.raises(DeviceError):
        list(opened(cache).records())
    close(cache)


def test_errors_say_where():
    disk, _, opened = built(fmt.BNOBT, True)
    number = disk.made[fmt.BNOBT][0][2]
    struct.pack_into(">I", disk.data, disk.offset(fmt.BNOBT, number) + 12, 77)
    disk.seal(fmt.BNOBT, number)
    with pytest.raises(Corrupt) as caught:
        attempt(disk, opened)
    assert caught.value.structure == "bnobt block"
    assert caught.value.where == f"AG {AGNO} block {number}"
    assert caught.value.field == "rightsib" and caught.value.found == 77
