"""`Path`: a place in an image with pathlib's shape.

Pure operations are `pathlib.PurePosixPath`'s own; the rest calls the `FileSystem`.  It is no `os.PathLike`, so that it
cannot be handed to `open` or `os` by mistake.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from .filesystem import AnyPath, FileSystem


class Path:
    """A path in one filesystem."""

    __slots__ = ("_fs", "_pure")

    def __init__(self, fs: FileSystem, *parts: AnyPath) -> None:
        self._fs = fs
        self._pure = PurePosixPath("/", *(os.fsdecode(part) for part in parts))

    def _with(self, pure: PurePosixPath) -> Path:
        return Path(self._fs, str(pure))

    # -- pure ----------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return str(self._pure)

    def __repr__(self) -> str:
        return f"Path({str(self._pure)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and other._fs is self._fs and other._pure == self._pure

    def __lt__(self, other: Path) -> bool:
        return self._pure < other._pure

    def __hash__(self) -> int:
        return hash((id(self._fs), self._pure))

    def __truediv__(self, other: str | Path) -> Path:
        return self._with(self._pure / str(other))

    def joinpath(self, *others: str) -> Path:
        """As `PurePath.joinpath`."""
        return self._with(self._pure.joinpath(*others))

    @property
    def parts(self) -> tuple[str, ...]:
        """As `PurePath.parts`."""
        return self._pure.parts

    @property
    def name(self) -> str:
        """The last component."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The name's last suffix."""
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        """All of the name's suffixes."""
        return self._pure.suffixes

    @property
    def parent(self) -> Path:
        """The directory that holds it."""
        return self._with(self._pure.parent)

    @property
    def parents(self) -> tuple[Path, ...]:
        """The directories above it."""
        return tuple(self._with(pure) for pure in self._pure.parents)

    def with_name(self, name: str) -> Path:
        """As `PurePath.with_name`."""
        return self._with(self._pure.with_name(name))

    def with_suffix(self, suffix: str) -> Path:
        """As `PurePath.with_suffix`."""
        return self._with(self._pure.with_suffix(suffix))

    def relative_to(self, other: str | Path) -> PurePosixPath:
        """As `PurePath.relative_to`; what comes back is no longer a place in an image."""
        return self._pure.relative_to(str(other))

    def is_relative_to(self, other: str | Path) -> bool:
        """As `PurePath.is_relative_to`."""
        return self._pure.is_relative_to(str(other))

    def match(self, pattern: str) -> bool:
        """As `PurePath.match`."""
        return self._pure.match(pattern)

    # -- the filesystem ------------------------------------------------------------------------------------------

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As `Path.stat`."""
        return self._fs.stat(str(self), follow_symlinks=follow_symlinks)

    def lstat(self) -> os.stat_result:
        """As `Path.lstat`."""
        return self._fs.lstat(str(self))

    def exists(self) -> bool:
        """As `Path.exists`."""
        return self._fs.exists(str(self))

    def is_dir(self) -> bool:
        """As `Path.is_dir`."""
        return self._fs.isdir(str(self))

    def is_file(self) -> bool:
        """As `Path.is_file`."""
        return self._fs.isfile(str(self))

    def is_symlink(self) -> bool:
        """As `Path.is_symlink`."""
        return self._fs.islink(str(self))

    def is_mount(self) -> bool:
        """Whether it is the root."""
        return self._fs.ismount(str(self))

    def samefile(self, other: str | Path) -> bool:
        """As `Path.samefile`."""
        return self._fs.samefile(str(self), str(other))

    def readlink(self) -> PurePosixPath:
        """The target; it may lead anywhere, so it is a pure path."""
        return PurePosixPath(self._fs.readlink(str(self)))

    def resolve(self) -> Path:
        """With every symbolic link followed."""
        return Path(self._fs, self._fs.realpath(str(self)))

    def iterdir(self) -> Iterator[Path]:
        """As `Path.iterdir`; streams."""
        for entry in self._fs.scandir(str(self)):
            yield self / entry.name

    def walk(
        self, top_down: bool = True, on_error: Callable[[OSError], None] | None = None, follow_symlinks: bool = False
    ) -> Iterator[tuple[Path, list[str], list[str]]]:
        """As `Path.walk` of Python 3.12."""
        for base, folders, files in self._fs.walk(str(self), top_down, on_error, follow_symlinks):
            yield Path(self._fs, base), folders, files

    def glob(self, pattern: str) -> Iterator[Path]:
        """As `Path.glob`, with `**`."""
        parts = [part for part in pattern.split("/") if part]
        if not parts or pattern.startswith("/"):
            raise ValueError(f"unacceptable pattern: {pattern!r}")
        seen: set[Path] = set()
        for found in self._glob(parts):
            if found not in seen:
                seen.add(found)
                yield found

    def rglob(self, pattern: str) -> Iterator[Path]:
        """As `Path.rglob`."""
        return self.glob(f"**/{pattern}")

    def _glob(self, parts: list[str]) -> Iterator[Path]:
        from fnmatch import fnmatchcase

        if not parts:
            yield self
            return
        first, rest = parts[0], parts[1:]
        if first == "**":
            yield from self._glob(rest)
        if not self.is_dir():
            return
        for entry in self._fs.scandir(str(self)):
            if first == "**":
                if entry.is_dir(follow_symlinks=False):
                    yield from (self / entry.name)._glob(parts)
            elif fnmatchcase(entry.name, first):
                if rest:
                    yield from (self / entry.name)._glob(rest)
                else:
                    yield self / entry.name

    def open(self, mode: str = "r", **options: Any) -> Any:
        """As `Path.open`, for reading."""
        return self._fs.open(str(self), mode, **options)

    def read_bytes(self) -> bytes:
        """The file's content."""
        return self._fs.read_bytes(str(self))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The file's content, decoded."""
        return self.read_bytes().decode(encoding, errors)
