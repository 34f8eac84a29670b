"""`mount`: an image in a directory, served by a small process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common.args import Option, UsageError

if TYPE_CHECKING:
    from .run import Run

USAGE = "[-f] [-o OPTIONS] IMAGE DIRECTORY"
ABOUT = """Returns when the mount is usable.  OPTIONS are separated by commas: ro, allow_other, default_permissions,
fsname=, memory=SIZE or mb=N, buffers=, machine=, partition=N or part=N, offset=, logdev=, rtdev=, norecovery, log=FILE,
lock=FILE, suid, dev, noexec, and lklfuse's type=xfs and opts=.  SIGTERM or `pocketxfs umount DIRECTORY` unmounts."""


def _options() -> tuple[Option, ...]:
    given: list[str] = []

    def collect(text: str) -> str:
        given.append(text)
        return ",".join(given)

    return (
        Option(("-f", "--foreground"), "foreground", "stay in the foreground, log to standard error"),
        Option(("-o",), "mount_options", "mount options; may be given again", "OPTIONS", collect, ""),
    )


def __getattr__(name: str) -> Any:
    if name == "OPTIONS":  # made anew for each command line: `-o` adds up
        return _options()
    raise AttributeError(name)


def run(run: Run) -> None:
    """Mount; in the foreground, serve until the mount is gone."""
    from ..fuse.daemon import mount
    from ..fuse.options import MountOptions

    args = run.args
    if len(args.operands) != 2:
        raise UsageError("mount: an image and a directory are needed")
    options = MountOptions()
    options.memory, options.buffers, options.machine = args.memory, args.buffers, args.machine
    options.partition, options.offset = args.partition, args.offset
    options.logdev, options.rtdev = args.logdev, args.rtdev
    options.norecovery, options.force = args.norecovery, args.force
    options.foreground = args.foreground
    options.take(args.mount_options)
    for note in options.notes:
        run.message(f"{args.operands[0]}: {note}")
    mount(args.operands[0], args.operands[1], options)
    run.done += 1
