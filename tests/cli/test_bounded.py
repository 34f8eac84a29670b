"""What keeps memory bounded: the walk, the external sort, the stack, the account of hard links."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxfs.cli.common import spill
from pocketxfs.cli.common.links import Links
from pocketxfs.cli.common.walk import ENTRY, KEPT, Walk
from pocketxfs.errors import Corrupt

from .fake import DIR, REG, FakeFs, FakeInode


def walked(fs: FakeFs, dirs: list[str] | None = None) -> tuple[list[bytes], list[tuple[bytes, OSError]]]:
    """(paths in the order met, failures) of a walk that goes into everything."""
    found: list[bytes] = []
    failures: list[tuple[bytes, OSError]] = []
    walk = Walk(fs, fs.root_ino, b"/", lambda path, error: failures.append((path, error)))  # type: ignore[arg-type]
    for event, name, ino, _ in walk:
        if event == ENTRY:
            found.append(walk.prefix + name)
            if fs.inodes[ino].is_dir:
                try:
                    walk.descend(name, ino)
                except Corrupt as error:
                    failures.append((walk.prefix + name, error))
        else:
            found.append(walk.prefix)
    return found, failures


def reference(fs: FakeFs, inode: FakeInode, prefix: bytes) -> list[bytes]:
    found = []
    for name, ino in inode.entries:
        found.append(prefix + name)
        if fs.inodes[ino].is_dir:
            found += reference(fs, fs.inodes[ino], prefix + name + b"/")
    return [*found, prefix]


def grow(fs: FakeFs, parent: FakeInode, seed: random.Random, depth: int) -> None:
    for number in range(seed.choice((0, 3, 40))):
        if depth and seed.random() < 0.3:
            grow(fs, fs.add(parent, b"d%d" % number, DIR), seed, depth - 1)
        else:
            fs.add(parent, b"f%d" % number, REG)


@pytest.mark.parametrize("seed", range(6))
def test_walk_meets_everything_once_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketxfs.cli.common.walk.BATCH", 5)
    monkeypatch.setattr("pocketxfs.cli.common.walk.KEPT", 12)
    fs = FakeFs()
    grow(fs, fs.root, random.Random(seed), 4)
    assert walked(fs) == (reference(fs, fs.root, b"/"), [])


def test_deep_tree_keeps_no_names() -> None:
    fs = FakeFs()
    here = fs.root
    for _ in range(300):
        for number in range(40):
            fs.add(here, b"%d" % number, REG)
        here = fs.add(here, b"down", DIR)
        fs.add(fs.inodes[here.ino - 41], b"after", REG) if here.ino - 41 in fs.inodes else None
    most = 0
    walk = Walk(fs, fs.root_ino, b"/", lambda *_: None)  # type: ignore[arg-type]
    for event, name, ino, _ in walk:
        if event == ENTRY and fs.inodes[ino].is_dir:
            walk.descend(name, ino)
        most = max(most, sum(len(frame.items) for frame in walk._frames))
    assert most <= KEPT + 1024


def test_loops_end() -> None:
    fs = FakeFs()
    a = fs.add(fs.root, b"a", DIR)
    b = fs.add(a, b"b", DIR)
    b.entries += [(b"up", a.ino), (b"self", b.ino), (b"root", fs.root_ino)]
    found, failures = walked(fs)
    assert found == [b"/a", b"/a/b", b"/a/b/up", b"/a/b/self", b"/a/b/root", b"/a/b/", b"/a/", b"/"]
    assert [path for path, _ in failures] == [b"/a/b/up", b"/a/b/self", b"/a/b/root"]


def test_a_lattice_of_directories_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each directory has two names for the next: 2^40 paths, refused once they outnumber all possible inodes."""
    fs = FakeFs()
    here = fs.root
    for _ in range(40):
        below = fs.add(here, b"x", DIR)
        here.entries.append((b"y", below.ino))
        here = below
    small = list(fs.statvfs())
    small[2] = 100
    monkeypatch.setattr(fs, "statvfs", lambda: os.statvfs_result(small))
    walk = Walk(fs, fs.root_ino, b"/", lambda *_: None)  # type: ignore[arg-type]
    with pytest.raises(Corrupt, match="directory tree"):
        for event, name, ino, _ in walk:
            if event == ENTRY:
                walk.descend(name, ino)


def test_error_at_the_end_of_a_directory_left_in_the_middle_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketxfs.cli.common.walk.BATCH", 3)
    fs = FakeFs()
    for number in range(10):
        fs.add(fs.add(fs.root, b"d%d" % number, DIR), b"f", REG)
    fs.root.directory_error = Corrupt("directory data block", "daddr 8", "magic", 1, 2)
    found, failures = walked(fs)
    assert len(found) == 31
    assert [path for path, _ in failures] == [b"/"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=200), st.booleans())
def test_sorter_sorts(records: list[bytes], reverse: bool) -> None:
    before = spill.RUN_RECORDS, spill.FAN_IN
    spill.RUN_RECORDS, spill.FAN_IN = 7, 3
    try:
        with spill.Sorter(reverse=reverse) as sorter:
            for record in records:
                sorter.add(record)
            assert list(sorter) == sorted(records, reverse=reverse)
            assert sorter.spilled == (len(records) >= 7)
    finally:
        spill.RUN_RECORDS, spill.FAN_IN = before


def test_sorter_with_records_longer_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "CHUNK_BYTES", 16)
    monkeypatch.setattr(spill, "RUN_BYTES", 100)
    records = [bytes([65 + n]) * (n * 7 % 90) for n in range(60)]
    with spill.Sorter() as sorter:
        for record in records:
            sorter.add(record)
        assert list(sorter) == sorted(records)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=8), st.none()), max_size=150))
def test_stack_is_one(steps: list[bytes | None]) -> None:
    stack, plain = spill.Stack(4, 20), list[bytes]()
    for step in steps:
        if step is None:
            assert stack.pop() == (plain.pop() if plain else None)
        else:
            stack.push(step)
            plain.append(step)
    while plain:
        assert stack.pop() == plain.pop()
    assert stack.pop() is None
    stack.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(2, 4)), max_size=80))
def test_links_against_a_dictionary(steps: list[tuple[int, int]]) -> None:
    """Small enough to spill: the answers are those of a dictionary that forgets an inode when all names were met."""
    links = Links(entries=3, nbytes=30)
    counts: dict[int, int] = {}
    plain: dict[int, list[object]] = {}
    for number, (ino, nlink) in enumerate(steps):
        nlink = counts.setdefault(ino, nlink)
        value = b"%d" % number
        found = links.meet((1 << 63) + ino, nlink, value)
        if ino in plain:
            assert found == plain[ino][1]
            plain[ino][0] = int(str(plain[ino][0])) - 1
            if plain[ino][0] == 0:
                del plain[ino]
        else:
            assert found is None
            plain[ino] = [nlink - 1, value]
    links.close()


def test_links_forget_and_replace() -> None:
    for entries in (100, 0):
        links = Links(entries=entries)
        links.meet(1, 3, b"a")
        links.meet(2, 3, b"b")
        assert links.spilled == (entries == 0)
        links.forget(1)
        links.replace(2, b"c")
        assert links.meet(1, 3, b"d") is None
        assert links.meet(2, 3, b"e") == b"c"
        links.close()


def test_temporary_files_have_no_name(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fd = spill.temporary_fd()
    os.write(fd, b"x")
    assert os.listdir(str(tmp_path)) == []
    os.close(fd)
    monkeypatch.setattr(os, "O_TMPFILE", 0)
    os.close(spill.temporary_fd())
