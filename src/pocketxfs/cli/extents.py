"""`extents`: where files lie on the disk, in the form of `xfs_bmap -v` (with -p, unwritten extents marked).

Offsets and addresses are in 512-byte units, AG-OFFSET counts within the AG.  FLAGS are octal digits: 100000 shared,
010000 unwritten, 001000 and 000100 the extent does not begin or end on a stripe unit, 000010 and 000001 on a stripe
width.  The map is gone through twice, once for the widths of the columns, so that none of it need be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..inode.extents import extents_of
from .common.args import Option
from .common.text import named
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode

USAGE = "[-aAvps] IMAGE:PATH ..."
OPTIONS = (
    Option(("-a", "--attr"), "attr", "the attribute fork"),
    Option(("-A", "--all"), "all", "past the end too: the index blocks of a directory"),
    Option(("-v", "--verbose"), "verbose", "as it is anyway"),
    Option(("-p", "--prealloc"), "prealloc", "mark unwritten extents"),
    Option(("-s", "--short"), "short", "one plain line an extent, as xfs_bmap without -v"),
)
SHARED, UNWRITTEN = 0o100000, 0o010000
BEGIN_UNIT, END_UNIT, BEGIN_WIDTH, END_WIDTH = 0o1000, 0o100, 0o10, 0o1

#: (file offset, bytes, device offset or None, state, shared, realtime)
Piece = tuple[int, int, int | None, str, bool, bool]


def run(run: Run) -> None:
    """Each operand."""
    json = None
    if run.args.json:
        from .common.jsonout import JsonList

        json = JsonList(run, "extents")
    for target, fs, inode in run.each(follow=True):
        try:
            if json is not None:
                for start, nbytes, place, state, shared, realtime in pieces(run, fs, inode):
                    json.add({
                        **named("path", target.path), "file_offset": start, "bytes": nbytes, "device_offset": place,
                        "state": state, "shared": shared, "realtime": realtime,
                    })  # fmt: skip
            else:
                _show(run, fs, inode, target.path)
        except OSError as error:
            run.fail(target.path, error)
        else:
            run.done += 1
    if json is not None:
        json.end()


def pieces(run: Run, fs: FileSystem, inode: Inode) -> Iterator[Piece]:
    """The extents and holes of a fork; nothing at all where there are holes only."""
    attr = run.args.attr
    end = inode.size if inode.is_dir and not attr and not run.args.all else None
    hole: Piece | None = None
    found = False
    for piece in extents_of(fs.mount, inode, attr):
        if end is not None and piece[0] >= end:
            break
        if piece[2] is None and not found:
            hole = piece
            continue
        if hole is not None:
            yield hole
            hole = None
        found = True
        yield piece


class _Shape:
    """Widths of the columns, and what turns a piece into their text."""

    def __init__(self, fs: FileSystem, realtime: bool) -> None:
        geo = fs.geo
        self.realtime = realtime
        self.ag_sectors = geo.ag_blocks << geo.block_sectors_log
        self.unit = geo.sb.sb_unit << geo.block_sectors_log
        self.width = geo.sb.sb_width << geo.block_sectors_log
        self.file, self.block, self.offset, self.total = 16, 16, 16, 5
        self.ag = 2
        if realtime:
            self.ag = self.offset = 0

    def cells(self, piece: Piece) -> tuple[str, str, str, str, str]:
        """(file offset, block range, AG, AG offset, total)."""
        start, nbytes, place, *_ = piece
        first, count = start >> 9, nbytes >> 9
        where = f"[{first}..{first + count - 1}]:"
        if place is None:
            return where, "hole", "", "", str(count)
        sector = place >> 9
        blocks = f"{sector}..{sector + count - 1}"
        if self.realtime:
            return where, blocks, "", "", str(count)
        agno, inside = divmod(sector, self.ag_sectors)
        return where, blocks, str(agno), f"({inside}..{inside + count - 1})", str(count)

    def widen(self, piece: Piece) -> None:
        where, blocks, agno, inside, total = map(len, self.cells(piece))
        self.file, self.block = max(self.file, where), max(self.block, blocks)
        self.ag, self.offset = max(self.ag, agno), max(self.offset, inside)
        self.total = max(self.total, total)

    def flags(self, piece: Piece, prealloc: bool) -> int:
        """The flag word of an extent."""
        _, nbytes, place, state, shared, _ = piece
        if place is None:
            return 0
        begin, end = place >> 9, (place + nbytes) >> 9
        flags = SHARED if shared else 0
        if prealloc and state == "unwritten":
            flags |= UNWRITTEN
        if self.unit:
            flags |= (begin % self.unit != 0) * BEGIN_UNIT | (end % self.unit != 0) * END_UNIT
        if self.width:
            flags |= (begin % self.width != 0) * BEGIN_WIDTH | (end % self.width != 0) * END_WIDTH
        return flags


def _show(run: Run, fs: FileSystem, inode: Inode, path: bytes) -> None:
    write, prealloc, attr = run.out.write, run.args.prealloc, run.args.attr
    shape = _Shape(fs, inode.is_realtime and not attr)
    found = False
    for piece in pieces(run, fs, inode):
        found = True
        shape.widen(piece)
    name = run.name(path)
    if not found:
        write(name + b": no extents\n")
        return
    write(name + b":\n")
    if run.args.short:
        for number, piece in enumerate(pieces(run, fs, inode)):
            where, blocks, *_ = shape.cells(piece)
            write(f"\t{number}: {where} {blocks}\n".encode())
        return
    titles = ("FILE-OFFSET", "BLOCK-RANGE", "AG", "AG-OFFSET", "TOTAL")
    if shape.realtime:
        titles = ("FILE-OFFSET", "RT-BLOCK-RANGE", "", "", "TOTAL")
    head = " FLAGS" if prealloc or shape.unit else ""
    write(f"{'EXT':>4}: {_row(shape, titles)}{head}\n".encode())
    for number, piece in enumerate(pieces(run, fs, inode)):
        flags = shape.flags(piece, prealloc)
        mark = f" {flags:06o}" if flags or (prealloc and piece[2] is not None) else ""
        write(f"{number:4}: {_row(shape, shape.cells(piece))}{mark}\n".encode())


def _row(shape: _Shape, cells: tuple[str, str, str, str, str]) -> str:
    where, blocks, agno, inside, total = cells
    return (
        f"{where:<{shape.file}} {blocks:<{shape.block}} {agno:>{shape.ag}} {inside:<{shape.offset}} "
        f"{total:>{shape.total}}"
    )
