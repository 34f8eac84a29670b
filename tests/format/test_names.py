"""The name hash, against xfs_db's own."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import no_judge

from pocketxfs.format.dir import fold, hash_name


@pytest.mark.judged
def test_hash_agrees_with_xfs_db(tmp_path):
    if shutil.which("xfs_db") is None:
        no_judge("xfs_db")
    image = tmp_path / "empty.img"
    with open(image, "wb") as out:
        out.truncate(300 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    names = ["a", "ab", "abc", "abcd", "abcde", "lost+found", "x" * 255, "file-0001.txt", "SGI_ACL_FILE", "~~~~~~~"]
    commands = [word for name in names for word in ("-c", f"hash {name}")]
    said = subprocess.run(["xfs_db", "-r", *commands, str(image)], check=True, capture_output=True, text=True).stdout
    assert [int(word, 16) for word in said.split()] == [hash_name(name.encode()) for name in names]


def rolled(name: bytes) -> int:
    """The hash as one would say it: seven bits left for each byte, round the end, and the byte put in."""
    value = 0
    for byte in name:
        value = ((value << 7 | value >> 25) & 0xFFFFFFFF) ^ byte
    return value


@given(st.binary(max_size=255))
def test_hash_is_a_byte_at_a_time(name):
    assert hash_name(name) == rolled(name)


def test_fold_is_latin1():
    assert fold(bytes(range(0x41, 0x5B))) == bytes(range(0x61, 0x7B))
    assert fold(b"\xc0\xd6\xd7\xd8\xde\xdf") == b"\xe0\xf6\xd7\xf8\xfe\xdf"
