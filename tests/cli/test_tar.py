"""tar: what GNU tar makes of the archive, and what happens on the way."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from pocketxfs.cli.common.attributes import acl_text
from pocketxfs.cli.common.pax import decimal_time, record

from .conftest import Command
from .fake import DIR, LNK, REG, FakeFs

gnu_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="no GNU tar")


@pytest.fixture
def tree(fake: FakeFs) -> FakeFs:
    top = fake.add(fake.root, b"top", DIR)
    a = fake.add(top, b"a", REG, b"data of a")
    a.mtime_ns, a.uid = -1_500_000_000, 3_000_000
    fake.add(top, b"n" * 200, REG, b"long")
    fake.add(top, b"\xe9", REG, b"latin")
    fake.add(top, "ü".encode(), LNK, b"t" * 300)
    fake.link(top, b"again", a)
    fake.add(fake.add(top, b"sub", 0o040700), b"deep", REG, b"x" * 1000)
    fake.add(top, b"pipe", 0o010600)
    return fake


def test_small_things() -> None:
    assert record(b"a", b"b") == b"6 a=b\n"
    for size in (90, 91, 92, 93, 94, 95, 990, 991, 992, 993, 994):
        made = record(b"k", b"v" * size)
        assert int(made.split()[0]) == len(made)
    assert [decimal_time(ns) for ns in (0, 5, -5, 1_500_000_000, -1_500_000_000, 2_000_000_000)] == [
        b"0", b"0.000000005", b"-0.000000005", b"1.500000000", b"-1.500000000", b"2",
    ]  # fmt: skip
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry)
        for entry in ((1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    )
    assert acl_text(acl, "") == "user::rw-\nuser:1000:r--\ngroup::r-x\nmask::rwx\nother::---\n"


def test_python_reads_it(tree: FakeFs, pxfs: Command) -> None:
    result = pxfs("tar", "image:/top")
    assert result.code == 0 and len(result.out) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(result.out)) as archive:
        members = {member.name: member for member in archive}
        assert list(members) == [
            "top", "top/a", "top/" + "n" * 200, "top/\udce9", "top/ü", "top/again", "top/sub", "top/sub/deep",
            "top/pipe",
        ]  # fmt: skip
        assert (members["top/a"].mtime, members["top/a"].uid) == (-1.5, 3_000_000)
        assert members["top/again"].linkname == "top/a" and members["top/again"].islnk()
        assert members["top/ü"].linkname == "t" * 300
        assert archive.extractfile("top/\udce9").read() == b"latin"  # type: ignore[union-attr]
        assert members["top/pipe"].isfifo()


def test_root_is_named_dot(tree: FakeFs, pxfs: Command) -> None:
    with tarfile.open(fileobj=io.BytesIO(pxfs("tar", "image").out)) as archive:
        assert archive.getnames()[:3] == [".", "./top", "./top/a"]


@gnu_tar
def test_gnu_tar_puts_it_back(tree: FakeFs, pxfs: Command, tmp_path: Path) -> None:
    sparse = tree.add(tree.root, b"sparse", REG, bytes(8192) + b"x" * 4096 + bytes(1 << 20))
    sparse.holes = [(0, 8192), (12288, 1 << 20)]
    hollow = tree.add(tree.root, b"hollow", REG, bytes(1 << 20))
    hollow.holes = [(0, 1 << 20)]
    sparse.attributes[b"user.note"] = b"a\0b\nc=d"
    assert pxfs("tar", "-o", "a.tar", "image").code == 0
    subprocess.run(["tar", "-x", "--xattrs", "-f", "a.tar", "-C", "out"], check=True)
    assert Path("out/sparse").read_bytes() == sparse.data
    assert os.stat("out/sparse").st_blocks <= 16 and os.stat("out/hollow").st_size == 1 << 20
    assert os.stat("out/hollow").st_blocks == 0
    assert os.stat("out/sparse").st_mtime_ns == sparse.mtime_ns
    assert os.getxattr("out/sparse", "user.note") == b"a\0b\nc=d"
    assert os.stat("out/top/a").st_ino == os.stat("out/top/again").st_ino
    assert os.stat("out/top/a").st_mtime_ns == -1_500_000_000
    assert stat.S_ISFIFO(os.lstat("out/top/pipe").st_mode)
    assert os.listdir(b"out/top").count(b"\xe9") == 1


def test_bad_files(tree: FakeFs, pxfs: Command) -> None:
    top = tree.inodes[129]
    bad = tree.add(top, b"bad", REG, b"x" * 600_000)
    bad.fails_at = 300_000
    tree.add(top, b"../x", REG, b"no")
    tree.add(top, b"sock", 0o140700)
    top.entries.append((b"gone", 9999))
    broken = tree.add(top, b"broken", REG, b"never")
    broken.attributes[b"system.posix_acl_access"] = b"junk"
    tree.link(top, b"broken2", broken)
    tree.add(top, b"last", REG, b"last")
    top.directory_error = OSError(errno.EIO, "Input/output error")
    result = pxfs("tar", "image:/top")
    assert result.code == 1
    with tarfile.open(fileobj=io.BytesIO(result.out)) as archive:
        names = archive.getnames()
        assert names[-2:] == ["top/bad", "top/last"]
        data = archive.extractfile("top/bad").read()  # type: ignore[union-attr]
        assert len(data) == 600_000 and data.startswith(b"x" * 200_000) and data.endswith(bytes(300_000))
        assert archive.extractfile("top/last").read() == b"last"  # type: ignore[union-attr]
    said = [line.split(": ")[1].removeprefix("/top") for line in result.err.splitlines()]
    assert said == ["/bad", "/bad", "/../x", "/sock", "/gone", "/broken", "/broken2", ""]


def test_where_it_goes(tree: FakeFs, pxfs: Command) -> None:
    assert pxfs("tar", "-o", "image", "image").code == 2
    assert Path("image").read_bytes() == b"not read"
    assert pxfs("tar", "--json", "image").code == 2
    assert b'"members": 10' in pxfs("tar", "--json", "-o", "a.tar", "image").out


def test_interrupted_leaves_no_archive(tree: FakeFs, pxfs: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(tree, "read_inode", interrupted)
    assert pxfs("tar", "-o", "a.tar", "image").code == 130
    assert not Path("a.tar").exists()


def test_a_directory_without_end_of_names(fake: FakeFs, pxfs: Command) -> None:
    for number in range(3000):
        fake.add(fake.root, b"%05d" % number, REG)
    with tarfile.open(fileobj=io.BytesIO(pxfs("tar", "image").out)) as archive:
        assert len(archive.getnames()) == 3001
