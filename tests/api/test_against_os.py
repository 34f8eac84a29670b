"""The library's calls against `os`, `io` and `pathlib` on a kernel mount of the same image, read only."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conftest import no_judge

import pocketxfs
from pocketxfs.buffer import BACKINGS

pytestmark = pytest.mark.judged


def fill(top: Path) -> None:
    """Something of everything that the calls below ask about."""
    (top / "plain").write_bytes(b"first line\nsecond\r\nthird \xc3\xa9\n" * 500)
    (top / "empty").touch()
    with open(top / "sparse", "wb") as out:
        out.seek(1 << 20)
        out.write(b"x" * 5000)
        out.seek(9 << 20)
        out.write(b"tail")
    fd = os.open(top / "unwritten", os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(fd, 0, 1 << 18)
    os.pwrite(fd, b"written", 1 << 17)
    os.close(fd)
    deep = top / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "leaf.txt").write_text("leaf")
    for number in range(40):
        (top / "a" / f"f{number:02d}").write_text(str(number))
    os.symlink("a/b", top / "relative")
    os.symlink("/a/b/c/leaf.txt", top / "absolute")
    os.symlink("loop2", top / "loop1")
    os.symlink("loop1", top / "loop2")
    os.symlink("nowhere", top / "dangling")
    os.symlink("../../relative/c", top / "a" / "b" / "up")
    os.link(top / "plain", top / "a" / "hard")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", 0o60600, os.makedev(259, 70000))
    (top / os.fsdecode(b"latin\xe9")).write_text("odd name")
    os.setxattr(top / "plain", "user.key", b"value")
    os.setxattr(top / "plain", "user.empty", b"")
    os.setxattr(top / "a", "trusted.t", b"\0\1\2" * 1000)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(FileSystem, the kernel's mount of the same image)."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        no_judge("root and mkfs.xfs")
    folder = tmp_path_factory.mktemp("api")
    image, where = folder / "image", folder / "mount"
    where.mkdir()
    with open(image, "wb") as out:
        out.truncate(300 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(where)], check=True)
    try:
        fill(where)
    finally:
        subprocess.run(["umount", str(where)], check=True)
    subprocess.run(["mount", "-o", "loop,ro", str(image), str(where)], check=True)
    try:
        with pocketxfs.open(image) as fs:
            yield fs, where
    finally:
        subprocess.run(["umount", str(where)], check=True)


PATHS = [
    "/", "/plain", "/empty", "/sparse", "/unwritten", "/a", "/a/b/c/leaf.txt", "/relative", "/absolute", "/fifo",
    "/device", "/relative/c", "/relative/c/leaf.txt", "/a/../plain", "/a/./b", "/a/b/up/leaf.txt", "/../plain",
    "/latin\udce9", "//a//b/", "/relative/",
]  # fmt: skip
BROKEN = ["/missing", "/plain/x", "/loop1", "/dangling", "/a/missing/x", "/" + "n" * 256, "/plain/", "/absolute/"]


def below(mount: Path, path: str) -> str:
    """The kernel's name for a path; absolute symlinks would leave the mount, so they are never asked for there."""
    return f"{mount}/{path.lstrip('/')}" if not path.startswith("/..") else f"{mount}{path[3:]}"


@pytest.mark.parametrize("path", PATHS)
def test_lstat(both, path):
    fs, mount = both
    ours, theirs = fs.lstat(path), os.lstat(below(mount, path))
    for name in dir(theirs):
        if name.startswith("st_") and name != "st_dev":
            assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith("/absolute")])
def test_stat_follows(both, path):
    fs, mount = both
    assert fs.stat(path).st_ino == os.stat(below(mount, path)).st_ino


@pytest.mark.parametrize("path", BROKEN)
def test_errors_are_the_kernels(both, path):
    fs, mount = both
    if path.startswith("/absolute"):
        expected = errno.ENOTDIR
    else:
        with pytest.raises(OSError) as theirs:
            os.stat(below(mount, path))
        expected = theirs.value.errno
    with pytest.raises(OSError) as ours:
        fs.stat(path)
    assert ours.value.errno == expected
    assert type(ours.value) is type(OSError(expected, ""))
    assert not fs.exists(path)


def test_absolute_symlinks_stay_in_the_image(both):
    fs, _ = both
    assert fs.read_bytes("/absolute") == b"leaf"
    assert fs.realpath("/absolute") == "/a/b/c/leaf.txt"
    assert fs.realpath(b"/relative/../b/up") == b"/a/b/c"


def test_listing(both):
    fs, mount = both
    assert fs.listdir("/") == os.listdir(mount)
    assert fs.listdir(b"/") == os.listdir(os.fsencode(mount))
    with fs.scandir("/") as ours, os.scandir(mount) as theirs:
        for one, other in zip(ours, theirs, strict=True):
            assert (one.name, one.inode(), one.is_symlink()) == (other.name, other.inode(), other.is_symlink())
            assert one.path == "/" + one.name
            if one.name not in ("absolute", "loop1", "loop2"):
                assert (one.is_dir(), one.is_file()) == (other.is_dir(), other.is_file())
            assert one.stat(follow_symlinks=False).st_mtime_ns == other.stat(follow_symlinks=False).st_mtime_ns


def test_scandir_can_be_left(both):
    fs, _ = both
    with fs.scandir("/a") as entries:
        next(entries)
    assert list(entries) == []


@pytest.mark.parametrize("topdown", [True, False])
def test_walk(both, topdown):
    fs, mount = both
    ours = [(base, sorted(d), sorted(f)) for base, d, f in fs.walk("/a", topdown)]
    theirs = [(base, sorted(d), sorted(f)) for base, d, f in os.walk(mount / "a", topdown)]
    assert [(base, d, f) for base, d, f in ours] == [(base.removeprefix(str(mount)), d, f) for base, d, f in theirs]


def test_files(both):
    fs, mount = both
    for name in ("plain", "empty", "sparse", "unwritten"):
        whole = (mount / name).read_bytes()
        assert fs.read_bytes(f"/{name}") == whole
        with fs.open(f"/{name}", "rb") as ours, open(mount / name, "rb") as theirs:
            for place in (0, 1, 4095, 1 << 17, (1 << 17) + 3, 1 << 20, 9 << 20):
                assert ours.seek(place) == theirs.seek(place)
                assert ours.read(6000) == theirs.read(6000)
                assert ours.tell() == theirs.tell()
            assert ours.seek(-3, 2) == theirs.seek(-3, 2) if whole else True
            assert ours.read() == theirs.read()
    with fs.open("/plain", encoding="utf-8") as ours, open(mount / "plain", encoding="utf-8") as theirs:
        assert list(ours) == list(theirs)
    with fs.open("/plain", "rb", buffering=0) as raw:
        assert raw.readable()
        assert not raw.writable()
        assert raw.read(5) == b"first"


def test_opening_refuses_what_the_kernel_would(both):
    fs, _ = both
    for mode in ("w", "a", "r+", "xb"):
        with pytest.raises(OSError) as caught:
            fs.open("/plain", mode)
        assert caught.value.errno == errno.EROFS
    with pytest.raises(IsADirectoryError):
        fs.open("/a")
    with pytest.raises(ValueError, match="mode"):
        fs.open("/plain", "q")
    with pytest.raises(NotADirectoryError):
        fs.scandir("/plain")


@pytest.mark.parametrize("name", ["plain", "sparse", "unwritten"])
def test_seek_data_and_hole(both, name):
    fs, mount = both
    # what the kernel has in its page cache of an unwritten extent counts as data there
    Path("/proc/sys/vm/drop_caches").write_text("3")
    fd = os.open(mount / name, os.O_RDONLY)
    size = os.fstat(fd).st_size
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # unlike drop_caches, gets pages that wait to be put on a list
    try:
        for offset in {0, 1, 4096, 1 << 17, (1 << 17) + 5000, 1 << 20, 5 << 20, size - 1, size, size + 9}:
            for ours, whence in ((fs.seek_data, os.SEEK_DATA), (fs.seek_hole, os.SEEK_HOLE)):
                try:
                    expected: int | None = os.lseek(fd, offset, whence)
                except OSError as error:
                    assert error.errno == errno.ENXIO
                    with pytest.raises(OSError) as caught:
                        ours(f"/{name}", offset)
                    assert caught.value.errno == errno.ENXIO
                else:
                    assert ours(f"/{name}", offset) == expected, (offset, whence)
    finally:
        os.close(fd)


def test_xattrs(both):
    fs, mount = both
    for name in ("plain", "a", "empty"):
        assert fs.listxattr(f"/{name}") == os.listxattr(mount / name)
        for key in os.listxattr(mount / name):
            assert fs.getxattr(f"/{name}", key) == os.getxattr(mount / name, key)
    for key in ("user.missing", "security.x", "system.posix_acl_access"):
        with pytest.raises(OSError) as caught:
            fs.getxattr("/plain", key)
        assert caught.value.errno == errno.ENODATA
    with pytest.raises(OSError) as caught:
        fs.getxattr("/plain", "nonsense.x")
    assert caught.value.errno == errno.EOPNOTSUPP


def test_statvfs(both):
    fs, mount = both
    ours, theirs = fs.statvfs(), os.statvfs(mount)
    for name in (
        "f_bsize",
        "f_frsize",
        "f_blocks",
        "f_bfree",
        "f_bavail",
        "f_files",
        "f_ffree",
        "f_favail",
        "f_namemax",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_paths(both):
    fs, mount = both
    root = fs.path("/")
    assert (root / "a" / "b").is_dir()
    assert (root / "plain").is_file()
    assert (root / "relative").is_symlink()
    assert (root / "relative" / "c").resolve() == root / "a/b/c"
    assert (root / "a/b/c/leaf.txt").read_text() == "leaf"
    assert sorted(str(p) for p in (root / "a").glob("f0*")) == sorted(
        str(p).removeprefix(str(mount)) for p in (mount / "a").glob("f0*")
    )
    assert sorted(str(p) for p in root.rglob("*.txt")) == ["/a/b/c/leaf.txt"]
    assert (root / "a/hard").samefile(root / "plain")
    assert (root / "x.tar.gz").suffixes == [".tar", ".gz"]
    assert root.is_mount()
    assert (root / "a").parent == root


def test_by_inode(both):
    fs, mount = both
    ino = os.stat(mount / "plain").st_ino
    found = fs.inode(ino)
    assert fs.inode(ino, found.gen).size == found.size
    for number, gen in ((ino, found.gen + 1), (0, None), (1 << 60, None), (ino + 4000, None)):
        with pytest.raises(OSError) as caught:
            fs.inode(number, gen)
        assert caught.value.errno == errno.ESTALE


def test_cookies_survive_a_restart(both):
    fs, _ = both
    folder = fs.resolve("/a")
    whole = list(fs.readdir(folder))
    assert [name for name, *_ in whole][:2] == [b".", b".."]
    for index, item in enumerate(whole):
        assert list(fs.readdir(folder, item[3])) == whole[index + 1 :]


def test_copy_to_fd_keeps_holes(both, tmp_path):
    fs, mount = both
    for name in ("plain", "empty", "sparse", "unwritten"):
        with open(tmp_path / name, "wb") as out:
            fs.copy_to_fd(fs.resolve(f"/{name}"), out.fileno())
        assert (tmp_path / name).read_bytes() == (mount / name).read_bytes()
        assert (tmp_path / name).stat().st_blocks <= (mount / name).stat().st_blocks + 16


def test_any_binary_file_object_will_do(both, tmp_path):
    fs, _ = both
    with open(fs.mount.device.name, "rb") as image, pocketxfs.open(image) as other:
        assert other.listdir("/") == fs.listdir("/")


@pytest.mark.parametrize("buffers", BACKINGS)
@pytest.mark.parametrize("machine", ["host", "nommu-16m", "nommu-8m", "arm32", "i386", "x86_64"])
def test_every_machine_reads_the_same(both, machine, buffers):
    fs, _ = both
    if buffers == "vm-map-ram" and machine.startswith("nommu"):
        with pytest.raises(pocketxfs.Unsupported, match=f"'vm-map-ram': machine {machine} has no MMU"):
            pocketxfs.open(fs.mount.device.name, memory="4M", machine=machine, buffers=buffers)
        return
    with pocketxfs.open(fs.mount.device.name, memory="4M", machine=machine, buffers=buffers) as other:
        assert list(other.walk("/")) == list(fs.walk("/"))
        assert other.memory_report()["high_water_bytes"] <= 4 << 20


def test_secondary_superblocks_are_judged(both, tmp_path):
    fs, _ = both
    assert fs.info()["secondary_superblocks_wrong"] == []
    copy = tmp_path / "copy"
    shutil.copyfile(fs.mount.device.name, copy)
    with open(copy, "r+b") as out:
        out.seek((fs.geo.agb_to_daddr(2, 0) << 9) + 130)
        out.write(b"?")
    with pocketxfs.open(copy) as other:
        (wrong,) = other.info()["secondary_superblocks_wrong"]
    assert "AG 2" in wrong
    assert "sb_crc" in wrong


def test_the_shortcuts_equal_the_long_way(both):
    """`format.usual` against `decode_core` and what is built on it; and the shortcuts are really taken."""
    from pocketxfs.format import usual

    fs, _ = both
    stat_at, file_at = usual.stat_reader(fs.geo), usual.file_reader(fs.geo)
    assert stat_at is not None and file_at is not None
    inodes = fs.mount.inodes
    taken = 0
    for base, folders, files in fs.walk("/"):
        for name in [*folders, *files]:
            with fs.scandir(base) as entries:
                entry = next(entry for entry in entries if entry.name == name)
            ino = entry.inode()
            assert tuple(inodes.stat(ino)) == tuple(inodes.read(ino).stat())
            assert inodes.stat(ino).st_mtime_ns == inodes.read(ino).mtime_ns
            raw = memoryview(bytes(inodes._raw(ino)))
            taken += stat_at(ino, raw, 0) is not None
            if entry.is_file(follow_symlinks=False):
                assert fs.read_bytes(entry) == fs.read_inode_bytes(entry.load())
            flipped = bytearray(raw)
            for place in range(0, len(flipped), 7):
                flipped[place] ^= 0x10
                assert stat_at(ino, memoryview(flipped), 0) is None
                assert file_at(ino, memoryview(flipped), 0) is None
                flipped[place] ^= 0x10
    assert taken > 40
