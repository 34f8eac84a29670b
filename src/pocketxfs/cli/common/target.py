"""Operands: `IMAGE`, `IMAGE:PATH`.

An existing file wins: of all ways to split the word at a colon (or not at all) the one with the longest name of
an existing file is taken, so an image called `a:b.img` is reached as such, and `a:b.img:/etc` inside it.  Where no
split names a file, the word is split at its first colon and the error says that there is no such image.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Target(NamedTuple):
    """An operand: the image's name, the path inside (absolute), and whether a path was given at all."""

    image: str
    path: bytes
    explicit: bool

    @property
    def shown(self) -> bytes:
        """As messages name it."""
        return os.fsencode(self.image) + b":" + self.path


def _is_image(name: str) -> bool:
    return os.path.exists(name) and not os.path.isdir(name)


def split(word: str) -> Target:
    """Take an operand apart."""
    end = len(word)
    if not _is_image(word):
        first = end
        while True:
            end = word.rfind(":", 0, end)
            if end < 0:
                end = first
                break
            if end:
                if _is_image(word[:end]):
                    break
                first = end
    path = os.fsencode(word[end + 1 :])
    if not path.startswith(b"/"):
        path = b"/" + path
    return Target(word[:end], path, end < len(word))
