"""`memory`: walk a tree, or read all of it, and show what memory that took."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError
from .common.args import Option
from .common.output import STAGING_BYTES
from .common.report import lines, with_process
from .common.walk import ENTRY, Walk
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode

USAGE = "[--read] IMAGE[:PATH], or a DIRECTORY where one is mounted"
ABOUT = """The arena's high-water mark, the free lists as /proc/buddyinfo shows them, buffers by kind, device calls."""
OPTIONS = (Option(("--read",), "read", "read every file and attribute, not inodes alone"),)
_DATA = 1
_DIR, _REG, _LNK = 0o040000, 0o100000, 0o120000


def run(run: Run) -> None:
    """Do the work, then tell."""
    run.targets(1, 1)
    if os.path.isdir(run.args.operands[0]):
        _live(run, run.args.operands[0])
        return
    for target, fs, inode in run.each(follow=True):
        work = {"directories": 0, "files": 0, "bytes_read": 0}
        _walk(run, fs, inode, target.path, work)
        run.done += 1
        _show(run, {"image": target.image, "work": work, **with_process(fs.memory_report())})


def _live(run: Run, directory: str) -> None:
    """The report of a mount, from the process that serves it."""
    from ..fuse.live import report_of

    report = report_of(directory)
    run.done += 1
    _show(run, {"image": directory, **report, "process_peak_rss_bytes": report["session"]["peak_rss_bytes"]})


def _show(run: Run, report: dict[str, Any]) -> None:
    if run.args.json:
        from .common.jsonout import document

        document(run, report=report, failed=run.failed)
    else:
        text = "".join(line + "\n" for line in lines(report))
        run.out.write(text.encode("utf-8", "surrogateescape"))


def _walk(run: Run, fs: FileSystem, top: Inode, path: bytes, work: dict[str, int]) -> None:
    staging = memoryview(bytearray(STAGING_BYTES)) if run.args.read else None
    progress = run.progress("memory")
    if not top.is_dir:
        work["files"] += 1
        if staging is not None:
            work["bytes_read"] += _read(fs, top, staging)
        return
    work["directories"] += 1
    progress.expect(fs, top)
    walk = Walk(fs, top.ino, path if path.endswith(b"/") else path + b"/", run.fail)
    for event, name, ino, _ in walk:
        if event != ENTRY:
            continue
        progress.tick()
        try:
            inode = fs.trusted_inode(ino)
            if inode.mode & 0o170000 == _DIR:
                walk.descend(name, ino)
                work["directories"] += 1
                continue
            work["files"] += 1
            if staging is not None:
                work["bytes_read"] += _read(fs, inode, staging)
        except OSError as error:
            run.fail(walk.prefix + name, error)


def _read(fs: FileSystem, inode: Inode, staging: memoryview) -> int:
    """Everything that an inode has; bytes of file data."""
    for name, _ in fs.xattrs(inode):
        fs.xattr(inode, name)
    kind = inode.mode & 0o170000
    if kind == _LNK:
        fs.readlink_inode(inode)
    done = 0
    if kind == _REG:
        for piece in fs.map(inode, 0, inode.size):  # holes may be of any length
            offset, end = piece.file_offset, piece.file_offset + piece.nbytes
            while piece.state == _DATA and offset < end:
                count = fs.read_inode(inode, offset, staging[: end - offset])
                if count <= 0:
                    raise DeviceError(f"inode {inode.ino}: no data at byte {offset}")
                offset += count
                done += count
    return done
