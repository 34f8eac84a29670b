"""`cp`: out of an image, with the destinations of cp(1).

Several sources need a directory to go into; one may be given a new name.  The root of an image (`IMAGE:`, `IMAGE:/`,
or any directory written with `/.` at its end) has no name of its own: what is in it goes into DEST.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from .common.args import Option, UsageError
from .common.target import Target, split
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode
    from .common.copyout import Copier

USAGE = "[-rpanvT] IMAGE:PATH ... DEST"
ABOUT = """\
Holes and hard links are kept; with -p owners (as root), modes, times, attributes and ACLs too.
IMAGE: and IMAGE:/ copy what is in the root into DEST.  No name and no link of an image leads outside DEST.
A file that cannot be read is named with the reason, and the rest is copied."""
OPTIONS = (
    Option(("-r", "-R", "--recursive"), "recursive", "directories with all below them"),
    Option(("-p", "--preserve"), "preserve", "modes, times, attributes, ACLs, and as root owners"),
    Option(("-a", "--archive"), "archive", "-r and -p"),
    Option(("-n", "--no-clobber"), "no_clobber", "leave what is there already"),
    Option(("-v", "--verbose"), "verbose", "name each file"),
    Option(("-t", "--target-directory"), "into", "the directory to copy into", "DIR"),
    Option(("-T", "--no-target-directory"), "exactly", "DEST is the copy's own name"),
)


class _Place(NamedTuple):
    """Where a source goes: a directory of the host, and the name there (None: into the directory itself)."""

    folder: str
    leaf: bytes | None


def run(run: Run) -> None:
    """Copy each source."""
    args = run.args
    words = list(args.operands)
    if args.into is not None and args.exactly:
        raise UsageError("cp: -t and -T exclude each other")
    if len(words) < (1 if args.into is not None else 2):
        raise UsageError("cp: a source and a destination are needed")
    dest = args.into if args.into is not None else words.pop()
    targets = [split(word) for word in words]
    several = len(targets) > 1
    if (several or args.into is not None) and not os.path.isdir(dest):
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", dest)
    if several and args.exactly:
        raise UsageError("cp: -T takes one source")
    recursive, preserve = bool(args.recursive or args.archive), bool(args.preserve or args.archive)
    copier: Copier | None = None
    opened: tuple[str, str] | None = None
    totals = [0, 0, 0, 0]
    try:
        for target in targets:
            try:
                fs = run.open(target)
                follow = not recursive or target.path.endswith(b"/")
                inode = fs.resolve(target.path, follow_symlinks=follow)
                if inode.is_dir and not recursive:
                    raise OSError(errno.EISDIR, "is a directory (-r copies directories)")
            except OSError as error:
                run.fail(target.shown, error)
                continue
            place = _place(target, inode, dest, several or args.into is not None, bool(args.exactly))
            if copier is None or opened != (target.image, place.folder):
                _finish(copier, totals)
                copier = None
                copier = _begin(run, target, place.folder, recursive, preserve)
                opened = (target.image, place.folder)
            _one(copier, fs, inode, target, place)
    finally:
        _finish(copier, totals)
    if args.json:
        from .common.jsonout import document

        files, folders, links, nbytes = totals
        document(run, files=files, directories=folders, hard_links=links, data_bytes=nbytes, failed=run.failed)


def _begin(run: Run, target: Target, folder: str, recursive: bool, preserve: bool) -> Copier:
    from .common.copyout import Copier

    base = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        copier = Copier(
            run, base, os.fsencode(folder), recursive=recursive, preserve=preserve,
            no_clobber=bool(run.args.no_clobber), verbose=bool(run.args.verbose),
        )  # fmt: skip
        for path in (target.image, run.args.rtdev, run.args.logdev):
            if path is not None:
                copier.protect(path)
    except BaseException:
        os.close(base)
        raise
    return copier.__enter__()


def _finish(copier: Copier | None, totals: list[int]) -> None:
    if copier is None:
        return
    copier.__exit__()
    os.close(copier.base)
    for index, count in enumerate((copier.files, copier.folders, copier.linked, copier.nbytes)):
        totals[index] += count


def _one(copier: Copier, fs: FileSystem, inode: Inode, target: Target, place: _Place) -> None:
    if inode.is_dir:
        copier.tree(fs, inode, target.path.rstrip(b"/") or b"/", place.leaf)
    else:
        assert place.leaf is not None
        copier.single(fs, inode, target.path, place.leaf)


def _place(target: Target, inode: Inode, dest: str, into: bool, exactly: bool) -> _Place:
    """Where a source goes, by cp(1)'s rules."""
    own = target.path.rstrip(b"/").rpartition(b"/")[2]
    nameless = inode.is_dir and own in (b"", b".", b"..")
    slash = dest.endswith("/")
    if not exactly and (into or os.path.isdir(dest)):
        return _Place(dest, None if nameless else own)
    if exactly and inode.is_dir and os.path.isdir(dest):
        return _Place(dest, None)
    if not inode.is_dir and slash:
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", dest)
    parent, leaf = os.path.split(dest.rstrip("/") or "/")
    if leaf in ("", ".", ".."):
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", dest)
    if inode.is_dir and os.path.lexists(dest):
        raise FileExistsError(errno.EEXIST, "is there and is no directory", dest)
    return _Place(parent or ".", os.fsencode(leaf))
