"""The recipes make what they say: forms that the truth test relies on, as xfs_db finds them on the disk."""

from __future__ import annotations

import re

import pytest

from tests.conftest import no_judge
from tests.judge import compare, kernel
from tests.judge.recipes import ALL

BTREE = r"3 \(btree\)"
LOCAL = r"1 \(local\)"
#: recipe, path, xfs_db's field, pattern of its value
FORMS = [
    ("default", "directories/short", "core.format", LOCAL),
    ("default", "directories/block", "core.size", "4096"),
    ("default", "attributes/short", "core.aformat", LOCAL),
    ("default", "fragmented/extents-300", "u3.bmbt.level", "1"),
    ("deep-trees-4k", "deep_trees/extents", "u3.bmbt.level", "2"),
    ("deep-trees-1k", "deep_trees/extents", "u3.bmbt.level", "3"),
    ("scattered", "scattered/directory", "core.format", BTREE),
    ("scattered", "scattered/attributes", "core.aformat", BTREE),
    ("scattered-dir-64k", "scattered/directory", "u3.bmbt.level", "2"),
    ("inodes-64bit", "sf8/mixed", "u3.sfdir3.hdr.i8count", "[1-9]"),
]


def _inode(built: kernel.Built, path: str) -> int:
    return next(record["dino"] for record in compare.kernel_records(built.manifest) if record["p"] == path)


def _fields(built: kernel.Built, *commands: str) -> str:
    words = [word for command in commands for word in ("-c", command)]
    return kernel.command("xfs_db", "-r", *words, built.image)


@pytest.mark.parametrize(("name", "path", "field", "value"), FORMS)
def test_forms(name: str, path: str, field: str, value: str) -> None:
    """A file has the form that its part is named for."""
    if lacking := kernel.lacks(ALL[name]):
        no_judge(lacking)
    built = kernel.ensure(ALL[name])
    shown = _fields(built, f"inode {_inode(built, path)}", "print")
    assert re.search(rf"^{re.escape(field)} = {value}", shown, re.MULTILINE), shown


def test_sparse_inode_chunks() -> None:
    """Some inode chunks have holes."""
    recipe = ALL["sparse-inodes"]
    if lacking := kernel.lacks(recipe):
        no_judge(lacking)
    built = kernel.ensure(recipe)
    groups = range(int(_fields(built, "sb 0", "print agcount").split("=")[1]))
    shown = "".join(_fields(built, f"agi {group}", "addr root", "print recs") for group in groups)
    assert re.search(r":\[\d+,0x[0-9a-f]+,", shown), shown
