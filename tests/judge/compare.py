"""Two manifests, entry by entry: what differs, in lines that a person can read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .manifest import Record

#: Lines of differences shown.
SHOWN = 40


def kernel_records(path: Path) -> Iterator[Record]:
    """The lines of a manifest file, without the first, see `kernel_header`."""
    with gzip.open(path, "rt") as lines:
        next(lines)
        yield from map(json.loads, lines)


def kernel_header(path: Path) -> Record:
    """The first line."""
    with gzip.open(path, "rt") as lines:
        found: Record = json.loads(next(lines))
        return found


def _key(record: Record) -> tuple[str, ...]:
    return () if record["p"] == "." else tuple(record["p"].split("/"))


def _short(value: Any, room: int = 300) -> str:
    shown = repr(value)
    return shown if len(shown) <= room else shown[: room - 80] + " … " + shown[-70:]


def _values(field: str, kernel: Any, ours: Any) -> Iterator[str]:
    """A field that differs; of maps and lists only the places that do."""
    if isinstance(kernel, dict) and isinstance(ours, dict):
        for name in sorted(kernel.keys() | ours.keys()):
            if kernel.get(name) != ours.get(name):
                yield f"{field}[{name!r}]: kernel {_short(kernel.get(name))}, pocketxfs {_short(ours.get(name))}"
    elif isinstance(kernel, list) and isinstance(ours, list):
        place = next((at for at, pair in enumerate(zip(kernel, ours, strict=False)) if pair[0] != pair[1]), None)
        if place is None:
            place = min(len(kernel), len(ours))
        yield (
            f"{field}: {len(kernel)} and {len(ours)}; from {place}: kernel {_short(kernel[place : place + 3])}, "
            f"pocketxfs {_short(ours[place : place + 3])}"
        )
    else:
        yield f"{field}: kernel {_short(kernel)}, pocketxfs {_short(ours)}"


def differences(
    kernel: Iterator[Record], ours: Iterator[Record], ignore: frozenset[str] = frozenset()
) -> Iterator[str]:
    """A line for each entry or field that is not the same.  Both sides come depth first, names in byte order."""
    left, right = next(kernel, None), next(ours, None)
    unreadable: tuple[str, ...] | None = None
    while left is not None or right is not None:
        left_key = _key(left) if left is not None else None
        right_key = _key(right) if right is not None else None
        if right is None or right_key is None or (left_key is not None and left_key < right_key):
            assert left is not None and left_key is not None
            if unreadable is None or left_key[: len(unreadable)] != unreadable:
                yield f"{_short(left['p'], 120)}: missing from pocketxfs"
            left = next(kernel, None)
            continue
        if left is None or left_key is None or right_key < left_key:
            yield f"{_short(right['p'], 120)}: not there in the kernel"
            right = next(ours, None)
            continue
        if left != right:
            if "error" in right:
                unreadable = right_key
                yield f"{_short(right['p'], 120)}: {right['error']}"
            else:
                for field in sorted((left.keys() | right.keys()) - ignore):
                    if left.get(field) != right.get(field):
                        for line in _values(field, left.get(field), right.get(field)):
                            yield f"{_short(left['p'], 120)}: {line}"
        left, right = next(kernel, None), next(ours, None)


def report(kernel: Iterator[Record], ours: Iterator[Record], ignore: frozenset[str] = frozenset()) -> str:
    """The first differences, and how many there are; empty where there are none."""
    lines: list[str] = []
    count = 0
    for line in differences(kernel, ours, ignore):
        count += 1
        if count <= SHOWN:
            lines.append(line)
    if count > SHOWN:
        lines.append(f"… {count} differences in all")
    return "\n".join(lines)
