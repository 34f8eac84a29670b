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
        Shape("external", (), log=8 << 20),
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
        Shape("v4-quota", ("-m", "crc=0,finobt=0,bigtime=0", "-l", "size=8m"), mount="uquota,gquota", uml=True),
        Shape("v5-quota", ("-l", "size=8m"), mount="uquota,gquota,pquota", uml=True),
        Shape("metadir", ("-m", "metadir=1,rmapbt=1", "-l", "size=16m"), version="next"),
    )
}


class Image(NamedTuple):
    """An abandoned filesystem."""

    path: Path
    log: Path | None

    def copy(self, to: Path) -> Image:
        """Another one like it."""
        to.mkdir(parents=True, exist_ok=True)
        pairs = [(self.path, to / "image")] + ([(self.log, to / "log")] if self.log else [])
        for source, target in pairs:
            subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
        return Image(to / "image", to / "log" if self.log else None)


def make(shape: Shape, directory: Path) -> Image:
    """A new, empty filesystem."""
    directory.mkdir(parents=True, exist_ok=True)
    image = directory / "image"
    with image.open("wb") as out:
        out.truncate(shape.size)
    log = None
    words = list(shape.mkfs)
    if shape.log:
        log = directory / "log"
        with log.open("wb") as out:
            out.truncate(shape.log)
    with kernel.loop_device(log) as device:
        if device:
            at = words.index("-l") + 1 if "-l" in words else len(words) + 1
            words = words if "-l" in words else [*words, "-l", ""]
            words[at] = f"logdev={device},size={shape.log},{words[at]}".rstrip(",")
        tool = kernel.xfsprogs("mkfs.xfs", shape.version)
        kernel.command(*tool, "-q", "-f", "-K", *words, image, environment=kernel.SMALL_ALLOWED)
    return Image(image, log)


class Load:
    """A seeded mixed load in a directory."""

    def __init__(self, top: str, seed: int) -> None:
        self.random = random.Random(seed)
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


def abandon(
    shape: Shape, directory: Path, seed: int, steps: int = 400, *, flush_log: bool = True, rounds: int = 1,
    held_open: int = 0, settle: bool = False,
) -> Image:  # fmt: skip
    """Make, work, shut down.

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
            load.run(steps)
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
) -> Image:
    """As `abandon`, by the kernel that runs as a process: for V4 and quotas."""
    image = make(shape, directory)
    command = [
        "env", f"PYTHONPATH={Path(__file__).resolve().parents[2]}", os.path.realpath(sys.executable), "-m",
        "tests.journal.crash", uml.MOUNTPOINT, str(seed), str(steps), str(int(flush_log)), str(int(settle)),
        str(int(users)),
    ]  # fmt: skip
    uml.run(image.path, [uml.Step(shape.mount, command)], log=image.log)
    return image


def main(point: str, seed: int, steps: int, flush_log: bool, settle: bool, users: bool) -> None:
    """The load, and the end of it, in a mounted filesystem."""
    load = Load(point, seed)
    load.run(steps)
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
    main(sys.argv[1], *(int(word) for word in sys.argv[2:4]), *(word == "1" for word in sys.argv[4:7]))
