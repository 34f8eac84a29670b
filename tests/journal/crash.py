"""Filesystems that the kernel abandons: made, worked on by a seeded mixed load, and shut down in the middle of it.

`abandon` gives an image as it was when the power went: what was in the page cache is lost, the log is dirty.  The same
seed gives the same operations (not the same image: the kernel writes back when it likes).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..judge import kernel, lowlevel, uml


class Shape(NamedTuple):
    """How a filesystem is made and mounted."""

    name: str
    mkfs: tuple[str, ...] = ()
    size: int = 128 << 20
    mount: str = "inode64"
    version: str = "6.1"
    log: int = 0  # bytes of an external log
    uml: bool = False  # what the machine's kernel cannot: made and worked on by user-mode Linux
    rt: int = 0  # bytes of a realtime device

    @property
    def lacks(self) -> str | None:
        """What this machine lacks to make it."""
        return kernel.missing("uml" if self.uml else "kernel", self.version)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("default"),
        Shape("small-log", ("-m", "reflink=0", "-l", "size=5700k"), mount="inode64,logbsize=16k"),
        Shape("lbsize-256k", ("-l", "size=8m"), mount="inode64,logbsize=256k"),
        Shape("lbsize-64k-sunit", ("-l", "su=32k,size=16m"), mount="inode64,logbsize=64k"),
        Shape("sunit-256k", ("-l", "su=256k,size=24m")),
        Shape("log-sector-4k", ("-s", "size=4096", "-l", "sectsize=4096"), mount="inode64,logbsize=32k", log=8 << 20),
        Shape("sector-4k", ("-s", "size=4096", "-l", "size=8m")),
        Shape("block-1k", ("-b", "size=1024", "-l", "size=8m")),
        Shape("block-64k", ("-b", "size=65536", "-l", "size=64m"), size=512 << 20),
        Shape("odd-ags", ("-d", "agsize=8195b", "-l", "size=8m")),
        Shape("lbsize-128k", ("-l", "size=12m"), mount="inode64,logbsize=128k"),
        Shape("smallest-1k", ("-m", "reflink=0", "-b", "size=1024", "-l", "size=2577b"), mount="logbsize=32k"),
        Shape("smallest-4k", ("-m", "reflink=0", "-l", "size=857b"), mount="logbsize=16k"),
        Shape(
            "largest",
            ("-m", "reflink=0", "-d", "agcount=1", "-l", "size=2038m"),
            size=2300 << 20,
            mount="inode64,logbsize=256k",
        ),
        Shape("external", (), log=8 << 20),
        Shape("external-sunit", ("-l", "su=64k"), log=8 << 20),
        Shape("rmap-reflink", ("-m", "reflink=1,rmapbt=1", "-l", "size=16m")),
        Shape("plain-v5", ("-m", "reflink=0,rmapbt=0,finobt=0,inobtcount=0,bigtime=0", "-i", "sparse=0,nrext64=0")),
        Shape("big-inodes", ("-i", "size=2048,nrext64=1", "-l", "size=17m")),
        Shape("dir-16k", ("-n", "size=16k", "-l", "size=8m")),
        Shape("next", ("-m", "rmapbt=1", "-i", "exchange=1", "-n", "parent=1", "-l", "size=16m"), version="next"),
        Shape("v4", ("-m", "crc=0,finobt=0,bigtime=0", "-l", "size=8m"), mount="defaults", uml=True),
        Shape("v4-logv1", ("-m", "crc=0,finobt=0,bigtime=0", "-l", "version=1,size=8m"), mount="defaults", uml=True),
        Shape(
            "v4-isize-256", ("-m", "crc=0,finobt=0,bigtime=0", "-i", "size=256,attr=2"), mount="logbsize=32k", uml=True
        ),
        Shape(
            "v4-block-512",
            ("-m", "crc=0,finobt=0,bigtime=0", "-b", "size=512", "-l", "size=8m"),
            mount="defaults",
            uml=True,
        ),
        Shape(
            "v4-smallest-512",
            ("-m", "crc=0,finobt=0,bigtime=0", "-b", "size=512", "-l", "size=4806b"),
            mount="defaults",
            uml=True,
        ),
        Shape("golden-dirty-v5", ("-m", "reflink=0", "-b", "size=1024", "-l", "size=2577b"), size=32 << 20),
        Shape(
            "golden-dirty-v4",
            ("-m", "crc=0,finobt=0,bigtime=0", "-l", "version=1,size=854b"),
            size=32 << 20,
            mount="defaults",
            uml=True,
        ),
        Shape("v4-external", ("-m", "crc=0,finobt=0,bigtime=0"), mount="defaults", log=8 << 20, uml=True),
        Shape("rt", ("-m", "reflink=0", "-r", "extsize=4k", "-l", "size=8m"), rt=64 << 20, uml=True),
        Shape("v4-quota", ("-m", "crc=0,finobt=0,bigtime=0", "-l", "size=8m"), mount="uquota,gquota", uml=True),
        Shape("v5-quota", ("-l", "size=8m"), mount="uquota,gquota,pquota", uml=True),
        Shape("metadir", ("-m", "metadir=1,rmapbt=1", "-l", "size=16m"), version="next"),
    )
}


class Image(NamedTuple):
    """An abandoned filesystem."""

    path: Path
    log: Path | None
    rt: Path | None = None

    def copy(self, to: Path) -> Image:
        """Another one like it."""
        to.mkdir(parents=True, exist_ok=True)
        found: list[Path | None] = []
        for source, name in ((self.path, "image"), (self.log, "log"), (self.rt, "rt")):
            if source is not None:
                subprocess.run(["cp", "--sparse=always", str(source), str(to / name)], check=True)
            found.append(to / name if source is not None else None)
        return Image(to / "image", *found[1:])


def make(shape: Shape, directory: Path) -> Image:
    """A new, empty filesystem."""
    directory.mkdir(parents=True, exist_ok=True)
    image = directory / "image"
    with image.open("wb") as out:
        out.truncate(shape.size)
    words = list(shape.mkfs)
    log, rt = directory / "log" if shape.log else None, directory / "rt" if shape.rt else None
    for path, size in ((log, shape.log), (rt, shape.rt)):
        if path is not None:
            with path.open("wb") as out:
                out.truncate(size)
    with kernel.loop_device(log) as device, kernel.loop_device(rt) as realtime:
        if device:
            at = words.index("-l") + 1 if "-l" in words else len(words) + 1
            words = words if "-l" in words else [*words, "-l", ""]
            words[at] = f"logdev={device},size={shape.log},{words[at]}".rstrip(",")
        if realtime:
            words[words.index("-r") + 1] += f",rtdev={realtime}"
        tool = kernel.xfsprogs("mkfs.xfs", shape.version)
        kernel.command(*tool, "-q", "-f", "-K", *words, image, environment=kernel.SMALL_ALLOWED)
    return Image(image, log, rt)


class Load:
    """A seeded mixed load in a directory.

    `realtime` puts new files onto the realtime device where it can.
    """

    def __init__(self, top: str, seed: int, *, realtime: bool = False) -> None:
        self.random = random.Random(seed)
        self.realtime = realtime
        self.top = top
        self.files: list[str] = []
        self.folders = [top]
        self.count = 0
        self.steps = 0

    def _new(self) -> str:
        self.count += 1
        name = f"n{self.count}" + "x" * self.random.choice((0, 0, 3, 20, 120))
        return os.path.join(self.random.choice(self.folders), name)

    def _pick(self) -> str:
        return self.random.choice(self.files)

    def step(self) -> None:
        """One operation."""
        self.steps += 1
        draw = self.random.random()
        if len(self.files) > 1500 and draw < 0.30:
            draw = 0.4  # enough: now as many go as came
        if not self.files or draw < 0.30:
            self._create()
        elif draw < 0.34:
            path = self._new()
            os.mkdir(path)
            self.folders.append(path)
        elif draw < 0.46:
            path = self._pick()
            self.files.remove(path)
            os.unlink(path)
        elif draw < 0.54:
            path, to = self._pick(), self._new()
            os.rename(path, to)
            self.files.remove(path)
            self.files.append(to)
        elif draw < 0.58:
            to = self._new()
            os.link(self._pick(), to, follow_symlinks=False)
            self.files.append(to)
        elif draw < 0.64:
            path = self._new()
            os.symlink("t" * self.random.choice((10, 60, 300, 1000)), path)
            self.files.append(path)
        elif draw < 0.72:
            self._attribute()
        elif draw < 0.90:
            self._write()
        elif draw < 0.93:
            self._truncate()
        elif draw < 0.95:
            self._reflink()
        elif draw < 0.97:
            found = self._regular()
            if found is not None:
                os.chmod(found, self.random.choice((0o600, 0o644, 0o755)))
        else:
            self._sync()

    def run(self, steps: int) -> None:
        """Many; a full disk stops nothing."""
        for _ in range(steps):
            try:
                self.step()
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self.files = [path for path in self.files if os.path.lexists(path)]

    def _regular(self) -> str | None:
        for _ in range(8):
            path = self._pick()
            if not os.path.islink(path):
                return path
        return None

    def _create(self) -> None:
        path = self._new()
        with open(path, "wb") as out:
            if self.realtime and self.random.random() < 0.7:
                lowlevel.set_flags(out.fileno(), "realtime")
            out.write(self.random.randbytes(self.random.choice((0, 1, 100, 5000, 70000))))
        self.files.append(path)

    def _attribute(self) -> None:
        path = self._regular()
        if path is None:
            return
        name = f"user.a{self.random.randrange(12)}"
        with contextlib.suppress(OSError):
            if self.random.random() < 0.7:
                os.setxattr(path, name, self.random.randbytes(self.random.choice((1, 30, 200, 2000, 20000))))
            else:
                os.removexattr(path, name)

    def _write(self) -> None:
        path = self._regular()
        if path is None:
            return
        with open(path, "r+b") as out:
            for _ in range(self.random.choice((1, 1, 4, 30))):
                out.seek(self.random.randrange(0, 2 << 20))
                out.write(self.random.randbytes(self.random.choice((1, 600, 9000))))
            if self.random.random() < 0.2:
                os.fsync(out.fileno())

    def _truncate(self) -> None:
        path = self._regular()
        if path is None:
            return
        with open(path, "r+b") as out:
            size = os.fstat(out.fileno()).st_size
            choice = self.random.randrange(3)
            if choice == 0:
                out.truncate(self.random.randrange(size + 1))
            elif choice == 1:
                lowlevel.fallocate(out.fileno(), lowlevel.FALLOC_KEEP_SIZE, 0, 256 << 10)
            else:
                mode = lowlevel.FALLOC_PUNCH_HOLE | lowlevel.FALLOC_KEEP_SIZE
                lowlevel.fallocate(out.fileno(), mode, 8192, 16384)

    def _reflink(self) -> None:
        source = self._regular()
        if source is None:
            return
        path = self._new()
        with open(source, "rb") as one, open(path, "wb") as other, contextlib.suppress(OSError):
            lowlevel.clone_range(one.fileno(), 0, 0, other.fileno(), 0)
        self.files.append(path)

    def _sync(self) -> None:
        if self.random.random() < 0.3:
            os.sync()
            return
        fd = os.open(self.random.choice(self.folders), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def small_load(top: str) -> None:
    """A little of everything, and next to no data: for the images that ship with the project."""
    for number in range(5):
        os.mkdir(f"{top}/d{number}")
    for number in range(60):
        with open(f"{top}/d{number % 5}/file-{number}-{'x' * (number % 40)}", "wb") as out:
            out.write(b"%d\n" % number * (number % 7))
        if number % 4 == 0:
            os.sync()
        if number % 3 == 0:
            os.setxattr(f"{top}/d{number % 5}/file-{number}-{'x' * (number % 40)}", "user.a", b"v" * number * 3)
    os.symlink("t" * 900, f"{top}/long")
    os.symlink("short", f"{top}/short")
    os.link(f"{top}/d0/file-0-", f"{top}/d1/linked")
    os.rename(f"{top}/d2", f"{top}/d3/renamed")
    os.sync()
    for number in range(5, 60, 5):
        os.unlink(f"{top}/d0/file-{number}-{'x' * (number % 40)}")
    os.chmod(f"{top}/d1", 0o700)
    with open(f"{top}/holes", "wb") as out:
        for block in range(30):
            out.seek(block * 40960)
            out.write(b"%d" % block)
        out.flush()
        os.fsync(out.fileno())
        out.truncate(500_000)


def abandon(
    shape: Shape, directory: Path, seed: int, steps: int = 400, *, flush_log: bool = True, rounds: int = 1,
    held_open: int = 0, settle: bool = False,
) -> Image:  # fmt: skip
    """Make, work (no `steps`: a little of everything), shut down.

    `rounds` clean mounts first move the log's head on; `held_open` files are unlinked while open; `settle` waits until
    the kernel has freed in the background what was unlinked, so that nothing is left but the log.
    """
    image = make(shape, directory)
    for turn in range(rounds):
        last = turn == rounds - 1
        with kernel.mounted(image.path, shape.mount, log=image.log) as point:
            top = os.path.join(point, f"round{turn}")
            os.mkdir(top)
            load = Load(top, seed + turn)
            held = []
            if steps:
                load.run(steps)
            else:
                small_load(top)
            if last and settle:
                os.statvfs(point)
                time.sleep(0.2)
                with contextlib.suppress(OSError), open(os.path.join(top, "last"), "wb") as out:  # the disk may be full
                    out.write(b"settled")
                    os.fsync(out.fileno())
            if last:
                for _ in range(min(held_open, len(load.files))):
                    path = load.files.pop()
                    if not os.path.islink(path):
                        held.append(os.open(path, os.O_RDONLY))
                    os.unlink(path)
                fd = os.open(point, os.O_RDONLY)
                try:
                    lowlevel.shutdown(fd, flush_log=flush_log)
                finally:
                    os.close(fd)
                    for one in held:
                        os.close(one)
    return image


@contextlib.contextmanager
def kernel_recovers(image: Image, options: str = "ro,noatime") -> Iterator[Path]:
    """Let the kernel mount, and so recover, an abandoned image: the device writable, the mount as the options say."""
    kernel.own_mounts()
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(kernel.loop_device(image.path))
        log = stack.enter_context(kernel.loop_device(image.log))
        words = options + (f",logdev={log}" if log else "")
        point = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pocketxfs-mount-")))
        kernel.command("mount", "-t", "xfs", "-o", words, str(device), point)
        try:
            yield point
        finally:
            kernel.command("umount", point)


def abandon_in_uml(
    shape: Shape,
    directory: Path,
    seed: int,
    steps: int,
    *,
    flush_log: bool = True,
    settle: bool = True,
    users: bool = False,
    killed_after_s: float | None = None,
) -> Image:
    """As `abandon`, by the kernel that runs as a process: for V4, quotas and realtime devices.

    With `killed_after_s` the load goes on after its steps, and that kernel is killed so much later.
    """
    image = make(shape, directory)
    marker = directory / "now"
    command = [
        "env", f"PYTHONPATH={Path(__file__).resolve().parents[2]}", os.path.realpath(sys.executable), "-m",
        "tests.journal.crash", uml.MOUNTPOINT, str(seed), str(steps), str(int(flush_log)), str(int(settle)),
        str(int(users)), str(int(bool(shape.rt))), *([str(marker)] if killed_after_s is not None else []),
    ]  # fmt: skip
    kill = (marker, killed_after_s) if killed_after_s is not None else None
    uml.run(image.path, [uml.Step(shape.mount, command)], log=image.log, rt=image.rt, kill=kill)
    return image


def main(
    point: str, seed: int, steps: int, flush_log: bool, settle: bool, users: bool, realtime: bool, marker: str = ""
) -> None:
    """The load, and the end of it, in a mounted filesystem."""
    load = Load(point, seed, realtime=realtime)
    if steps:
        load.run(steps)
    else:
        small_load(point)
    if marker:
        with open(marker, "wb"):
            pass
        load.run(1_000_000)
    if users:
        for index, path in enumerate(load.files):
            os.chown(path, index % 5 * 100, index % 3 * 1000, follow_symlinks=False)
    if settle:
        os.statvfs(point)
        time.sleep(0.5)
    fd = os.open(point, os.O_RDONLY)
    os.fsync(fd)
    lowlevel.shutdown(fd, flush_log=flush_log)


if __name__ == "__main__":
    main(sys.argv[1], *(int(word) for word in sys.argv[2:4]), *(word == "1" for word in sys.argv[4:8]), *sys.argv[8:])
