"""`find`: find(1)'s expressions over a tree in an image, in bounded memory.

An inode is read only where a test or an action needs it: by name and type, one runs over the directories alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .common.args import UsageError
from .common.expression import Entry, Expression, Test
from .common.target import split
from .common.text import named
from .common.walk import ENTRY, Walk
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode
    from .common.jsonout import JsonList

USAGE = "IMAGE[:PATH] [expression]"
ABOUT = """\
Tests: -name -iname -path -ipath -lname -type -size -empty -newer[XY] -[amc]time -[amc]min -perm -uid -gid
       -links -inum -samefile -true -false
Actions: -print -print0 -ls -printf -prune -quit;  also -maxdepth -mindepth -depth, ( ) ! -a -o ,
Paths, in tests too, are paths inside the image; -newermt and -newerct take a date."""
OPTIONS = ()
LONG_ONLY = True
_DT_DIR = 4


def run(run: Run) -> None:
    """One starting point, one expression."""
    words = run.args.operands
    if not words:
        raise UsageError("find: no image named")
    target = split(words[0])
    fs = run.open(target)
    top = fs.resolve(target.path, follow_symlinks=target.path.endswith(b"/"))
    json = None
    if run.args.json:
        from .common.jsonout import JsonList

        json = JsonList(run, "entries")
    expression = Expression(words[1:], run, fs, _adder(json) if json is not None else None)
    start = target.path if target.path == b"/" else target.path.rstrip(b"/")
    _search(run, fs, top, start or b"/", expression)
    if json is not None:
        json.end()


def _adder(json: JsonList) -> Test:
    """With --json what would be printed becomes an item, whichever way it would have been printed."""

    def add(entry: Entry) -> bool:
        status = entry.inode.stat()
        json.add({
            **named("path", entry.path), "ino": entry.ino, "mode": status.st_mode, "nlink": status.st_nlink,
            "uid": status.st_uid, "gid": status.st_gid, "size": status.st_size, "blocks": status.st_blocks,
            "mtime_ns": status.st_mtime_ns, "depth": entry.depth,
        })  # fmt: skip
        return True

    return add


def _search(run: Run, fs: FileSystem, top: Inode, start: bytes, expression: Expression) -> None:
    test, first, last = expression.test, expression.min_depth, expression.max_depth
    depth_first = expression.depth_first
    progress = run.progress("find")
    top_name = start.rpartition(b"/")[2] or b"/"

    def judge(entry: Entry) -> None:
        if entry.depth < first:
            return
        try:
            test(entry)
        except BrokenPipeError:
            raise
        except OSError as error:
            run.fail(entry.path, error)
        else:
            run.done += 1

    def beginning() -> Entry:
        return Entry(fs, start, top_name, top.ino, top.dtype, 0, start)

    goes_on = top.is_dir and last != 0
    if not (depth_first and goes_on):
        judge(beginning())
    if not goes_on or expression.stopped or (expression.pruned and not depth_first):
        return
    progress.expect(fs, top)
    walk = Walk(fs, top.ino, start if start.endswith(b"/") else start + b"/", run.fail)
    for event, name, ino, dtype in walk:
        depth = walk.depth
        if event != ENTRY:
            if depth_first:
                judge(Entry(fs, walk.prefix[:-1], name, ino, _DT_DIR, depth - 1, start) if depth > 1 else beginning())
                if expression.stopped:
                    return
            continue
        progress.tick()
        entry = Entry(fs, walk.prefix + name, name, ino, dtype, depth, start)
        if dtype == 0:
            try:
                dtype = entry.kind()
            except OSError as error:
                run.fail(entry.path, error)
                continue
        goes_on = dtype == _DT_DIR and (last is None or depth < last)
        expression.pruned = False
        if not (depth_first and goes_on):
            judge(entry)
            if expression.stopped:
                return
        if goes_on and (depth_first or not expression.pruned):
            try:
                walk.descend(name, ino)
            except OSError as error:
                run.fail(entry.path, error)
