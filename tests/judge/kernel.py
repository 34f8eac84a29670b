"""Make filesystems with the kernel, keep them, and ask the kernel what is in them.

`ensure(recipe)` gives an image and the kernel's manifest of it from the cache, `~/.cache/pocketxfs-images` or
`$POCKETXFS_IMAGES`, made first where missing or out of date; images are sparse files.  `mounted` mounts any image.

Clean-up is the kernel's: the first mount puts this process in a mount namespace of its own, and with the process end
its mounts and their loop devices, however it ends.  Several processes may build at once: a lock a recipe.  Needs root.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import lowlevel, populate, uml
from .recipes import Recipe

HERE = Path(__file__).resolve().parent
#: Changed when images must be made anew though no recipe changed.
EDITION = 1
#: mkfs.xfs refuses filesystems under 300 MB unless its own tests run it.
SMALL_ALLOWED = {"TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}


class Built(NamedTuple):
    """A filesystem of the cache."""

    recipe: Recipe
    image: Path
    log: Path | None
    rt: Path | None
    manifest: Path


def cache_directory() -> Path:
    """Where images are kept."""
    named = os.environ.get("POCKETXFS_IMAGES")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketxfs-images"


def tools_directory() -> Path:
    """Where tools/install-judges unpacks the next release's xfsprogs."""
    named = os.environ.get("POCKETXFS_JUDGES")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketxfs-judges"


def xfsprogs(tool: str, version: str = "6.1") -> list[str]:
    """The command for a tool of either xfsprogs."""
    root = tools_directory() / "root"
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    if version != "next" or (not loader.exists() and _release_is_next()):
        return [tool]
    return [str(loader), "--library-path", str(root / "usr/lib/x86_64-linux-gnu"), str(root / "usr/sbin" / tool)]


@functools.cache
def _release_is_next() -> bool:
    """Whether this machine's own xfsprogs already are 6.13 or later."""
    if not shutil.which("mkfs.xfs"):
        return False
    number = command("mkfs.xfs", "-V").split()[-1].split(".")
    return (int(number[0]), int(number[1])) >= (6, 13)


@functools.cache
def missing(judge: str = "kernel", version: str = "6.1") -> str | None:
    """Name what a recipe's judge lacks on this machine, or None."""
    if sys.platform != "linux":
        return "Linux"
    if not shutil.which("mkfs.xfs"):
        return "mkfs.xfs (Debian: xfsprogs)"
    if version == "next" and not shutil.which(xfsprogs("mkfs.xfs", version)[0]):
        return "xfsprogs 6.13 or later (tools/install-judges)"
    if judge == "uml" and uml.missing():
        return uml.missing()
    if os.geteuid() != 0:
        return "root, to mount filesystems"
    if not os.path.exists("/dev/loop-control"):
        return "loop devices"
    if judge == "kernel":
        known = Path("/proc/filesystems")
        if "\txfs\n" not in known.read_text() and shutil.which("modprobe"):
            subprocess.run(["modprobe", "xfs"], stderr=subprocess.DEVNULL, check=False)
        if "\txfs\n" not in known.read_text():
            return "XFS in this machine's kernel"
    return None


def lacks(recipe: Recipe) -> str | None:
    """As `missing`, for a recipe."""
    return missing(recipe.judge, recipe.xfsprogs)


def command(*arguments: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run a program, give its output; an error carries what it said."""
    done = subprocess.run(
        [str(word) for word in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})}, check=False,
    )  # fmt: skip
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: exit {done.returncode}: {output.strip()[-2000:]}")
    return output


@functools.cache
def own_mounts() -> None:
    """From here on, mounts are this process's and its children's, and end with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, ms_rec_private = 0x20000, 0x4000 | 0x40000
    if libc.unshare(clone_newns) or libc.mount(b"none", b"/", None, ctypes.c_ulong(ms_rec_private), None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount namespace: {os.strerror(number)}")


def _patiently(*arguments: str | Path) -> str:
    """Programs that take a free loop device can lose it to a neighbour: try again."""
    for wait in (0.02, 0.05, 0.1, 0.3, 1.0):
        try:
            return command(*arguments)
        except RuntimeError as error:
            if "loop" not in str(error):
                raise
            time.sleep(wait)
    return command(*arguments)


@contextlib.contextmanager
def loop_device(path: Path | None, *, read_only: bool = False) -> Iterator[str | None]:
    """A loop device for a file; None for None.  Goes when last used."""
    if path is None:
        yield None
        return
    device = _patiently("losetup", "--find", "--show", *(["--read-only"] if read_only else []), path).strip()
    try:
        yield device
    finally:
        command("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(
    image: Path, options: str = "", *, read_only: bool = False, log: Path | None = None, rt: Path | None = None
) -> Iterator[Path]:
    """The image mounted by the machine's kernel."""
    own_mounts()
    with contextlib.ExitStack() as stack:
        point = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pocketxfs-mount-")))
        words = ["loop", *([options] if options else []), *(["ro"] if read_only else [])]
        for option, path in (("logdev", log), ("rtdev", rt)):
            device = stack.enter_context(loop_device(path, read_only=read_only))
            if device:
                words.append(f"{option}={device}")
        _patiently("mount", "-t", "xfs", "-o", ",".join(words), image, point)
        try:
            yield point
        finally:
            _unmount(point)


def _unmount(point: Path) -> None:
    for wait in (0.05, 0.2, 1.0):
        try:
            command("umount", point)
            return
        except RuntimeError as error:
            if "busy" not in str(error):
                raise
            time.sleep(wait)
    command("umount", "--lazy", point)


def make_empty(built: Built) -> None:
    """The files of a filesystem, and mkfs."""
    recipe = built.recipe
    with built.image.open("wb") as out:
        for _ in range(recipe.size >> 20 if recipe.prefill else 0):
            out.write(b"\xab" * (1 << 20))
        out.truncate(recipe.size)
    for path, size in ((built.log, recipe.log), (built.rt, recipe.rt)):
        if path:
            with path.open("wb") as out:
                out.truncate(size)
    with loop_device(built.log) as log, loop_device(built.rt) as rt:
        words = list(recipe.mkfs)
        for flag, option, device in (("-l", "logdev", log), ("-r", "rtdev", rt)):
            if device and flag in words:
                words[words.index(flag) + 1] += f",{option}={device}"
            elif device:
                words += [flag, f"{option}={device}"]
        command(
            *xfsprogs("mkfs.xfs", recipe.xfsprogs), "-q", "-f", "-K", *words, built.image, environment=SMALL_ALLOWED
        )


def _program(name: str, *arguments: str | Path) -> list[str]:
    return [os.path.realpath(sys.executable), str(HERE / name), *map(str, arguments)]


def _show_options(recipe: Recipe) -> str:
    words = ["ro", "noatime", "nouuid", *(["norecovery"] if recipe.dirty else [])]
    return ",".join(words + [word for word in recipe.mount.split(",") if word == "noattr2"])


def fill(built: Built) -> None:
    """Run the recipe's parts in it."""
    recipe = built.recipe
    for parts in filter(None, (recipe.parts, recipe.later)):
        with mounted(built.image, recipe.mount, log=built.log, rt=built.rt) as point:
            command(*_program("populate.py", point, json.dumps(parts)))
            if recipe.dirty and parts is (recipe.later or recipe.parts):
                fd = os.open(point, os.O_RDONLY)
                try:
                    lowlevel.shutdown(fd)
                finally:
                    os.close(fd)
    if recipe.new_uuid:
        command("xfs_admin", "-U", "generate", built.image)


def show(built: Built) -> None:
    """Write the kernel's manifest."""
    with mounted(built.image, _show_options(built.recipe), log=built.log, rt=built.rt) as point:
        command(*_program("manifest.py", point, built.manifest))


def by_uml(built: Built, *, new: bool) -> None:
    """Fill, where new, and show, in one start of user-mode Linux."""
    recipe, steps = built.recipe, []
    for parts in filter(None, (recipe.parts, recipe.later)) if new else ():
        steps.append(uml.Step(recipe.mount, _program("populate.py", uml.MOUNTPOINT, json.dumps(parts))))
    steps.append(uml.Step(_show_options(recipe), _program("manifest.py", uml.MOUNTPOINT, built.manifest)))
    uml.run(built.image, steps, rt=built.rt, log=built.log)


def _source(*functions: Callable[..., Any]) -> str:
    """What they do, however it is laid out and commented."""
    return "".join(ast.unparse(ast.parse(inspect.getsource(function))) for function in functions)


@functools.cache
def _mkfs_version(version: str) -> str:
    return command(*xfsprogs("mkfs.xfs", version), "-V")


def recipe_key(recipe: Recipe) -> str:
    """A hash of all that an image follows from."""
    parts = {name for name, _ in (*recipe.parts, *recipe.later)}
    used = [populate.PARTS[name] for name in sorted(parts)]
    helpers = (populate.pattern, populate.names, populate.colliding, populate.every_other, populate.acl)
    if parts & {"scattered", "sparse_inodes"}:
        helpers += (populate.fill_up,)
    state = hashlib.sha256()
    for text in (
        str(EDITION),
        repr(tuple(recipe._replace(slow=False))),
        _mkfs_version(recipe.xfsprogs),
        _source(*used, *helpers),
    ):
        state.update(text.encode())
    return state.hexdigest()[:12]


@functools.cache
def manifest_key() -> str:
    """A hash of what writes manifests."""
    text = b"".join((HERE / name).read_bytes() for name in ("manifest.py", "digest.py", "lowlevel.py"))
    return hashlib.sha256(text).hexdigest()[:12]


def _placed(recipe: Recipe, directory: Path) -> Built:
    return Built(
        recipe, directory / "image", directory / "log" if recipe.log else None, directory / "rt" if recipe.rt else None,
        directory / f"manifest-{manifest_key()}.gz",
    )  # fmt: skip


def make(recipe: Recipe, directory: Path) -> Built:
    """A new filesystem and its manifest, in an empty directory."""
    built = _placed(recipe, directory)
    make_empty(built)
    if recipe.judge == "uml":
        by_uml(built, new=True)
    else:
        fill(built)
        show(built)
    return built


def _make_cached(recipe: Recipe, home: Path, key: str) -> None:
    """Build beside `home` and move there when complete; `key` is written last."""
    shutil.rmtree(home, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{recipe.name}-", dir=home.parent) as work:
        make(recipe, Path(work))
        home.mkdir()
        for path in Path(work).iterdir():
            path.rename(home / path.name)
        (home / "key").write_text(key)


def ensure(recipe: Recipe) -> Built:
    """The image and the manifest of a recipe, from the cache or made now.  Do not write to them."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / recipe.name
    with (cache / f".{recipe.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        key, note = recipe_key(recipe), home / "key"
        if not note.exists() or note.read_text() != key:
            _make_cached(recipe, home, key)
        built = _placed(recipe, home)
        if not built.manifest.exists():
            for stale in home.glob("manifest-*"):
                stale.unlink()
            partial = built._replace(manifest=home / "partial.gz")
            if recipe.judge == "uml":
                by_uml(partial, new=False)
            else:
                show(partial)
            partial.manifest.rename(built.manifest)
        return built


def main(arguments: list[str]) -> int:
    """Make the named recipes, or all that are not slow:  python -m tests.judge.kernel [NAME...]"""
    from . import recipes

    status = 0
    for name in arguments or [name for name, recipe in recipes.ALL.items() if not recipe.slow]:
        recipe = recipes.ALL[name]
        began = time.monotonic()
        lacking = lacks(recipe)
        if lacking:
            print(f"{name}: not made: needs {lacking}", flush=True)
            continue
        try:
            built = ensure(recipe)
        except (RuntimeError, OSError, uml.UmlError) as error:
            print(f"{name}: FAILED: {error}", flush=True)
            status = 1
            continue
        used = built.image.stat().st_blocks >> 11
        print(f"{name}: {built.image} ({used} MiB used), {time.monotonic() - began:.1f} s", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
