"""One run of one verb: its arguments, output, the filesystem it has open, and its account of failures."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import Error
from .command import reason
from .common.args import Args, UsageError
from .common.target import Target, split
from .common.text import escaped, escaped_bytes, is_terminal

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode
    from .common.progress import Progress

SCHEMA_VERSION = 1
OUT_BYTES = 1 << 16


class Run:
    """What a verb works with.

    A failure that concerns one file is told with `fail` and the run goes on; the exit code at the end is 1, or the
    failure's own (3 corrupt, 4 unsupported, 5 no memory) where nothing at all was done.  A verb counts what it did
    with `done`.
    """

    def __init__(self, verb: str, args: Args) -> None:
        self.verb, self.args = verb, args
        self.terminal = is_terminal(sys.stdout)
        self.out = _standard_output(self.terminal)
        #: How names go to standard output: raw, or escaped on a terminal.
        self.name: Callable[[bytes], bytes] = escaped_bytes if self.terminal else bytes
        self.done = 0
        self.failed = 0
        self._codes: set[int] = set()
        self._image: str | None = None
        self._fs: FileSystem | None = None
        self._progress: Progress | None = None
        self._reports: list[dict[str, Any]] = []

    # -- operands ----------------------------------------------------------------------------------------------

    def targets(self, least: int = 1, most: int | None = None) -> list[Target]:
        """The operands as targets."""
        words = self.args.operands
        if len(words) < least:
            raise UsageError(f"{self.verb}: no image named")
        if most is not None and len(words) > most:
            raise UsageError(f"{self.verb}: too many operands: {' '.join(words[most:])}")
        return [split(word) for word in words]

    def open(self, target: Target, *, any_log: bool = False) -> FileSystem:
        """The filesystem of a target; one is open at a time, and kept while targets name the same image.

        `any_log` opens one with a dirty log too, for verbs that say so instead of showing files.
        """
        if self._fs is not None and self._image == target.image:
            return self._fs
        self._close_fs()
        from .. import open as open_filesystem

        args = self.args
        try:
            fs = open_filesystem(
                target.image,
                memory=args.memory,
                buffers=args.buffers,
                machine=args.machine,
                partition=args.partition,
                offset=args.offset,
                logdev=args.logdev,
                rtdev=args.rtdev,
                norecovery=args.norecovery or any_log,
                force=args.force,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
        except Error as error:
            if not error.message.startswith(target.image):
                error.message = f"{target.image}: {error.message}"
            raise
        self._image, self._fs = target.image, fs
        return fs

    def each(
        self, *, follow: bool, root_only: bool = False, any_log: bool = False
    ) -> Iterator[tuple[Target, FileSystem, Inode]]:
        """(target, filesystem, inode) of each operand that can be reached; the others are told and counted."""
        for target in self.targets():
            if root_only and target.path.strip(b"/"):
                raise UsageError(f"{self.verb}: names an image, not a path in one: {escaped(target.shown)}")
            try:
                fs = self.open(target, any_log=any_log)
                inode = fs.resolve(target.path, follow_symlinks=follow)
            except OSError as error:
                self.fail(target.path if self._image == target.image else os.fsencode(target.image), error)
                continue
            yield target, fs, inode

    # -- failures ----------------------------------------------------------------------------------------------

    def fail(self, name: bytes, error: BaseException) -> None:
        """One thing could not be done: say which and why, and go on."""
        self.failed += 1
        self._codes.add(error.exit_code if isinstance(error, Error) else 1)
        why, shown = reason(error), escaped(name)
        self.message(why if why.startswith(shown + ": ") else f"{shown}: {why}")

    def note(self, name: bytes, text: str) -> None:
        """Something that is as it should be, and worth knowing."""
        self.message(f"{escaped(name)}: {text}")

    def message(self, text: str) -> None:
        """A line on standard error, in order with standard output where both are seen together."""
        if self.terminal:
            self.out.flush()
        if self._progress is not None:
            self._progress.clear()
        try:
            sys.stderr.write(f"pocketxfs: {text}\n")
        except UnicodeEncodeError:
            sys.stderr.write(f"pocketxfs: {text.encode('ascii', 'backslashreplace').decode()}\n")
        sys.stderr.flush()

    def exit_code(self) -> int:
        """0, 1, or the failures' own code where they agree and nothing was done."""
        if not self.failed:
            return 0
        return self._codes.pop() if not self.done and len(self._codes) == 1 else 1

    # -- progress ----------------------------------------------------------------------------------------------

    def progress(self, what: str, total: int | None = None, **more: int) -> Progress:
        """A counter that shows itself on a terminal once the work turns out to be long."""
        from .common.progress import Progress

        self._progress = Progress(what, total, **more)
        return self._progress

    def add_report(self, report: dict[str, Any]) -> None:
        """A memory report from a verb that opens no filesystem."""
        self._reports.append(report)

    # -- end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """All went its way: flush, and write the memory report if one was asked for."""
        if self._progress is not None:
            self._progress.close()
        self.out.flush()
        if self.args.memory_report is not None:
            from .common.report import write_reports

            if self._fs is not None:
                self._reports.append({"image": self._image, **self._fs.memory_report()})
            write_reports(self.args.memory_report, self._reports, self.args.json)

    def close(self) -> None:
        """Give everything back, whatever happened."""
        if sys.exc_info()[0] is not None:
            try:
                self.out.flush()
            except OSError:
                pass  # what ended the run is what is told
        if self._progress is not None:
            self._progress.close()
        fs, self._fs = self._fs, None
        if fs is not None:
            fs.close()

    def _close_fs(self) -> None:
        if self._fs is not None:
            if self.args.memory_report is not None:
                self._reports.append({"image": self._image, **self._fs.memory_report()})
            self._fs.close()
            self._fs = None
            self._image = None


class _LineByLine(io.BufferedWriter):
    """A terminal's output: each piece is seen at once."""

    def write(self, data: Any) -> int:
        count = super().write(data)
        self.flush()
        return count


def _standard_output(terminal: bool) -> BinaryIO:
    """Standard output with a buffer of its own, whatever PYTHONUNBUFFERED has done to Python's."""
    try:
        raw = io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
    except (OSError, ValueError, AttributeError):
        return sys.stdout.buffer  # replaced by something without a descriptor
    sys.stdout.flush()
    return _LineByLine(raw) if terminal else io.BufferedWriter(raw, OUT_BYTES)
