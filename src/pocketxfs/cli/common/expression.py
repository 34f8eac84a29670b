"""find(1)'s expressions: a parser from words to one test, and the tests and actions.

A test takes an `Entry` and says yes or no.  `and` binds tighter than `or`, both stop early, `,` takes the last; where
no action is given, -print is.  What find(1) has and this has not (-exec, -delete, ...) is refused by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .args import UsageError
from .glob import matcher
from .text import escaped_bytes, mode_string, owner_name, short_time

if TYPE_CHECKING:
    from ...filesystem import FileSystem
    from ...inode import Inode
    from ..run import Run

_TYPES = {"b": 6, "c": 2, "d": 4, "f": 8, "l": 10, "p": 1, "s": 12}
_TYPE_LETTERS = {number: letter for letter, number in _TYPES.items()}
_UNITS = {"b": 512, "c": 1, "w": 2, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DAY_NS = 86400 * 10**9


class Entry:
    """A file that find has come to; its inode is read when a test first wants it."""

    __slots__ = ("_inode", "depth", "dtype", "fs", "ino", "name", "path", "start")

    fs: FileSystem
    path: bytes
    name: bytes
    ino: int
    dtype: int
    depth: int
    #: The path that the search began at.
    start: bytes

    def __init__(
        self, fs: FileSystem, path: bytes, name: bytes, ino: int, dtype: int, depth: int, start: bytes
    ) -> None:
        self.fs, self.path, self.name, self.ino = fs, path, name, ino
        self.dtype, self.depth, self.start = dtype, depth, start
        self._inode: Inode | None = None

    @property
    def inode(self) -> Inode:
        """The inode."""
        inode = self._inode
        if inode is None:
            inode = self._inode = self.fs.trusted_inode(self.ino)
        return inode

    def kind(self) -> int:
        """DT_*, from the directory where it says so."""
        return self.dtype or self.inode.dtype


Test = Callable[[Entry], bool]


class Expression:
    """A parsed expression: `test`, and what concerns the walk."""

    def __init__(self, words: list[str], run: Run, fs: FileSystem, show: Test | None = None) -> None:
        self.run, self.fs = run, fs
        self.now_ns = time.time_ns()
        self.min_depth, self.max_depth = 0, None  # type: int, int | None
        self.depth_first = False
        #: Set by -prune (for the entry at hand) and by -quit.
        self.pruned = self.stopped = False
        self._words, self._at = words, 0
        self._acts = False
        write, name = run.out.write, run.name
        #: What every action that prints does instead, where somebody else prints.
        self.show = show
        self.print: Test = show or (lambda entry: bool(write(name(entry.path) + b"\n")))
        test: Test = _yes
        if words:
            test = self._list()
            if self._at < len(words):
                raise UsageError(f"find: {words[self._at]!r} does not belong there")
        self.test = test if self._acts else _and(test, self.print)

    # -- grammar -----------------------------------------------------------------------------------------------

    def _peek(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def _next(self, of: str) -> str:
        if self._at == len(self._words):
            raise UsageError(f"find: {of} needs something after it")
        self._at += 1
        return self._words[self._at - 1]

    def _list(self) -> Test:
        test = self._or()
        while self._peek() == ",":
            self._at += 1
            test = _comma(test, self._or())
        return test

    def _or(self) -> Test:
        test = self._and()
        while self._peek() in ("-o", "-or"):
            self._at += 1
            test = _or(test, self._and())
        return test

    def _and(self) -> Test:
        test = self._not()
        while (word := self._peek()) is not None and word not in ("-o", "-or", ",", ")"):
            if word in ("-a", "-and"):
                self._at += 1
            test = _and(test, self._not())
        return test

    def _not(self) -> Test:
        word = self._next("the expression")
        if word in ("!", "-not"):
            test = self._not()
            return lambda entry: not test(entry)
        if word == "(":
            test = self._list()
            if self._peek() != ")":
                raise UsageError("find: '(' without ')'")
            self._at += 1
            return test
        return self._primary(word)

    def _primary(self, word: str) -> Test:
        make = _PRIMARIES.get(word)
        if make is None:
            if word.startswith("-"):
                raise UsageError(f"find: no test or action called {word}")
            raise UsageError(f"find: {word!r} does not belong there (one IMAGE[:PATH], then the expression)")
        return make(self, word)

    # -- tests -------------------------------------------------------------------------------------------------

    def _name(self, word: str) -> Test:
        match = matcher(self._next(word), ignore_case=word == "-iname")
        return lambda entry: match(entry.name)

    def _path(self, word: str) -> Test:
        match = matcher(self._next(word), ignore_case=word.startswith("-i"))
        return lambda entry: match(entry.path)

    def _link_name(self, word: str) -> Test:
        match = matcher(self._next(word), ignore_case=word == "-ilname")
        return lambda entry: entry.kind() == 10 and match(entry.fs.readlink_inode(entry.inode))

    def _type(self, word: str) -> Test:
        letters = self._next(word).split(",")
        wrong = [letter for letter in letters if letter not in _TYPES]
        if wrong:
            raise UsageError(f"find: {word}: no type {wrong[0]!r}; there are {', '.join(_TYPES)}")
        wanted = frozenset(_TYPES[letter] for letter in letters)
        return lambda entry: entry.kind() in wanted

    def _count(self, word: str, value: Callable[[Inode], int]) -> Test:
        return _compared(_amount(self._next(word), word), lambda entry: value(entry.inode))

    def _size(self, word: str) -> Test:
        text = self._next(word)
        unit = _UNITS.get(text[-1:], 0)
        amount = _amount(text[:-1] if unit else text, word)
        unit = unit or 512
        return _compared(amount, lambda entry: -(-entry.inode.size // unit))

    def _age(self, word: str) -> Test:
        field = {"a": "atime_ns", "m": "mtime_ns", "c": "ctime_ns"}[word[1]]
        unit = 60 * 10**9 if word.endswith("min") else _DAY_NS
        now = self.now_ns
        sign, number = _amount(self._next(word), word)
        if unit == _DAY_NS or sign == 0:
            return _compared((sign, number), lambda entry: (now - getattr(entry.inode, field)) // unit)
        limit = now - number * unit
        if sign < 0:
            return lambda entry: bool(getattr(entry.inode, field) > limit)
        return lambda entry: bool(getattr(entry.inode, field) < limit)

    def _newer(self, word: str) -> Test:
        ours, theirs = (word[6], word[7]) if word.startswith("-newer") and len(word) == 8 else ("m", "m")
        ours, theirs = {"-anewer": ("a", "m"), "-cnewer": ("c", "m")}.get(word, (ours, theirs))
        fields = {"a": "atime_ns", "B": "btime_ns", "c": "ctime_ns", "m": "mtime_ns"}
        text = self._next(word)
        if theirs == "t":
            limit = _moment(text, word)
        else:
            limit = getattr(self.fs.resolve(text, follow_symlinks=False), fields[theirs]) or 0
        field = fields[ours]
        return lambda entry: (getattr(entry.inode, field) or 0) > limit

    def _perm(self, word: str) -> Test:
        text = self._next(word)
        how = text[0] if text[:1] in ("-", "/") else ""
        try:
            bits = int(text[len(how) :], 8)
        except ValueError:
            raise UsageError(f"find: {word} {text!r}: octal modes only") from None
        if how == "-":
            return lambda entry: entry.inode.mode & bits == bits
        if how == "/":
            return lambda entry: bits == 0 or entry.inode.mode & bits != 0
        return lambda entry: entry.inode.mode & 0o7777 == bits

    def _owner(self, word: str) -> Test:
        text = self._next(word)
        if not text.lstrip("+-").isdigit():
            if text != "root":
                raise UsageError(f"find: {word} {text!r}: numbers only, an image's names are not this machine's")
            text = "0"
        amount = _amount(text, word)
        if word in ("-uid", "-user"):
            return _compared(amount, lambda entry: entry.inode.uid)
        return _compared(amount, lambda entry: entry.inode.gid)

    def _same_file(self, word: str) -> Test:
        ino = self.fs.resolve(self._next(word), follow_symlinks=False).ino
        return lambda entry: entry.ino == ino

    def _empty(self, _word: str) -> Test:
        return _is_empty

    # -- options and actions -----------------------------------------------------------------------------------

    def _set_depth(self, word: str) -> Test:
        text = self._next(word)
        if not text.isdigit():
            raise UsageError(f"find: {word} {text!r}: not a whole number")
        if word == "-maxdepth":
            self.max_depth = int(text)
        else:
            self.min_depth = int(text)
        return _yes

    def _set_depth_first(self, _word: str) -> Test:
        self.depth_first = True
        return _yes

    def _prune(self, _word: str) -> Test:
        def prune(entry: Entry) -> bool:
            self.pruned = True
            return True

        return prune

    def _quit(self, _word: str) -> Test:
        self._acts = True

        def stop(_entry: Entry) -> bool:
            self.stopped = True
            return True

        return stop

    def _print(self, _word: str) -> Test:
        self._acts = True
        return self.print

    def _print0(self, _word: str) -> Test:
        self._acts = True
        write = self.run.out.write
        return self.show or (lambda entry: bool(write(entry.path + b"\0")))

    def _printf(self, word: str) -> Test:
        from .printf import compiled

        self._acts = True
        render = compiled(self._next(word), self.run)
        write = self.run.out.write

        def show(entry: Entry) -> bool:
            write(render(entry))
            return True

        return self.show or show

    def _ls(self, _word: str) -> Test:
        self._acts = True
        write, now = self.run.out.write, self.now_ns / 1e9

        def show(entry: Entry) -> bool:
            write(long_line(entry, now) + b"\n")
            return True

        return self.show or show


def long_line(entry: Entry, now: float) -> bytes:
    """-ls: inode, KiB, mode, links, owners, size, time, path; control characters escaped."""
    inode = entry.inode
    status = inode.stat()
    size = f"{status.st_size:8}"
    if inode.kind in (0o020000, 0o060000):
        from .text import device_numbers

        major, minor = device_numbers(status.st_rdev)
        size = f"{major:3}, {minor:3}"
    head = (
        f"{inode.ino:9} {(status.st_blocks + 1) // 2:6} {mode_string(inode.mode)} {status.st_nlink:3} "
        f"{owner_name(inode.uid):8} {owner_name(inode.gid):8} {size} {short_time(status.st_mtime_ns // 10**9, now)} "
    )
    shown = head.encode() + escaped_bytes(entry.path)
    if inode.kind == 0o120000:
        shown += b" -> " + escaped_bytes(entry.fs.readlink_inode(inode))
    return shown


def type_letter(dtype: int) -> str:
    """The letter of a DT_*."""
    return _TYPE_LETTERS.get(dtype, "U")


def _is_empty(entry: Entry) -> bool:
    kind = entry.kind()
    if kind == 8:
        return entry.inode.size == 0
    if kind == 4:
        return all(item[0] in (b".", b"..") for item in entry.fs.readdir(entry.inode))
    return False


def _amount(text: str, word: str) -> tuple[int, int]:
    """(sign, number) of N, +N, -N."""
    sign = {"+": 1, "-": -1}.get(text[:1], 0)
    digits = text[1:] if sign else text
    if not digits.isdigit():
        raise UsageError(f"find: {word} {text!r}: not a number")
    return sign, int(digits)


def _compared(amount: tuple[int, int], value: Callable[[Entry], int]) -> Test:
    sign, number = amount
    if sign > 0:
        return lambda entry: value(entry) > number
    if sign < 0:
        return lambda entry: value(entry) < number
    return lambda entry: value(entry) == number


def _moment(text: str, word: str) -> int:
    """A date and time in ISO 8601 (local where it names no zone) or @SECONDS, in ns."""
    from datetime import datetime
    from decimal import Decimal, InvalidOperation

    try:
        if text.startswith("@"):
            return int(Decimal(text[1:]) * 10**9)
        when = datetime.fromisoformat(text)
        return int(when.replace(microsecond=0).timestamp()) * 10**9 + when.microsecond * 1000
    except (ValueError, InvalidOperation):
        raise UsageError(f"find: {word} {text!r}: not a date like 2024-05-01 12:00 or @SECONDS") from None


def _yes(_entry: Entry) -> bool:
    return True


def _and(one: Test, other: Test) -> Test:
    if one is _yes:
        return other
    return lambda entry: one(entry) and other(entry)


def _or(one: Test, other: Test) -> Test:
    return lambda entry: one(entry) or other(entry)


def _comma(one: Test, other: Test) -> Test:
    def both(entry: Entry) -> bool:
        one(entry)
        return other(entry)

    return both


_E = Expression
_PRIMARIES: dict[str, Callable[[Any, str], Test]] = {
    "-name": _E._name, "-iname": _E._name, "-path": _E._path, "-ipath": _E._path, "-wholename": _E._path,
    "-iwholename": _E._path, "-lname": _E._link_name, "-ilname": _E._link_name, "-type": _E._type, "-size": _E._size,
    "-newer": _E._newer, "-anewer": _E._newer, "-cnewer": _E._newer, "-perm": _E._perm, "-user": _E._owner,
    "-uid": _E._owner, "-group": _E._owner, "-gid": _E._owner, "-samefile": _E._same_file, "-empty": _E._empty,
    "-links": lambda self, word: self._count(word, lambda inode: inode.nlink),
    "-inum": lambda self, word: _compared(_amount(self._next(word), word), lambda entry: entry.ino),
    "-true": lambda self, word: _yes, "-false": lambda self, word: lambda entry: False,
    "-maxdepth": _E._set_depth, "-mindepth": _E._set_depth, "-depth": _E._set_depth_first,
    "-d": _E._set_depth_first, "-xdev": lambda self, word: _yes, "-mount": lambda self, word: _yes,
    "-noleaf": lambda self, word: _yes, "-prune": _E._prune, "-quit": _E._quit, "-print": _E._print,
    "-print0": _E._print0, "-printf": _E._printf, "-ls": _E._ls,
}  # fmt: skip
for _letter in "amc":
    _PRIMARIES[f"-{_letter}time"] = _PRIMARIES[f"-{_letter}min"] = _E._age
for _letter in "aBcm":
    for _other in "aBcmt":
        _PRIMARIES[f"-newer{_letter}{_other}"] = _E._newer
