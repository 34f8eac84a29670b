"""Read the B+trees of the allocation groups, which no file is read through: every record, every block, some lookups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pocketxfs import btree
from pocketxfs.errors import Unsupported
from pocketxfs.filesystem import FileSystem

from .survey import taken

#: A damaged superblock may claim millions of groups.
MOST_GROUPS = 8
TREES: dict[str, Callable[..., Any]] = {
    "bnobt": btree.bnobt, "cntbt": btree.cntbt, "inobt": btree.inobt, "finobt": btree.finobt, "rmapbt": btree.rmapbt,
    "refcountbt": btree.refcountbt,
}  # fmt: skip


class Trees(NamedTuple):
    """What was read, by group and tree, and how many errors there were."""

    found: dict[tuple[int, str], Any]
    errors: int


def survey_trees(fs: FileSystem) -> Trees:
    """Everything that the trees hold.  Only `OSError` is an answer."""
    found: dict[tuple[int, str], Any] = {}
    errors = 0
    cache = fs.mount.cache

    def note(agno: int, name: str, call: Callable[[], Any]) -> None:
        nonlocal errors
        try:
            found[agno, name] = call()
        except OSError as error:
            if error.errno is None:
                raise AssertionError(f"{type(error).__name__} without an errno") from error
            found[agno, name] = ("!", type(error).__name__)
            # a tree that the filesystem does not have is not damage
            errors += not isinstance(error, Unsupported)

    for agno in range(min(fs.geo.ag_count, MOST_GROUPS)):
        note(agno, "AGF", lambda agno=agno: btree.read_agf(cache, agno))
        note(agno, "AGI", lambda agno=agno: btree.read_agi(cache, agno))
        note(agno, "AGFL", lambda agno=agno: btree.read_agfl(cache, agno))
        for name, make in TREES.items():
            note(agno, name, lambda agno=agno, name=name, make=make: _read(name, make(cache, agno)))
    return Trees(found, errors)


def _read(name: str, tree: Any) -> Any:
    records = taken(tree.records())
    blocks = taken(tree.blocks())
    found = []
    for record in records[:: max(1, len(records) // 4)]:
        key = KEYS.get(name, _first)(record)
        found.append((tree.lookup_le(key), tree.lookup_ge(key)))
    return records, blocks, found


def _first(record: Any) -> Any:
    return record[0]


KEYS: dict[str, Callable[[Any], Any]] = {
    "cntbt": lambda record: (record[1], record[0]), "rmapbt": lambda record: (record[0], 0, 0),
}  # fmt: skip
