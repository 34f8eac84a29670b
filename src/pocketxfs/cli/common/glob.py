"""Shell patterns as fnmatch(3) takes them without flags: `*` matches slashes and leading dots too (find's way)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

_CLASSES = {
    "alpha": r"^\W\d_", "digit": "0-9", "alnum": r"^\W_", "space": r"\s", "blank": r" \t", "xdigit": "0-9A-Fa-f",
    "punct": r"!-/:-@\[-`{-~", "cntrl": r"\x00-\x1f\x7f", "print": r"\x20-\x7e", "graph": r"\x21-\x7e",
    "upper": "A-Z", "lower": "a-z",
}  # fmt: skip


def matcher(pattern: str, *, ignore_case: bool = False) -> Callable[[bytes], bool]:
    """A test of a whole name."""
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    match = re.compile(_translated(pattern), flags).fullmatch
    return lambda name: match(os.fsdecode(name)) is not None


def _translated(pattern: str) -> str:
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if not parts or parts[-1] != ".*":
                parts.append(".*")
        elif char == "?":
            parts.append(".")
        elif char == "\\" and at < len(pattern):
            parts.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            bracket, after = _bracket(pattern, at)
            parts.append(bracket if after > at else r"\[")
            at = after
        else:
            parts.append(re.escape(char))
    return "".join(parts)


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    """A bracket expression that begins at `start` as a regex; (_, start) where it never closes."""
    at = start
    negated = at < len(pattern) and pattern[at] in "!^"
    at += negated
    chars: list[str] = []
    alternatives: list[str] = []
    first = True
    while at < len(pattern):
        char = pattern[at]
        if char == "]" and not first:
            inside = [f"[{''.join(chars)}]"] if chars else []
            choice = "|".join(inside + alternatives) or r"(?!)"
            return (f"(?:(?!{choice}).)" if negated else f"(?:{choice})"), at + 1
        first = False
        if pattern.startswith("[:", at):
            end = pattern.find(":]", at + 2)
            name = pattern[at + 2 : end] if end > 0 else ""
            if name in _CLASSES:
                alternatives.append(f"[{_CLASSES[name]}]")
                at = end + 2
                continue
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            char = pattern[at]
        at += 1
        if at + 1 < len(pattern) and pattern[at] == "-" and pattern[at + 1] != "]":
            last = pattern[at + 1]
            at += 2
            if last == "\\" and at < len(pattern):
                last = pattern[at]
                at += 1
            if char <= last:
                chars.append(f"{re.escape(char)}-{re.escape(last)}")
            else:
                alternatives.append(r"(?!)")
        else:
            chars.append(re.escape(char))
    return "", start
