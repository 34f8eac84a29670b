"""cp: destinations, what is kept, what is refused."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from .conftest import Command
from .fake import DIR, LNK, REG, FakeFs

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


@pytest.fixture
def tree(fake: FakeFs) -> FakeFs:
    top = fake.add(fake.root, b"top", DIR)
    fake.add(top, b"a", REG, b"data of a")
    sub = fake.add(top, b"sub", 0o040750)
    fake.add(sub, b"b", 0o100640, b"b" * 5000)
    fake.add(sub, b"to", LNK, b"../a")
    fake.add(sub, b"abs", LNK, b"/etc/passwd")
    fake.link(sub, b"a-again", dict_of(fake, top)[b"a"])
    fake.add(fake.root, b"single", 0o104755, b"one")
    return fake


def dict_of(fs: FakeFs, parent: object) -> dict[bytes, object]:
    return {name: fs.inodes[ino] for name, ino in parent.entries}  # type: ignore[attr-defined]


def listing(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


TREE = ["a", "sub", "sub/a-again", "sub/abs", "sub/b", "sub/to"]


def test_destinations(tree: FakeFs, pxfs: Command) -> None:
    assert pxfs("cp", "-r", "image:/top", "out").code == 0
    assert listing(Path("out/top")) == TREE
    assert pxfs("cp", "-r", "image:/top", "new").code == 0
    assert listing(Path("new")) == TREE
    assert pxfs("cp", "-r", "image:/top/", "new2/").code == 0
    assert listing(Path("new2")) == TREE
    assert pxfs("cp", "-r", "image:/top/.", "new3").code == 0
    assert listing(Path("new3")) == TREE
    assert pxfs("cp", "-rT", "image:/top", "new3").code == 0
    assert listing(Path("new3")) == TREE
    assert pxfs("cp", "-r", "image:", "whole").code == 0
    assert listing(Path("whole")) == sorted(["single", "top", *("top/" + name for name in TREE)])
    Path("whole2").mkdir()
    assert pxfs("cp", "-r", "image:/", "whole2").code == 0
    assert listing(Path("whole2")) == listing(Path("whole"))
    assert pxfs("cp", "image:/single", "renamed").code == 0
    assert Path("renamed").read_bytes() == b"one"
    assert pxfs("cp", "image:/single", "image:/top/a", "out").code == 0
    assert pxfs("cp", "-t", "out", "image:/single").code == 0
    assert Path("out/a").read_bytes() == b"data of a"


def test_wrong_destinations(tree: FakeFs, pxfs: Command) -> None:
    Path("file").touch()
    for words in (
        ("image:/single", "image:/top/a", "file"),
        ("image:/single", "image:/top/a", "nowhere"),
        ("image:/single", "nowhere/"),
        ("image:/single", "file/"),
        ("-r", "image:/top", "file"),
        ("image:/single", "nowhere/deep"),
        ("-t", "file", "image:/single"),
    ):
        result = pxfs("cp", *words)
        assert result.code == 1, words
        assert result.err, words
    assert sorted(os.listdir()) == ["file", "image", "out"]
    assert pxfs("cp", "image:/top", "out").err.count("-r") == 1


def test_without_p_as_cp_does(tree: FakeFs, pxfs: Command) -> None:
    before = os.umask(0o027)
    try:
        assert pxfs("cp", "-r", "image:", "out").code == 0
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    mode = lambda path: stat.S_IMODE(os.lstat(path).st_mode)  # noqa: E731
    assert mode("out/single") == 0o750
    assert mode("out/top") == mode("out/top/sub") == 0o750
    assert mode("out/top/sub/b") == 0o640
    assert os.stat("out/top/a").st_mtime_ns > 1_700_000_000 * 10**9
    assert os.readlink("out/top/sub/abs") == "/etc/passwd"
    assert os.stat("out/top/a").st_ino == os.stat("out/top/sub/a-again").st_ino


@root_only
def test_p_keeps_everything(tree: FakeFs, pxfs: Command) -> None:
    top = dict_of(tree, tree.root)[b"top"]
    for number, inode in enumerate(tree.inodes.values()):
        inode.uid, inode.gid = number % 3, number % 5
        inode.mtime_ns += number
    top.attributes[b"user.one"] = b"1"  # type: ignore[attr-defined]
    tree.add(tree.root, b"null", 0o020666).rdev = os.makedev(1, 3)
    tree.add(tree.root, b"pipe", 0o010644)
    tree.add(tree.root, b"socket", 0o140600)
    result = pxfs("cp", "-a", "image:", "out")
    assert (result.code, result.err) == (0, "")
    for path, inode in (
        ("out/single", b"single"), ("out/top", b"top"), ("out/null", b"null"), ("out/pipe", b"pipe"),
        ("out/socket", b"socket"),
    ):  # fmt: skip
        want = dict_of(tree, tree.root)[inode]
        found = os.lstat(path)
        assert (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_rdev) == (
            want.mode, want.uid, want.gid, want.mtime_ns, want.rdev,  # type: ignore[attr-defined]
        )  # fmt: skip
    link = os.lstat("out/top/sub/abs")
    assert link.st_mtime_ns == dict_of(tree, dict_of(tree, top)[b"sub"])[b"abs"].mtime_ns  # type: ignore[attr-defined]
    assert os.getxattr("out/top", "user.one") == b"1"
    assert os.stat("out").st_mtime_ns == tree.root.mtime_ns


@root_only
def test_p_in_a_directory_that_hands_down_its_group(tree: FakeFs, pxfs: Command) -> None:
    os.chown("out", 0, 55)
    os.chmod("out", 0o2777)
    assert pxfs("cp", "-rp", "image:/top", "out").code == 0
    for path in ("out/top", "out/top/a", "out/top/sub", "out/top/sub/b", "out/top/sub/to"):
        assert os.lstat(path).st_gid == 0, path
    assert stat.S_IMODE(os.stat("out/top/sub").st_mode) == 0o750


def test_holes_stay(fake: FakeFs, pxfs: Command) -> None:
    inode = fake.add(fake.root, b"sparse", REG, b"x" * 4096 + bytes(1 << 20) + b"y" * 4096)
    inode.holes = [(4096, 1 << 20)]
    assert pxfs("cp", "image:/sparse", "out").code == 0
    assert Path("out/sparse").read_bytes() == inode.data
    assert os.stat("out/sparse").st_blocks < 64


def test_hostile_names_and_links(fake: FakeFs, pxfs: Command, tmp_path: Path) -> None:
    """Nothing outside DEST is touched, whatever the image says."""
    outside = tmp_path / "outside"
    outside.mkdir()
    top = fake.add(fake.root, b"top", DIR)
    fake.add(top, b"../outside/x", REG, b"no")
    fake.add(top, b"/outside", REG, b"no")
    fake.add(top, b"", REG, b"no")
    # a link, then a directory of the same name, with a file in it
    fake.add(top, b"trap", LNK, os.fsencode(outside))
    trap = fake.add(top, b"trap", DIR)
    fake.add(trap, b"fallen", REG, b"no")
    # a link, then a file of the same name
    fake.add(top, b"file", LNK, os.fsencode(outside / "made"))
    fake.add(top, b"file", REG, b"yes")
    fake.add(top, b"..", DIR)
    fake.add(top, b"good", REG, b"yes")
    result = pxfs("cp", "-r", "image:/top", "out")
    assert result.code == 1
    assert os.listdir(outside) == []
    assert sorted(os.listdir("out/top")) == ["file", "good", "trap"]
    assert Path("out/top/file").read_bytes() == b"yes" and not Path("out/top/file").is_symlink()
    assert len(result.err.splitlines()) == 4


def test_links_that_were_there_before_are_not_followed(tree: FakeFs, pxfs: Command, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    Path("out/top").mkdir()
    os.symlink(outside, "out/top/sub")
    os.symlink(outside / "kept", "out/top/a")
    result = pxfs("cp", "-r", "image:/top", "out")
    assert (result.code, "/top/sub" in result.err) == (1, True)
    assert (outside / "kept").read_text() == "kept" and os.listdir(outside) == ["kept"]
    assert Path("out/top/a").read_bytes() == b"data of a" and not Path("out/top/a").is_symlink()


def test_what_is_there_already(tree: FakeFs, pxfs: Command) -> None:
    Path("out/top/sub").mkdir(parents=True)
    Path("out/top/a").write_text("longer than what comes")
    os.chmod("out/top/a", 0o600)
    other = Path("other-name")
    Path("out/top/sub/b").write_text("b")
    os.link("out/top/sub/b", other)
    os.mkfifo("out/top/sub/to")
    assert pxfs("cp", "-rn", "image:/top", "out").code == 0
    assert Path("out/top/a").read_text() == "longer than what comes"
    assert stat.S_ISFIFO(os.lstat("out/top/sub/to").st_mode)
    assert pxfs("cp", "-r", "image:/top", "out").code == 0
    assert Path("out/top/a").read_bytes() == b"data of a"
    assert stat.S_IMODE(os.stat("out/top/a").st_mode) == 0o600
    assert os.readlink("out/top/sub/to") == "../a"
    assert other.read_text() == "b" and Path("out/top/sub/b").read_bytes() == b"b" * 5000
    Path("out/single").mkdir()
    result = pxfs("cp", "image:/single", "out")
    assert (result.code, "directory" in result.err) == (1, True)


def test_the_image_is_not_written_over(fake: FakeFs, pxfs: Command) -> None:
    fake.add(fake.root, b"image", REG, b"gone")
    for words in (("-r", "image:", "."), ("image:/image", "."), ("image:/image", "image")):
        assert pxfs("cp", *words).code == 1
        assert Path("image").read_bytes() == b"not read"


def test_unreadable_files_are_named_and_the_rest_goes_on(tree: FakeFs, pxfs: Command) -> None:
    top = dict_of(tree, tree.root)[b"top"]
    sub = dict_of(tree, top)[b"sub"]
    tree.add(top, b"bad\n", REG, b"x" * 9000).fails_at = 4096  # type: ignore[arg-type]
    top.entries.append((b"gone", 99999))  # type: ignore[attr-defined]
    tree.add(top, b"last", REG, b"last")  # type: ignore[arg-type]
    sub.directory_error = OSError(errno.EIO, "Input/output error")  # type: ignore[attr-defined]
    result = pxfs("cp", "-r", "image:/top", "out")
    assert result.code == 1
    assert listing(Path("out/top")) == [*TREE[:1], "last", *TREE[1:]]
    assert [line.split(": ")[1] for line in result.err.splitlines()] == ["/top/sub", "/top/bad\\n", "/top/gone"]


def test_a_second_name_of_an_unreadable_file_is_tried_again(fake: FakeFs, pxfs: Command) -> None:
    bad = fake.add(fake.root, b"bad", REG, b"x" * 100)
    fake.link(fake.root, b"bad2", bad)
    bad.fails_at = 0
    result = pxfs("cp", "-r", "image:", "out")
    assert (result.code, len(result.err.splitlines()), os.listdir("out")) == (3, 2, [])


def test_deep_trees_need_few_descriptors(fake: FakeFs, pxfs: Command) -> None:
    here = fake.root
    for depth in range(400):
        fake.add(here, b"f%d" % depth, REG, b"x")
        here = fake.add(here, b"d", DIR)
    for depth in range(399, -1, -1):
        fake.add(fake.inodes[128 + 2 * depth], b"late", REG, b"y")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        result = pxfs("cp", "-a", "image:", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (result.code, result.err) == (0, "")
    count = sum(len(files) for _, _, files in os.walk("out"))
    assert count == 800


def test_hard_links_far_apart(fake: FakeFs, pxfs: Command) -> None:
    first = fake.add(fake.add(fake.add(fake.root, b"a", DIR), b"b", DIR), b"one", REG, b"1")
    other = fake.add(fake.root, b"c", DIR)
    fake.link(other, b"two", first)
    fake.link(fake.root, b"three", first)
    assert pxfs("cp", "-r", "image:", "out").code == 0
    inos = {os.stat(f"out/{path}").st_ino for path in ("a/b/one", "c/two", "three")}
    assert len(inos) == 1
    assert pxfs("cp", "-r", "image:/c", "image:/a", "out").code == 0


def test_verbose_and_json(tree: FakeFs, pxfs: Command) -> None:
    import json

    assert pxfs("cp", "-v", "image:/single", "out").out == b"'/single' -> 'out/single'\n"
    said = json.loads(pxfs("cp", "-r", "--json", "image:/top", "out").out)
    assert said == {
        "schema_version": 1, "verb": "cp", "files": 4, "directories": 2, "hard_links": 1, "data_bytes": 5009,
        "failed": 0,
    }  # fmt: skip


def test_a_full_destination_ends_it(tree: FakeFs, pxfs: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tree, "copy_to_fd", full)
    result = pxfs("cp", "-r", "image:", "out")
    assert (result.code, result.err) == (1, "pocketxfs: No space left on device\n")


def test_interrupted_leaves_no_half_file(tree: FakeFs, pxfs: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_inode: object, fd: int) -> int:
        os.write(fd, b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tree, "copy_to_fd", interrupted)
    before = os.umask(0o022)
    os.umask(before)
    result = pxfs("cp", "-r", "image:/top", "out")
    assert (result.code, result.err) == (130, "")
    assert listing(Path("out")) == ["top"]
    after = os.umask(before)
    assert after == before and tree.closed
