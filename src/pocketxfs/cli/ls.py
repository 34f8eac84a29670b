"""`ls`: directories, sorted, in bounded memory.

A directory is read once, in the disk's order; what is to be shown of each entry goes through an external sort, so a
directory of ten million names is listed in the memory of one of ten thousand.  Directories still to be listed (-R)
wait on a stack that spills.  Owners are numbers (0 is root): an image's names for them are not the host's.
"""

from __future__ import annotations

import os
import time
from struct import Struct
from typing import TYPE_CHECKING, Any

from ..errors import Corrupt
from .common.args import Option
from .common.attributes import has_acl
from .common.spill import Sorter, Stack
from .common.text import device_numbers, escaped, full_time, human, mode_string, named, owner_name, short_time
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode
    from .common.jsonout import JsonList

USAGE = "[-laARihnd1rtSUs] IMAGE[:PATH] ..."
ABOUT = """One name a line where the output is not a terminal.  Names are sorted by their bytes."""
OPTIONS = (
    Option(("-l",), "long", "long format"),
    Option(("-n", "--numeric-uid-gid"), "numeric", "long format, 0 not called root"),
    Option(("-a", "--all"), "all", "names that begin with a dot too"),
    Option(("-A", "--almost-all"), "almost", "the same without . and .."),
    Option(("-R", "--recursive"), "recursive", "directories below too"),
    Option(("-i", "--inode"), "inode", "inode numbers"),
    Option(("-s", "--size"), "blocks", "the space that each takes, in KiB"),
    Option(("-h", "--human-readable"), "human", "sizes as 1.1K, 2.0M"),
    Option(("-d", "--directory"), "directory", "directories themselves, not what is in them"),
    Option(("-1",), "single", "one name a line"),
    Option(("-C",), "columns", "columns, on a pipe too"),
    Option(("-r", "--reverse"), "reverse", "the other way round"),
    Option(("-t",), "sort", "newest first", const="time"),
    Option(("-S",), "sort", "largest first", const="size"),
    Option(("-U",), "sort", "the disk's order, unsorted", const="none"),
    Option(("--full-time",), "full_time", "long format, times in full"),
)

#: Sort key, then this, then the name: ino, mode, nlink, uid, gid, size, blocks of 512, rdev, mtime in
#: seconds and its nanoseconds, whether it has an ACL.
_FACTS = Struct("<QIIIIQQQqI?")
#: The same where nothing but readdir's word is wanted: ino, mode (the type of it).
_FEW = Struct("<QI")
_TOP = 1 << 64
_DT_DIR = 4


class _Lister:
    def __init__(self, run: Run, json: JsonList | None) -> None:
        args = run.args
        self.run, self.json = run, json
        self.long = bool(args.long or args.numeric or args.full_time)
        self.sort: str = args.sort or "name"
        self.hidden = bool(args.all or args.almost)
        #: Whether more than readdir tells is shown.
        self.deep = self.long or bool(args.blocks) or self.sort in ("time", "size") or json is not None
        self.form = _FACTS if self.deep else _FEW
        self.columns = bool(args.columns or (run.terminal and not args.single)) and not self.long
        self.now = time.time()
        self.several = False
        self.first = True
        self.ordinal = 0

    # -- gathering ---------------------------------------------------------------------------------------------

    def record(self, fs: FileSystem, name: bytes, ino: int, dtype: int, inode: Inode | None) -> bytes:
        """What is sorted: the key, the facts, the name."""
        if not self.deep:
            facts = _FEW.pack(ino, inode.mode if inode is not None else dtype << 12)
            size = mtime = 0
        elif inode is None:
            facts = _FACTS.pack(ino, dtype << 12, 0, 0, 0, 0, 0, 0, 0, 0, False)
            size = mtime = 0
        else:
            stat = inode.stat()
            size, mtime = stat.st_size, stat.st_mtime_ns
            facts = _FACTS.pack(
                ino, stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid, size, stat.st_blocks, stat.st_rdev,
                *divmod(mtime, 10**9), self.long and has_acl(fs, inode),
            )  # fmt: skip
        if self.sort == "none":
            self.ordinal += 1
            return self.ordinal.to_bytes(9, "big") + name + b"\0" + facts
        if self.sort == "time":
            return (_TOP - mtime).to_bytes(9, "big") + name + b"\0" + facts
        if self.sort == "size":
            return (_TOP - size).to_bytes(9, "big") + name + b"\0" + facts
        return name + b"\0" + facts

    def taken_apart(self, record: bytes) -> tuple[bytes, tuple[int, ...]]:
        """(name, facts) of a record."""
        form = self.form
        start = 0 if self.sort == "name" else 9
        return record[start : -form.size - 1], form.unpack_from(record, len(record) - form.size)

    def gather(self, fs: FileSystem, parent: Inode, path: bytes, into: Sorter) -> tuple[int, _Widths]:
        """Read a directory into a sorter; (its blocks of 512 in all, the widths of its columns)."""
        run, hidden, show_dots = self.run, self.hidden, self.run.args.all and self.json is None
        widths = _Widths(self)
        total = 0
        try:
            for name, ino, dtype, _ in fs.readdir(parent):
                if name[:1] == b"." and (not hidden or (name in (b".", b"..") and not show_dots)):
                    continue
                inode = None
                if self.deep or dtype == 0:
                    try:
                        inode = fs.trusted_inode(ino)
                    except OSError as error:
                        run.fail(_join(path, name), error)
                record = self.record(fs, name, ino, dtype, inode)
                into.add(record)
                run.done += 1
                if self.deep:
                    facts = _FACTS.unpack_from(record, len(record) - _FACTS.size)
                    total += facts[6]
                    widths.widen(self, facts)
        except OSError as error:
            run.fail(path, error)
        return total, widths

    # -- a directory -------------------------------------------------------------------------------------------

    def directory(self, fs: FileSystem, parent: Inode, path: bytes, below: Stack | None, depth: int = 0) -> None:
        """List one directory; with -R its subdirectories are pushed on `below`, the first to come on top."""
        run = self.run
        with Sorter(reverse=run.args.reverse) as entries:
            total, widths = self.gather(fs, parent, path, entries)
            if self.json is None:
                self.heading(path, total)
            waiting = Sorter(reverse=True) if below is not None else None
            held: list[bytes] = []
            wide = 0
            number = 0
            for record in entries:
                name, facts = self.taken_apart(record)
                if waiting is not None and facts[1] >> 12 == _DT_DIR and name not in (b".", b".."):
                    number += 1
                    waiting.add(number.to_bytes(8, "big") + facts[0].to_bytes(8, "big") + _join(path, name))
                if self.columns and self.json is None:
                    shown = self.cell(name, facts)
                    held.append(shown)
                    wide += len(shown) + 2
                    if wide > 1 << 20:
                        self.flush_columns(held)
                        held, wide = [], 0
                else:
                    self.line(fs, path, name, facts, widths)
            self.flush_columns(held)
            if waiting is not None and below is not None:
                with waiting:
                    for record in waiting:
                        below.push(depth.to_bytes(4, "big") + record[8:])

    def heading(self, path: bytes, total: int) -> None:
        """The name of the directory, where there are several, and the blocks in it."""
        out = self.run.out
        if self.several:
            if not self.first:
                out.write(b"\n")
            out.write(self.run.name(path) + b":\n")
        self.first = False
        if self.long or self.run.args.blocks:
            out.write(f"total {self.space(total)}\n".encode())

    def space(self, blocks: int) -> str:
        return human(blocks << 9) if self.run.args.human else str((blocks + 1) >> 1)

    def cell(self, name: bytes, facts: tuple[int, ...]) -> bytes:
        """An entry in a column."""
        head = f"{facts[0]} " if self.run.args.inode else ""
        if self.run.args.blocks:
            head += f"{self.space(facts[6])} "
        return head.encode() + self.run.name(name)

    def flush_columns(self, cells: list[bytes]) -> None:
        """Write cells in columns, down first, as ls does."""
        if not cells:
            return
        try:
            total = os.get_terminal_size(self.run.out.fileno()).columns
        except (OSError, ValueError):
            total = 80
        lengths = [_display_width(cell) for cell in cells]
        most = max(1, min(len(cells), total // 3))
        for columns in range(most, 0, -1):
            rows = -(-len(cells) // columns)
            widths = [max(lengths[at : at + rows]) + 2 for at in range(0, len(cells), rows)]
            if sum(widths) - 2 <= total or columns == 1:
                break
        write = self.run.out.write
        for row in range(rows):
            line = b""
            for column, at in enumerate(range(row, len(cells), rows)):
                last = at + rows >= len(cells)
                line += cells[at] + (b"" if last else b" " * (widths[column] - lengths[at]))
            write(line + b"\n")

    # -- an entry ----------------------------------------------------------------------------------------------

    def line(self, fs: FileSystem, path: bytes, name: bytes, facts: tuple[int, ...], widths: _Widths) -> None:
        """Write an entry by itself."""
        run = self.run
        if self.json is not None:
            self.json.add(self.as_json(fs, path, name, facts))
            return
        if not self.long:
            run.out.write(self.cell(name, facts) + b"\n")
            return
        ino, mode, nlink, uid, gid, size, blocks, rdev, seconds, rest, acl = facts
        mtime = seconds * 10**9 + rest
        head = f"{ino:{widths.ino}} " if run.args.inode else ""
        if run.args.blocks:
            head += f"{self.space(blocks):>{widths.space}} "
        if _unread(facts):
            text = head + "??????????" + f" {'?':>{widths.nlink}} ? ? {'?':>{widths.size}}            ? "
            run.out.write(text.encode() + run.name(name) + b"\n")
            return
        owner = str if run.args.numeric else owner_name
        mark = "+" if acl else " " * widths.acl
        when = full_time(mtime) if run.args.full_time else short_time(seconds, self.now)
        text = (
            f"{head}{mode_string(mode)}{mark} {nlink:{widths.nlink}} "
            f"{owner(uid):<{widths.uid}} {owner(gid):<{widths.gid}} "
            f"{self.size(mode, size, rdev):>{widths.size}} {when} "
        )
        shown = text.encode() + run.name(name)
        if mode & 0o170000 == 0o120000:
            try:
                shown += b" -> " + run.name(fs.readlink_inode(fs.trusted_inode(ino)))
            except OSError as error:
                run.fail(_join(path, name), error)
        run.out.write(shown + b"\n")

    def size(self, mode: int, size: int, rdev: int) -> str:
        """The size, or a device's numbers."""
        if mode & 0o170000 in (0o020000, 0o060000):
            major, minor = device_numbers(rdev)
            return f"{major}, {minor}"
        return human(size) if self.run.args.human else str(size)

    def as_json(self, fs: FileSystem, path: bytes, name: bytes, facts: tuple[int, ...]) -> dict[str, Any]:
        """An entry as an object."""
        ino, mode, nlink, uid, gid, size, blocks, rdev, seconds, rest, _ = facts
        mtime = seconds * 10**9 + rest
        full = _join(path, name) if name else path
        item = {
            **named("path", full), "ino": ino, "mode": mode, "mode_text": mode_string(mode), "nlink": nlink,
            "uid": uid, "gid": gid, "size": size, "blocks": blocks, "rdev": rdev, "mtime_ns": mtime,
        }  # fmt: skip
        if mode & 0o170000 == 0o120000:
            try:
                item |= named("target", fs.readlink_inode(fs.trusted_inode(ino)))
            except OSError as error:
                self.run.fail(full, error)
        return item


class _Widths:
    """The widest of each column of the long format, from the largest number in it where that tells."""

    __slots__ = ("_human", "_numeric", "_most", "acl", "gid", "ino", "nlink", "size", "space", "uid")

    def __init__(self, lister: _Lister) -> None:
        self._human, self._numeric = lister.run.args.human, lister.run.args.numeric
        self.acl = 0
        self.ino = self.nlink = self.uid = self.gid = self.size = self.space = 1
        self._most = [0, 0, 0, 0, 0, 0]

    def widen(self, lister: _Lister, facts: tuple[int, ...]) -> None:
        """Make room for an entry."""
        ino, mode, nlink, uid, gid, size, blocks, rdev, _, _, acl = facts
        most = self._most
        if acl:
            self.acl = 1
        if self._human or rdev:
            self.size = max(self.size, len(lister.size(mode, size, rdev)))
            self.space = max(self.space, len(lister.space(blocks)))
        elif size > most[0] or blocks > most[1]:
            most[0], most[1] = max(size, most[0]), max(blocks, most[1])
            self.size = max(self.size, len(str(size)))
            self.space = max(self.space, len(lister.space(blocks)))
        if ino > most[2] or nlink > most[3]:
            most[2], most[3] = max(ino, most[2]), max(nlink, most[3])
            self.ino, self.nlink = max(self.ino, len(str(ino))), max(self.nlink, len(str(nlink)))
        if uid >= most[4]:
            most[4] = uid
            self.uid = max(self.uid, len(str(uid)))
        if gid >= most[5]:
            most[5] = gid
            self.gid = max(self.gid, len(str(gid)))
        if not self._numeric:
            if not uid:
                self.uid = max(self.uid, 4)
            if not gid:
                self.gid = max(self.gid, 4)


def _unread(facts: tuple[int, ...]) -> bool:
    """Whether the inode could not be read (or was not), so that readdir's word is all there is."""
    return not any(facts[2:]) and facts[1] & 0o7777 == 0


def _join(path: bytes, name: bytes) -> bytes:
    return path + name if path.endswith(b"/") else path + b"/" + name


def _display_width(cell: bytes) -> int:
    """Columns of the terminal that a cell takes: wide characters take two."""
    text = cell.decode("utf-8", "replace")
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def run(run: Run) -> None:
    """Files first, then directories one after the other, as ls does."""
    targets = run.targets()
    json = None
    if run.args.json:
        from .common.jsonout import JsonList

        json = JsonList(run, "entries")
    lister = _Lister(run, json)
    lister.several = len(targets) > 1 or run.args.recursive
    one_image = len({target.image for target in targets}) == 1
    follow = not (lister.long or run.args.directory)
    folders: list[tuple[Any, bytes]] = []
    with Sorter(reverse=run.args.reverse) as files:
        widths = _Widths(lister)
        rows: list[bytes] = []
        for target, fs, inode in run.each(follow=follow):
            shown = target.path if one_image else target.shown
            if inode.is_dir and not run.args.directory:
                folders.append((target, shown))
                if len(targets) == 1:
                    break
                continue
            run.done += 1
            record = lister.record(fs, shown, inode.ino, inode.dtype, inode)
            name, facts = lister.taken_apart(record)
            if lister.deep:
                widths.widen(lister, facts)
            if one_image:
                files.add(record)
            else:
                rows.append(record)  # as many as operands
                lister.line(fs, b"", name, facts, widths)
        for record in files:
            name, facts = lister.taken_apart(record)
            lister.line(fs, b"", name, facts, widths)
        lister.first = not (run.done or rows)
    for target, shown in folders:
        try:
            fs = run.open(target)
            top = fs.resolve(target.path)
        except OSError as error:
            run.fail(shown, error)
            continue
        _list_tree(lister, fs, top, shown)
    if json is not None:
        json.end()


def _list_tree(lister: _Lister, fs: FileSystem, top: Inode, path: bytes) -> None:
    """A directory, and with -R all below it."""
    if not lister.run.args.recursive:
        lister.directory(fs, top, path, None)
        return
    progress = lister.run.progress("ls")
    waiting = Stack()
    # each record: depth of the directory, its number, its path; `above` holds the numbers on the way down
    above: list[int] = []
    try:
        lister.directory(fs, top, path, waiting, 1)
        above.append(top.ino)
        while (record := waiting.pop()) is not None:
            depth = int.from_bytes(record[:4], "big")
            ino = int.from_bytes(record[4:12], "big")
            name = record[12:]
            del above[depth:]
            progress.tick()
            try:
                if ino in above:
                    raise Corrupt("directory entry", escaped(name), "inode number", "no loop", ino)
                folder = fs.trusted_inode(ino)
            except OSError as error:
                lister.run.fail(name, error)
                continue
            above.append(ino)
            lister.directory(fs, folder, name, waiting, depth + 1)
    finally:
        waiting.close()
