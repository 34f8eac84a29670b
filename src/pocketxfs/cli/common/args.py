"""Command-line arguments: GNU's conventions, from one table of `Option`s per verb.

Short options bundle (`-laR`), take their value attached or next (`-n5`, `-n 5`); long ones take `--name=value` or
`--name value` and may be abbreviated while unambiguous; options and operands mix; `--` ends the options.  Written out
here because options common to all verbs are taken before the verb as well as after it, which argparse cannot do
without losing one side's values, and because it is a third of argparse's start-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class UsageError(Exception):
    """The command line cannot be understood: exit code 2."""


class Option(NamedTuple):
    """One option.  Without `metavar` it is a flag; `convert` makes a value of the text given, or raises ValueError."""

    flags: tuple[str, ...]
    dest: str
    help: str
    metavar: str | None = None
    convert: Callable[[str], Any] | None = None
    default: Any = None
    #: What the flag stores; several flags may share a `dest`, the last one given wins.
    const: Any = True


class Args:
    """The values of a run, as attributes."""

    operands: list[str]

    def __init__(self, values: dict[str, Any], operands: list[str]) -> None:
        self.__dict__.update(values)
        self.operands = operands

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def defaults(options: Sequence[Option]) -> dict[str, Any]:
    """The value of each `dest` before anything is given."""
    values: dict[str, Any] = {}
    for option in options:
        default = option.default
        if default is None and option.metavar is None:
            default = False
        values.setdefault(option.dest, default)
    return values


def parse(
    argv: Sequence[str], options: Sequence[Option], *, stop_at_operand: bool = False, only_long: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """(values given, operands).  `stop_at_operand` leaves everything from the first operand on as operands;

    `only_long` takes `--name` options alone and leaves single-dash words as operands (find's expression).
    """
    by_flag = {flag: option for option in options for flag in option.flags}
    values: dict[str, Any] = {}
    operands: list[str] = []
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        if word == "--":
            operands += argv[position:]
            break
        if word.startswith("--"):
            name, equals, attached = word.partition("=")
            option = by_flag.get(name) or _abbreviated(name, by_flag)
            if option.metavar is None:
                if equals:
                    raise UsageError(f"{name} takes no value")
                values[option.dest] = option.const
                continue
            if not equals:
                if position == len(argv):
                    raise UsageError(f"{name} needs a value: {option.metavar}")
                attached = argv[position]
                position += 1
            values[option.dest] = _converted(option, name, attached)
        elif word.startswith("-") and word != "-" and not only_long:
            position = _short(word, argv, position, by_flag, values)
        else:
            operands.append(word)
            if stop_at_operand:
                operands += argv[position:]
                break
    return values, operands


def _short(word: str, argv: Sequence[str], position: int, by_flag: dict[str, Option], values: dict[str, Any]) -> int:
    for index in range(1, len(word)):
        flag = "-" + word[index]
        option = by_flag.get(flag)
        if option is None:
            raise UsageError(f"unknown option {flag}" + (f" in {word}" if len(word) > 2 else ""))
        if option.metavar is None:
            values[option.dest] = option.const
            continue
        text = word[index + 1 :]
        if not text:
            if position == len(argv):
                raise UsageError(f"{flag} needs a value: {option.metavar}")
            text = argv[position]
            position += 1
        values[option.dest] = _converted(option, flag, text)
        break
    return position


def _abbreviated(name: str, by_flag: dict[str, Option]) -> Option:
    found = {id(option): (flag, option) for flag, option in by_flag.items() if flag.startswith(name)}
    if len(found) == 1:
        return next(iter(found.values()))[1]
    if found:
        raise UsageError(f"{name} is ambiguous: {', '.join(sorted(flag for flag, _ in found.values()))}")
    raise UsageError(f"unknown option {name}")


def _converted(option: Option, flag: str, text: str) -> Any:
    if option.convert is None:
        return text
    try:
        return option.convert(text)
    except ValueError as error:
        raise UsageError(f"{flag} {text!r}: {error}") from None


def number(text: str) -> int:
    """A whole number of zero or more, decimal, 0x or 0o."""
    try:
        value = int(text, 0)
    except ValueError:
        raise ValueError("not a whole number") from None
    if value < 0:
        raise ValueError("negative")
    return value


def byte_count(text: str) -> int:
    """Bytes: a whole number, with K, M, G or T for powers of 1024."""
    shift = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:].upper(), 0)
    return number(text[:-1] if shift else text) << shift


def help_lines(options: Sequence[Option]) -> list[str]:
    """The options as help shows them, aligned."""
    rows = []
    for option in options:
        name = ", ".join(option.flags)
        if option.metavar is not None:
            name += (" " if len(option.flags[-1]) == 2 else "=") + option.metavar
        rows.append((name, option.help))
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:{width}}  {text}" for name, text in rows]
