"""`umount`: take a mount away, and wait until its process has let go of the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import Unsupported
from .common.args import Option, UsageError

if TYPE_CHECKING:
    from .run import Run

USAGE = "[-l] DIRECTORY..."
OPTIONS = (Option(("-l", "--lazy"), "lazy", "detach now what is still in use, and end when it is not"),)
WAIT_MS = 10000


def run(run: Run) -> None:
    """Unmount each directory."""
    if not run.args.operands:
        raise UsageError("umount: no directory named")
    for directory in run.args.operands:
        try:
            _unmount(os.path.realpath(directory), run.args.lazy)
        except OSError as error:
            run.fail(os.fsencode(directory), error)
        else:
            run.done += 1


def _unmount(directory: str, lazy: bool) -> None:
    from ..fuse.live import is_mount, pid_of
    from ..fuse.mounting import unmount

    if not is_mount(directory):
        raise Unsupported("not a pocketxfs mount")
    pid = pid_of(directory)
    process = None
    if pid is not None:
        try:
            process = os.pidfd_open(pid)
        except OSError:
            process = None  # another namespace's number, or gone already
    try:
        unmount(directory, lazy=lazy)
        if process is not None and not lazy:
            import select

            waiting = select.poll()
            waiting.register(process, select.POLLIN)
            waiting.poll(WAIT_MS)
    finally:
        if process is not None:
            os.close(process)
