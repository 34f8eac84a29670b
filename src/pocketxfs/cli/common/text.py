"""How names, sizes, modes and times are written.

A name goes raw into pipes and files; on a terminal, and in every message, its control characters, broken UTF-8 and
backslashes are escaped as `ls -b` escapes them, so that no name from an image can drive a terminal.
"""

from __future__ import annotations

import os
import sys
import time
from functools import lru_cache
from typing import Any

_SHORT = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}
_KINDS = {
    0o100000: "regular file",
    0o040000: "directory",
    0o120000: "symbolic link",
    0o020000: "character special file",
    0o060000: "block special file",
    0o010000: "fifo",
    0o140000: "socket",
}
_LETTERS = {
    0o100000: "-",
    0o040000: "d",
    0o120000: "l",
    0o020000: "c",
    0o060000: "b",
    0o010000: "p",
    0o140000: "s",
}


def escaped(name: bytes) -> str:
    """A name that is safe to show."""
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    shown = []
    for char in text:
        code = ord(char)
        if code in _SHORT:
            shown.append(_SHORT[code])
        elif 0xDC80 <= code <= 0xDCFF:
            shown.append(f"\\{code - 0xDC00:03o}")
        elif char.isprintable():
            shown.append(char)
        else:
            shown.append("".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogatepass")))
    return "".join(shown)


def escaped_bytes(name: bytes) -> bytes:
    """`escaped`, in the output's encoding."""
    return escaped(name).encode("utf-8", "surrogateescape")


def human(nbytes: int) -> str:
    """A size as `ls -h` writes it: powers of 1024, rounded up, one decimal below ten."""
    if nbytes < 1024:
        return str(nbytes)
    shift = 10
    for unit in "KMGTPE":
        tenths = -(-nbytes * 10 >> shift)
        if tenths < 100:
            return f"{tenths // 10}.{tenths % 10}{unit}"
        whole = -(-nbytes >> shift)
        if whole < 1024 or unit == "E":
            return f"{whole}{unit}"
        shift += 10
    raise AssertionError("unreachable")


@lru_cache(64)
def mode_string(mode: int) -> str:
    """`-rwxr-xr-x`."""
    text = [_LETTERS.get(mode & 0o170000, "?")]
    for shift, special, letter in ((6, 0o4000, "s"), (3, 0o2000, "s"), (0, 0o1000, "t")):
        bits = mode >> shift
        text.append("r" if bits & 4 else "-")
        text.append("w" if bits & 2 else "-")
        if mode & special:
            text.append(letter if bits & 1 else letter.upper())
        else:
            text.append("x" if bits & 1 else "-")
    return "".join(text)


def kind_name(mode: int, size: int) -> str:
    """The file type in words, as stat(1) has them."""
    if mode & 0o170000 == 0o100000 and size == 0:
        return "regular empty file"
    return _KINDS.get(mode & 0o170000, "weird file")


def owner_name(number: int) -> str:
    """An owner: a number, as the image's names for them are not the host's; 0 is root everywhere."""
    return str(number) if number else "root"


def broken_time(ns: int) -> tuple[time.struct_time, int]:
    """(local time, nanoseconds)."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.localtime(seconds), rest


def full_time(ns: int) -> str:
    """`2024-05-01 12:00:00.123456789 +0200`."""
    local, rest = broken_time(ns)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}.{rest:09d} {time.strftime('%z', local)}"


@lru_cache(256)
def short_time(seconds: int, now: float) -> str:
    """As `ls -l` in the C locale: the hour where within the last six months, else the year."""
    local = time.localtime(seconds)
    recent = now - 31556952 / 2 < seconds <= now
    day = f"{time.strftime('%b', local)} {local.tm_mday:2d}"
    return f"{day} {local.tm_hour:02d}:{local.tm_min:02d}" if recent else f"{day}  {local.tm_year}"


def device_numbers(rdev: int) -> tuple[int, int]:
    """(major, minor)."""
    return os.major(rdev), os.minor(rdev)


def named(key: str, name: bytes) -> dict[str, Any]:
    """A name for JSON: text, and base64 beside it where it is not UTF-8."""
    try:
        return {key: name.decode("utf-8")}
    except UnicodeDecodeError:
        from base64 import b64encode

        return {key: name.decode("utf-8", "replace"), key + "_base64": b64encode(name).decode()}


def is_terminal(stream: Any) -> bool:
    """Whether a stream is one; False for what cannot say."""
    try:
        return bool(stream is not None and stream.isatty())
    except (OSError, ValueError):
        return False


def stderr_is_terminal() -> bool:
    """Whether messages and progress are seen by somebody."""
    return is_terminal(sys.stderr)
