"""Real mounts: as root and as an ordinary user, beside the kernel's mount of the image, and in all sorts of trouble."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
from pathlib import Path

import pytest

import pocketxfs
from pocketxfs.fuse import live
from tests.conftest import no_judge
from tests.judge import kernel
from tests.judge.recipes import ALL

from . import harness

pytestmark = pytest.mark.judged
NOBODY = 65534
RECIPES = ALL
#: Sparse files of terabytes, which programs that read holes as zeros would read for ever.
ENDLESS = ("farthest", "far", "five-gib")
NOT_ENDLESS = [f"--exclude={name}" for name in ENDLESS]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The plain image of the matrix, a copy."""
    lacking = harness.missing()
    if lacking:
        no_judge(lacking)
    return harness.copy(kernel.ensure(RECIPES["default"]).image, tmp_path)


def need(*programs: str) -> None:
    lacking = harness.have(*programs)
    if lacking:
        no_judge(lacking)


# -- beside the kernel -----------------------------------------------------------------------------------------


def test_other_programs_see_no_difference(image: Path, tmp_path: Path) -> None:
    """`diff -r`, `rsync` with everything, `tar`, `find`, `du` on ours and on the kernel's mount of a copy."""
    need("rsync", "tar", "diff")
    (tmp_path / "other").mkdir()
    with (
        kernel.mounted(harness.copy(image, tmp_path / "other"), "nouuid,noatime", read_only=True) as theirs,
        harness.mounted(image, tmp_path) as ours,
    ):
        # of two fifos diff says that one "is a fifo while" the other "is a fifo"
        kept = ["special", "odd_names", "types", "fifo", *ENDLESS]
        for one, other in ((theirs, ours), (ours, theirs)):
            done = harness.run(
                "rsync",
                "-aAXHn",
                "--checksum",
                *NOT_ENDLESS,
                "--itemize-changes",
                "--delete",
                f"{one}/",
                f"{other}/",
                check=False,
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        words = [f"--exclude={name}" for name in kept]
        assert harness.run("diff", "-r", "--no-dereference", *words, theirs, ours).stdout == ""
        find = ["find", ".", "-printf", "%p %i %m %n %U %G %s %b %T@ %C@ %A@ %l %y\n"]
        du = ["du", "-a", "."]
        tar = [
            "sh",
            "-c",
            "tar --sort=name --xattrs --xattrs-include='*' --acls "
            + " ".join(NOT_ENDLESS)
            + " -cf - . 2>/dev/null | sha256sum",
        ]
        for words in (find, du, ["ls", "-lRi", "."], tar):
            one, other = (harness.run(*words, cwd=where, env={**os.environ, "LC_ALL": "C"}) for where in (theirs, ours))
            assert sorted(one.stdout.splitlines()) == sorted(other.stdout.splitlines()), words


def test_flags_of_both(image: Path, tmp_path: Path) -> None:
    need("lsattr")
    (tmp_path / "other").mkdir()
    with (
        kernel.mounted(harness.copy(image, tmp_path / "other"), "nouuid", read_only=True) as theirs,
        harness.mounted(image, tmp_path) as ours,
    ):
        one, other = (harness.run("lsattr", "-a", "flags", cwd=where).stdout for where in (theirs, ours))
        assert one == other


@pytest.mark.slow
def test_a_million_names(tmp_path: Path) -> None:
    """`ls` and `find` of the largest directory, within the memory."""
    lacking = harness.missing()
    if lacking:
        no_judge(lacking)
    image = harness.copy(kernel.ensure(RECIPES["million"]).image, tmp_path)
    with harness.mounted(image, tmp_path, "mb=16") as point:
        count = "n=$(find . -type f | wc -l); m=$(ls -U million/names | wc -l)"
        count += "; k=$(ls -lR . | grep -c ^-); echo $n $m $k"
        found = harness.run("sh", "-c", count, cwd=point).stdout.split()
        assert found == ["1000000"] * 3
        report = live.report_of(str(point))
        assert report["high_water_bytes"] <= 16 << 20
        assert report["session"]["peak_rss_bytes"] < 42 << 20


# -- handles, caches -------------------------------------------------------------------------------------------


class FileHandle(ctypes.Structure):
    """struct file_handle."""

    _fields_ = (("handle_bytes", ctypes.c_uint), ("handle_type", ctypes.c_int), ("data", ctypes.c_ubyte * 128))


def test_handles_outlive_forget(image: Path, tmp_path: Path) -> None:
    """What an NFS server does: a handle, everything forgotten, and the handle opened again."""
    libc = ctypes.CDLL(None, use_errno=True)
    with harness.mounted(image, tmp_path) as point:
        wanted = {}
        for path in ("deep", "directories/node", "files/hello", "special/fifo"):
            full = point / path
            if not full.exists():
                continue
            handle, mount_id = FileHandle(128), ctypes.c_int()
            assert not libc.name_to_handle_at(-100, os.fsencode(full), ctypes.byref(handle), ctypes.byref(mount_id), 0)
            wanted[path] = (handle, full.stat().st_ino)
        assert len(wanted) > 1
        before = live.report_of(str(point))["session"]["kernel_lookups"]
        Path("/proc/sys/vm/drop_caches").write_text("2")
        harness.wait_for(lambda: live.report_of(str(point))["session"]["kernel_lookups"] < before)
        top = os.open(point, os.O_RDONLY)
        try:
            for path, (handle, ino) in wanted.items():
                fd = libc.open_by_handle_at(top, ctypes.byref(handle), os.O_PATH)
                assert fd >= 0, (path, os.strerror(ctypes.get_errno()))
                assert os.fstat(fd).st_ino == ino
                os.close(fd)
            handle = next(iter(wanted.values()))[0]
            handle.data[0] ^= 0x55  # another inode, or none: another generation in any case
            assert libc.open_by_handle_at(top, ctypes.byref(handle), os.O_PATH) == -1
            assert ctypes.get_errno() == errno.ESTALE
        finally:
            os.close(top)


def test_second_reading_asks_nothing(image: Path, tmp_path: Path) -> None:
    """Names, attributes, directories and symlinks stay in the kernel's caches."""
    with harness.mounted(image, tmp_path) as point:
        words = ["find", point, "-printf", "%p %s %l\n"]
        first = harness.run(*words).stdout
        before = live.report_of(str(point))["session"]["requests"]
        for _ in range(3):
            assert harness.run(*words).stdout == first
        after = live.report_of(str(point))["session"]["requests"]
        assert after - before < 30


def test_forgetting_shrinks_the_inodes(image: Path, tmp_path: Path) -> None:
    with harness.mounted(image, tmp_path) as point:
        harness.run("sh", "-c", f"find {point} -type f -size -1M -exec cat {{}} + >/dev/null")
        before = live.report_of(str(point))
        assert before["session"]["kernel_lookups"] > 1000
        Path("/proc/sys/vm/drop_caches").write_text("3")
        harness.wait_for(lambda: live.report_of(str(point))["session"]["kernel_lookups"] < 100)
        after = live.report_of(str(point))
        assert after["owners"]["inode"] < before["owners"]["inode"]


# -- users -----------------------------------------------------------------------------------------------------


def test_everything_that_writes_is_refused(image: Path, tmp_path: Path) -> None:
    with harness.mounted(image, tmp_path, "rw") as point:
        for action in (
            lambda: os.mkdir(point / "new"),
            lambda: os.unlink(point / "special" / "fifo"),
            lambda: os.rename(point / "special", point / "other"),
            lambda: os.chmod(point / "special", 0o700),
            lambda: os.setxattr(point / "special", "user.x", b"1"),
            lambda: os.symlink("x", point / "link"),
            lambda: os.utime(point / "special"),
            lambda: (point / "new").write_bytes(b""),
        ):
            with pytest.raises(OSError, match="Read-only") as caught:
                action()
            assert caught.value.errno == errno.EROFS


def test_defaults_are_nosuid_and_nodev(image: Path, tmp_path: Path) -> None:
    for options, wanted in (("", {"nosuid", "nodev"}), ("suid,dev", set())):
        with harness.mounted(image, tmp_path, options) as point:
            for line in Path("/proc/self/mountinfo").read_text().splitlines():
                fields = line.split()
                if fields[4] == str(point):
                    assert {"ro"} | wanted <= set(fields[5].split(","))
                    assert bool(wanted) == ("nosuid" in fields[5])
                    assert " - fuse.pocketxfs " in line


def test_permissions_are_the_kernel_s(image: Path, tmp_path: Path) -> None:
    """allow_other: others see what mode and ACL let them; without it nothing at all."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    script = (
        "import os, sys\nos.setgid(65534); os.setuid(65534)\n"
        "for p in sys.argv[1:]:\n  try: open(p).read(); print('yes')\n  except OSError as e: print(e.errno)"
    )
    with harness.mounted(image, tmp_path, "allow_other") as point:
        secret = point / "special" / "directory-0000"
        assert secret.lstat().st_mode & 0o777 == 0
        found = harness.run(sys.executable, "-c", script, secret / "x", point / "directories" / "none").stdout.split()
        assert found == [str(errno.EACCES), str(errno.ENOENT)]
    with harness.mounted(image, tmp_path) as point:
        assert harness.run(sys.executable, "-c", script, point / "directories").stdout.split() == [str(errno.EACCES)]


#: What a container is made of: its own mounts, a /dev with nothing but null and fuse, and Python where all can read it.
CONTAINER = """
    import ctypes, os, subprocess, sys, time
    libc = ctypes.CDLL(None, use_errno=True)
    def mount(*words):
        if libc.mount(*words):
            raise OSError(ctypes.get_errno(), f"mount {words}")
    assert not libc.unshare(0x20000)
    mount(b"none", b"/", None, 0x4000 | 0x40000, None)
    scratch, image, point, base, site, source = sys.argv[1:7]
    for name, path in (("base", base), ("site", site), ("source", source)):
        os.mkdir(f"{scratch}/{name}")
        mount(path.encode(), f"{scratch}/{name}".encode(), None, 0x1000, None)
    mount(b"tmpfs", b"/dev", b"tmpfs", 0, b"mode=755")
    for name, major, minor in (("null", 1, 3), ("fuse", 10, 229)):
        os.mknod("/dev/" + name, 0o20666, os.makedev(major, minor))
        os.chmod("/dev/" + name, 0o666)
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    os.chdir("/")
    python = f"{scratch}/base/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    environment = {
        "PATH": "/usr/bin:/bin", "PYTHONHOME": f"{scratch}/base", "LD_LIBRARY_PATH": f"{scratch}/base/lib",
        "PYTHONPATH": f"{scratch}/source:{scratch}/site", "PYTHONDONTWRITEBYTECODE": "1",
    }
    def run(*words):
        done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout
    def pocketxfs(*words):
        return run(python, "-m", "pocketxfs", *words)
    def line():
        return next((line for line in open("/proc/self/mountinfo") if point in line), "")
"""

ORDINARY = """
    pocketxfs("mount", image, point)
    assert "nosuid,nodev" in line() and "user_id=65534" in line(), line()
    names = []
    for folder, folders, files in os.walk(point):
        names += files
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 1 << 20:
                assert len(open(path, "rb").read()) == os.path.getsize(path)
    pocketxfs("umount", point)
    assert not line()
    # a second time, ended by a signal
    pocketxfs("mount", image, point)
    os.kill(int(os.getxattr(point, "pocketxfs.pid")), 15)
    for _ in range(500):
        if not line():
            break
        time.sleep(0.01)
    else:
        raise AssertionError("still mounted")
    print(len(names))
"""

#: An unprivileged container's root mounts with mount(2): no fusermount3, no set-user-id program at all.
NAMESPACE_ROOT = """
    environment["PATH"] = "/sbin:/usr/sbin"
    inner = (
        f"{python} -m pocketxfs mount {image} {point} && /bin/ls {point} >/dev/null && "
        f"/bin/cat {point}/files/mebibyte >/dev/null && {python} -m pocketxfs umount {point} && echo 5000"
    )
    if subprocess.run(["/usr/bin/unshare", "-r", "/bin/true"], stderr=subprocess.DEVNULL).returncode:
        print(-1)
    else:
        print(run("/usr/bin/unshare", "-rm", "/bin/sh", "-c", inner))
"""


@pytest.mark.parametrize("script", [ORDINARY, NAMESPACE_ROOT], ids=["ordinary user", "root of a user namespace"])
def test_in_a_container(image: Path, tmp_path: Path, script: str) -> None:
    """Only /dev/fuse and fusermount3: mounted, read all through, unmounted by the command and by a signal."""
    need("fusermount3", "unshare")
    point = tmp_path / "point"
    point.mkdir()
    os.chown(point, NOBODY, NOBODY)
    image.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    places = (sys.base_prefix, sysconfig.get_path("purelib"), Path(pocketxfs.__file__).parent.parent)
    whole = textwrap.dedent(CONTAINER) + textwrap.dedent(script)
    done = harness.run(sys.executable, "-c", whole, tmp_path, image, point, *places, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    if done.stdout.strip() == "-1":
        pytest.skip("this machine lets no ordinary user make a user namespace")
    assert int(done.stdout) > 1000


# -- life and death --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(image: Path, tmp_path: Path, number: int) -> None:
    with harness.mounted(image, tmp_path) as point:
        os.kill(harness.server_pid(point), number)
        harness.wait_for(lambda: not harness.is_mounted(point))
    with harness.mounted(image, tmp_path) as point:
        assert (point / "directories").is_dir()


def test_in_the_foreground(image: Path, tmp_path: Path) -> None:
    """-f stays, logs to standard error, and ends with exit code 0 when the mount is taken away."""
    kernel.own_mounts()
    point = tmp_path / "mnt"
    point.mkdir()
    with subprocess.Popen(
        [*harness.COMMAND, "mount", "-f", image, point], stderr=subprocess.PIPE, text=True
    ) as process:
        harness.wait_for(lambda: harness.is_mounted(point))
        assert (point / "directories").is_dir()
        process.send_signal(signal.SIGUSR1)
        harness.run(*harness.COMMAND, "umount", point)
        assert process.wait(10) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert '"high_water_bytes"' in said
    assert "FUSE 7." in said


def test_report_to_the_log(image: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with harness.mounted(image, tmp_path, f"log={log},mb=8") as point:
        os.kill(harness.server_pid(point), signal.SIGUSR1)
        harness.wait_for(lambda: "high_water_bytes" in log.read_text())
        report = json.loads(log.read_text().splitlines()[-1].split(": ", 1)[1])
        assert report["ram_bytes"] == 8 << 20
        shown = harness.run(*harness.COMMAND, "memory", "--json", point).stdout
        assert json.loads(shown)["report"]["session"]["pid"] == harness.server_pid(point)
    assert "unmounted" in log.read_text()


def test_one_mount_at_a_time(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with harness.mounted(image, tmp_path):
        done = harness.run(*harness.COMMAND, "mount", image, other, check=False)
        assert done.returncode != 0
        assert "in use" in done.stderr
    lock = tmp_path / "lock"
    with harness.mounted(image, tmp_path, f"lock={lock}"):
        done = harness.run(
            *harness.COMMAND, "mount", "-o", f"lock={lock}", harness.copy(image, other), other, check=False
        )
        assert done.returncode != 0
        assert str(lock) in done.stderr


def test_what_the_kernel_has_is_refused(image: Path, tmp_path: Path) -> None:
    """A file behind a mounted loop device, and the device itself."""
    point = tmp_path / "mnt"
    point.mkdir()
    with kernel.mounted(image, "nouuid", read_only=True) as theirs:
        device = harness.run("findmnt", "-no", "SOURCE", theirs).stdout.strip()
        for source in (image, device):
            done = harness.run(*harness.COMMAND, "mount", source, point, check=False)
            assert done.returncode != 0
            assert "the kernel has it mounted" in done.stderr
    with kernel.loop_device(image, read_only=True) as loop, harness.mounted(Path(str(loop)), tmp_path) as point:
        assert (point / "directories").is_dir()


def test_killed_under_load_and_mounted_again(image: Path, tmp_path: Path) -> None:
    """-9: the mount is dead, not an empty directory; what hung is told; the next mount is as good as new."""
    with harness.mounted(image, tmp_path) as point:
        names = sorted(os.listdir(point))
        failed: list[int] = []

        def load() -> None:
            while True:
                try:
                    for folder, _, files in os.walk(point, onerror=_raise):
                        for name in files:
                            os.lstat(os.path.join(folder, name))
                    Path("/proc/sys/vm/drop_caches").write_text("2")
                except OSError as error:
                    failed.append(error.errno or 0)
                    return

        workers = [threading.Thread(target=load) for _ in range(4)]
        for worker in workers:
            worker.start()
        pid = harness.server_pid(point)
        os.kill(pid, signal.SIGKILL)
        for worker in workers:
            worker.join(300)
            assert not worker.is_alive()
        assert set(failed) <= {errno.ENOTCONN, errno.ECONNABORTED}
        with pytest.raises(OSError) as caught:
            os.statvfs(point)
        assert caught.value.errno == errno.ENOTCONN
        try:
            left = os.listdir(point)
        except OSError as error:
            assert error.errno == errno.ENOTCONN
        else:  # the kernel still had the whole listing; it is never an empty directory
            assert sorted(left) == names
        assert harness.is_mounted(point)
        harness.run(*harness.COMMAND, "umount", point)
    with harness.mounted(image, tmp_path) as point:
        assert sorted(os.listdir(point)) == names


def _raise(error: OSError) -> None:
    raise error


def test_the_image_cut_short_under_the_mount(image: Path, tmp_path: Path) -> None:
    """EIO for what was behind the cut, file by file; the mount stays, and what is left is read."""
    with harness.mounted(image, tmp_path) as point:
        paths = [path for path in (point / "files").rglob("*") if path.is_file() and 0 < path.stat().st_size < 1 << 25]
        assert len(paths) > 10
        places = {}
        for path in paths:
            lines = os.getxattr(path, live.EXTENTS).decode().splitlines()
            data = [line.split() for line in lines if line.split()[2] != "-"]
            places[path] = max((int(line[2]) + int(line[1]) for line in data), default=0)
        cut = sorted(places.values())[len(places) // 2]
        os.truncate(image, cut)
        Path("/proc/sys/vm/drop_caches").write_text("1")
        outcomes = {}
        for path in paths:
            try:
                path.read_bytes()
                outcomes[path] = 0
            except OSError as error:
                outcomes[path] = error.errno or 0
        assert {number for path, number in outcomes.items() if places[path] <= cut} <= {0, errno.EIO}
        assert {outcomes[path] for path in paths if places[path] > cut} <= {0, errno.EIO}
        assert errno.EIO in outcomes.values()
        assert 0 in outcomes.values()
        assert len(os.listdir(point)) > 5
        assert harness.server_pid(point) > 0


def test_the_command_waits_until_the_mount_is_usable(image: Path, tmp_path: Path) -> None:
    """Ten mounts in a row, each used at once and taken away at once: no busy image, no empty directory."""
    kernel.own_mounts()
    point = tmp_path / "mnt"
    point.mkdir()
    for _ in range(10):
        harness.run(*harness.COMMAND, "mount", image, point)
        assert (point / "directories").is_dir()
        harness.run(*harness.COMMAND, "umount", point)
        assert not harness.is_mounted(point)


def test_mount_8_and_its_helper(image: Path, tmp_path: Path) -> None:
    """`mount -t fuse.pocketxfs`, by mount.fuse3 or by our own helper, whichever is installed."""
    need("mount.fuse3")
    kernel.own_mounts()
    point, programs = tmp_path / "mnt", tmp_path / "bin"
    point.mkdir()
    programs.mkdir()
    program = programs / "pocketxfs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pocketxfs "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    harness.run("mount.fuse3", image, point, "-t", "fuse.pocketxfs", "-o", "rw,mb=8,nofail", env=environment)
    assert live.report_of(str(point))["ram_bytes"] == 8 << 20
    harness.run("umount", point)
    harness.wait_for(lambda: not harness.is_mounted(point))


@pytest.mark.parametrize(
    "options",
    [
        "machine=nommu-16m",
        "memory=4M,buffers=unmapped",
        "nosplice",
        "buffers=contiguous-exact",
        "memory=4M,buffers=vm-map-ram,machine=arm32",
        "memory=4M,buffers=folio,machine=nommu-8m",
    ],
)
def test_machines(image: Path, tmp_path: Path, options: str) -> None:
    """Readers in parallel, within the machine's memory, on several machines and both ways of moving data."""
    with harness.mounted(image, tmp_path, options) as point:
        tar = f"tar --sort=name {' '.join(NOT_ENDLESS)} -cf - . 2>/dev/null | sha256sum"
        found = {harness.run("sh", "-c", tar, cwd=point).stdout}
        with contextlib.ExitStack() as stack:
            readers = [
                stack.enter_context(subprocess.Popen(["sh", "-c", tar], cwd=point, stdout=subprocess.PIPE, text=True))
                for _ in range(4)
            ]
            Path("/proc/sys/vm/drop_caches").write_text("3")
            found |= {reader.communicate(timeout=120)[0] for reader in readers}
        assert len(found) == 1
        report = live.report_of(str(point))
        assert report["high_water_bytes"] <= report["ram_bytes"]
        assert report["session"]["peak_rss_bytes"] < 42 << 20


def test_large_reads_anywhere(tmp_path: Path) -> None:
    """Reads that cross data, holes and unwritten extents, of two files in turn, spliced and not, against the kernel."""
    lacking = harness.missing()
    if lacking:
        no_judge(lacking)
    rng, piece = random.Random(7), 64 << 10
    image = tmp_path / "image"
    with image.open("wb") as out:
        for _ in range(320):
            out.write(b"\xaa" * (1 << 20))
    kernel.command("mkfs.xfs", "-q", "-f", "-K", image)
    with kernel.mounted(image) as point:
        files = [(point / name).open("wb", buffering=0) for name in ("one", "two")]
        for number in range(120):
            file = files[number & 1]
            at = number // 2 * piece
            kind = rng.randrange(5)
            if kind == 0:
                file.truncate(at + piece)
            elif kind == 1:
                os.posix_fallocate(file.fileno(), at, piece)
            else:
                os.pwrite(file.fileno(), rng.randbytes(piece - rng.choice((0, 0, 5000))), at)
                os.fsync(file.fileno())
        for file in files:
            file.close()
        whole = {name: (point / name).read_bytes() for name in ("one", "two")}
    for options in ("", "nosplice"):
        where = tmp_path / (options or "splice")
        where.mkdir()
        with harness.mounted(image, where, options) as point:
            opened = {name: os.open(point / name, os.O_RDONLY) for name in whole}
            for fd in opened.values():
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            for _ in range(300):
                offset, nbytes = rng.randrange(len(whole["one"])), rng.choice((40_000, 131_072, 700_000))
                for name, at in itertools.product(("one", "two"), (offset, max(0, offset - nbytes))):
                    os.posix_fadvise(opened[name], 0, 0, os.POSIX_FADV_DONTNEED)
                    assert os.pread(opened[name], nbytes, at) == whole[name][at : at + nbytes]
            for fd in opened.values():
                os.close(fd)
