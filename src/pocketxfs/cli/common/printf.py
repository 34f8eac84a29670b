"""find's -printf: the directives that have a meaning inside an image.

Times (%t %a %c, %T %A %C with @ or a strftime letter) are local, nanoseconds written as ten digits, as find(1) does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .args import UsageError
from .text import mode_string, owner_name

if TYPE_CHECKING:
    from ..run import Run
    from .expression import Entry

Piece = Callable[["Entry"], bytes]

_ESCAPES = {"a": b"\a", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v", "\\": b"\\"}


def _parent(entry: Entry) -> bytes:
    head, slash, _ = entry.path.rpartition(b"/")
    return head if slash else b"."


def _below(entry: Entry) -> bytes:
    return entry.path[len(entry.start) :].lstrip(b"/")


def _target(entry: Entry) -> bytes:
    return entry.fs.readlink_inode(entry.inode) if entry.kind() == 10 else b""


def _letter(entry: Entry) -> bytes:
    from .expression import type_letter

    return type_letter(entry.kind()).encode()


def _ctime(ns: int) -> str:
    local = time.localtime(ns // 10**9)
    return f"{time.strftime('%a %b', local)} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}" + (
        f".{ns % 10**9:09d}0 {local.tm_year}"
    )


_NAMES: dict[str, Piece] = {
    "p": lambda entry: entry.path,
    "f": lambda entry: entry.name,
    "h": _parent,
    "H": lambda entry: entry.start,
    "P": _below,
    "l": _target,
    "y": _letter,
}
_VALUES: dict[str, Callable[[Entry], object]] = {
    "d": lambda entry: entry.depth,
    "s": lambda entry: entry.inode.size,
    "i": lambda entry: entry.ino,
    "n": lambda entry: entry.inode.nlink,
    "m": lambda entry: f"{entry.inode.mode & 0o7777:o}",
    "M": lambda entry: mode_string(entry.inode.mode),
    "U": lambda entry: entry.inode.uid,
    "G": lambda entry: entry.inode.gid,
    "u": lambda entry: owner_name(entry.inode.uid),
    "g": lambda entry: owner_name(entry.inode.gid),
    "b": lambda entry: entry.inode.stat().st_blocks,
    "k": lambda entry: (entry.inode.stat().st_blocks + 1) // 2,
    "a": lambda entry: _ctime(entry.inode.atime_ns),
    "t": lambda entry: _ctime(entry.inode.mtime_ns),
    "c": lambda entry: _ctime(entry.inode.ctime_ns),
}
_TIMES = {"A": "atime_ns", "B": "btime_ns", "C": "ctime_ns", "T": "mtime_ns"}


def compiled(text: str, run: Run) -> Piece:
    """The format as one function."""
    pieces: list[Piece] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\" and at < len(text):
            at = _escape(text, at, pieces)
        elif char == "%" and at < len(text):
            at = _directive(text, at, pieces, run)
        else:
            pieces.append(_constant(char.encode("utf-8", "surrogateescape")))
    return lambda entry: b"".join(piece(entry) for piece in pieces)


def _constant(value: bytes) -> Piece:
    return lambda _entry: value


def _escape(text: str, at: int, pieces: list[Piece]) -> int:
    char = text[at]
    if char in "01234567":
        end = at
        while end < min(at + 3, len(text)) and text[end] in "01234567":
            end += 1
        pieces.append(_constant(bytes((int(text[at:end], 8) & 0xFF,))))
        return end
    if char not in _ESCAPES:
        raise UsageError(f"find: -printf: no escape \\{char}")
    pieces.append(_constant(_ESCAPES[char]))
    return at + 1


def _directive(text: str, at: int, pieces: list[Piece], run: Run) -> int:
    start = at
    while at < len(text) and text[at] in "-+ #0123456789.":
        at += 1
    spec = text[start:at]
    letter = text[at : at + 1]
    at += 1
    if letter == "%":
        pieces.append(_constant(b"%"))
    elif letter in _NAMES:
        pieces.append(_padded_name(_NAMES[letter], spec, run))
    elif letter in _VALUES:
        pieces.append(_padded(_VALUES[letter], spec))
    elif letter in _TIMES and at < len(text):
        pieces.append(_padded(_time(_TIMES[letter], text[at]), spec))
        at += 1
    else:
        raise UsageError(f"find: -printf: no directive %{letter}")
    return at


def _time(field: str, letter: str) -> Callable[[Entry], object]:
    if letter == "@":

        def seconds(entry: Entry) -> str:
            # before 1970 the fraction still counts upwards, as find(1) has it
            whole, rest = divmod(getattr(entry.inode, field) or 0, 10**9)
            return f"{whole}.{rest:09d}0"

        return seconds
    layout = {"+": "%Y-%m-%d+%H:%M:%S"}.get(letter, "%" + letter)

    def local(entry: Entry) -> str:
        whole, rest = divmod(getattr(entry.inode, field) or 0, 10**9)
        shown = time.strftime(layout, time.localtime(whole))
        return shown + f".{rest:09d}0" if letter in "+ST" else shown

    return local


def _padded(value: Callable[[Entry], object], spec: str) -> Piece:
    if not spec:
        return lambda entry: str(value(entry)).encode()
    left, width, zero = _width(spec)

    def show(entry: Entry) -> bytes:
        shown = str(value(entry)).encode()
        if zero and not left:
            return shown.rjust(width, b"0")
        return shown.ljust(width) if left else shown.rjust(width)

    return show


def _padded_name(value: Piece, spec: str, run: Run) -> Piece:
    name = run.name
    left, width, _ = _width(spec)

    def show(entry: Entry) -> bytes:
        shown = name(value(entry))
        return shown.ljust(width) if left else shown.rjust(width)

    return show


def _width(spec: str) -> tuple[bool, int, bool]:
    """(to the left, width, filled with zeros) of what stands before a directive's letter."""
    digits = spec.lstrip("-+ #0").partition(".")[0]
    return "-" in spec, int(digits) if digits else 0, spec.lstrip("-+ #").startswith("0")
