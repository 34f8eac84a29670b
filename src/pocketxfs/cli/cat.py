"""`cat`: files to standard output, holes and unwritten extents as zeros."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import posix
from .common.output import Writer
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode

USAGE = "IMAGE:PATH ..."
OPTIONS = ()


def run(run: Run) -> None:
    """Each file after the other."""
    progress = run.progress("cat")
    with Writer(run.out) as writer:
        for target, fs, inode in run.each(follow=True):
            try:
                copy(fs, inode, writer, progress.tick)
            except BrokenPipeError:
                raise
            except OSError as error:
                if writer.broken:
                    raise
                run.fail(target.path, error)
            else:
                run.done += 1


def copy(fs: FileSystem, inode: Inode, writer: Writer, tick: Callable[[], None]) -> None:
    """One file."""
    if inode.is_dir:
        raise posix(errno.EISDIR)
    offset = 0
    while offset < inode.size:
        offset += writer.fill(fs, inode, offset, inode.size - offset)
        tick()
