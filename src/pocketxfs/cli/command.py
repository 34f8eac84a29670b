"""Dispatch: common options, the verb, its options, and what becomes of errors and signals."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, NoReturn

from ..errors import Error
from .common.args import Args, Option, UsageError, byte_count, defaults, help_lines, number, parse
from .verbs import VERBS

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_MEMORY = 5
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143

#: Taken before the verb and after it.
COMMON = (
    Option(("--memory",), "memory", "all the memory there is: 4M, 16M, ...", "SIZE", default="16M"),
    Option(
        ("--buffers",), "buffers", "how buffers find memory: contiguous, vmalloc, ...", "KIND", default="contiguous"
    ),
    Option(("--machine",), "machine", "the machine to be: host, nommu-16m, i386, ...", "NAME", default="host"),
    Option(("--json",), "json", "machine-readable output with a schema_version"),
    Option(("--partition",), "partition", "which partition of a disk image", "N", number),
    Option(("--offset",), "offset", "where in the image the filesystem begins", "BYTES", byte_count),
    Option(("--logdev",), "logdev", "the external log", "FILE"),
    Option(("--rtdev",), "rtdev", "the realtime device", "FILE"),
    Option(("--norecovery",), "norecovery", "read with a dirty log ignored: the newest changes are missing"),
    Option(("--force",), "force", "read a filesystem that says it needs repair"),
    Option(("--memory-report",), "memory_report", "afterwards, what memory was used (- is stderr)", "FILE"),
)
_HELP = Option(("--help",), "help", "this")
_TOP = (*COMMON, Option(("-h", "--help"), "help", "this"), Option(("--version",), "version", "the version"))

EXIT_CODES = "Exit codes: 0 done, 1 some failed, 2 usage, 3 corrupt, 4 unsupported, 5 no memory."


class Terminated(BaseException):
    """SIGTERM came: leave as after SIGINT, everything temporary removed."""


def command(argv: list[str]) -> int:
    """Run one command line to its exit code; every error becomes one line on standard error."""
    restore = _catch_sigterm()
    try:
        return _dispatch(argv)
    except UsageError as error:
        _complain(f"{error}\nTry 'pocketxfs --help' or 'pocketxfs VERB --help'.")
        return EXIT_USAGE
    except BrokenPipeError:
        _drop_stdout()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Terminated:
        return EXIT_TERMINATED
    except Error as error:
        _complain(str(error))
        return error.exit_code
    except OSError as error:
        _complain(reason(error, with_name=True))
        return EXIT_SOME_FAILED
    except MemoryError:
        _complain("the host has no memory left")
        return EXIT_NO_MEMORY
    finally:
        restore()


def _dispatch(argv: list[str]) -> int:
    given, rest = parse(argv, _TOP, stop_at_operand=True)
    if given.pop("version", False):
        from .. import __version__

        return _say(f"pocketxfs {__version__}\n")
    if given.pop("help", False):
        return _say(_overview())
    if not rest:
        raise UsageError("no verb given")
    name, words = rest[0], rest[1:]
    if name not in VERBS:
        from ..fuse import helper

        if helper.is_direct(rest, VERBS):  # as mount.fuse3 calls it, and as lklfuse is called
            return helper.main(rest)
        raise UsageError(f"no verb called {name!r}; there are {', '.join(VERBS)}")
    verb: Any = import_module("." + VERBS[name][0], __package__)
    options = (*verb.OPTIONS, *COMMON, _HELP)
    values = defaults(options) | given
    after, operands = parse(words, options, only_long=getattr(verb, "LONG_ONLY", False))
    values |= after
    if values["help"]:
        return _say(_verb_help(name, verb))
    from .run import Run

    run = Run(name, Args(values, operands))
    try:
        verb.run(run)
        run.finish()
    finally:
        run.close()
    return run.exit_code()


def _say(text: str) -> int:
    sys.stdout.write(text)
    sys.stdout.flush()
    return 0


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "".join(f"  {name:{width}}  {about}\n" for name, (_, about) in VERBS.items())
    options = "\n".join(help_lines(_TOP))
    return (
        "pocketxfs: XFS filesystems read without a kernel, in a fixed amount of memory\n\n"
        f"usage: pocketxfs VERB [options] IMAGE[:PATH] ...\n\n{verbs}\n"
        "A file whose own name has a colon in it is found as such before it is split.\n\n"
        f"Options of every verb, before it or after it:\n{options}\n\n{EXIT_CODES}\n"
    )


def _verb_help(name: str, verb: Any) -> str:
    about = getattr(verb, "ABOUT", "")
    own = "\n".join(help_lines(verb.OPTIONS))
    common = "\n".join(help_lines((*COMMON, _HELP)))
    return (
        f"usage: pocketxfs {name} {verb.USAGE}\n\n{VERBS[name][1]}\n"
        + (f"\n{about.strip()}\n" if about else "")
        + (f"\nOptions:\n{own}\n" if own else "")
        + f"\nOptions of every verb:\n{common}\n\n{EXIT_CODES}\n"
    )


def reason(error: BaseException, *, with_name: bool = False) -> str:
    """What went wrong, in words, without Python's decoration."""
    if isinstance(error, OSError) and not isinstance(error, Error) and error.strerror:
        if with_name and isinstance(error.filename, (str, bytes)):
            from .common.text import escaped

            return f"{escaped(os.fsencode(error.filename))}: {error.strerror}"
        return error.strerror
    return str(error) or type(error).__name__


def _complain(text: str) -> None:
    try:
        sys.stderr.write(f"pocketxfs: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody is left to hear it


def _drop_stdout() -> None:
    """What is still buffered has no reader: let the interpreter flush it into nothing."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


def _catch_sigterm() -> Any:
    import signal

    def terminated(_number: int, _frame: object) -> NoReturn:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminated)
    except ValueError:  # not the main thread: signals are somebody else's
        return lambda: None
    return lambda: signal.signal(signal.SIGTERM, before)
