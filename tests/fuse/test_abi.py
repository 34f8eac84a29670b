"""The protocol's numbers and sizes against the header that the system's C library ships, where it does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pocketxfs.fuse import abi

from . import harness

HEADER = Path("/usr/include/linux/fuse.h")
STRUCTURES = {
    "fuse_in_header": abi.FUSE_IN_HEADER, "fuse_out_header": abi.FUSE_OUT_HEADER, "fuse_attr": abi.FUSE_ATTR,
    "fuse_entry_out": abi.FUSE_ENTRY_OUT, "fuse_attr_out": abi.FUSE_ATTR_OUT, "fuse_dirent": abi.FUSE_DIRENT,
    "fuse_direntplus": abi.FUSE_DIRENTPLUS, "fuse_init_in": abi.FUSE_INIT_IN_EXT, "fuse_init_out": abi.FUSE_INIT_OUT,
    "fuse_forget_in": abi.FUSE_FORGET_IN, "fuse_batch_forget_in": abi.FUSE_BATCH_FORGET_IN,
    "fuse_forget_one": abi.FUSE_FORGET_ONE, "fuse_getattr_in": abi.FUSE_GETATTR_IN, "fuse_open_in": abi.FUSE_OPEN_IN,
    "fuse_open_out": abi.FUSE_OPEN_OUT, "fuse_read_in": abi.FUSE_READ_IN, "fuse_release_in": abi.FUSE_RELEASE_IN,
    "fuse_statfs_out": abi.FUSE_STATFS_OUT, "fuse_getxattr_in": abi.FUSE_GETXATTR_IN,
    "fuse_getxattr_out": abi.FUSE_GETXATTR_OUT, "fuse_access_in": abi.FUSE_ACCESS_IN,
    "fuse_ioctl_in": abi.FUSE_IOCTL_IN, "fuse_ioctl_out": abi.FUSE_IOCTL_OUT, "fuse_lseek_in": abi.FUSE_LSEEK_IN,
    "fuse_lseek_out": abi.FUSE_LSEEK_OUT, "fuse_statx_in": abi.FUSE_STATX_IN, "fuse_statx_out": abi.FUSE_STATX_OUT,
}  # fmt: skip


def header() -> str:
    """The header's text, or a skip."""
    if not HEADER.exists():
        pytest.skip("no linux/fuse.h here")
    return HEADER.read_text()


def test_opcodes_and_flags() -> None:
    text = header()
    theirs = {name: int(value) for name, value in re.findall(r"^\s(FUSE_\w+)\s*= (\d+),", text, re.M)}
    for name, value in re.findall(r"^#define (F\w+)\s*\(1(?:ULL)? << (\d+)\)", text, re.M):
        theirs[name] = 1 << int(value)
    checked = 0
    for name, value in vars(abi).items():
        if name in theirs:
            assert value == theirs[name], name
            checked += 1
    assert checked > 80


def test_structure_sizes(tmp_path: Path) -> None:
    text = header()
    if harness.have("cc"):
        pytest.skip("no C compiler")
    present = [name for name in STRUCTURES if f"struct {name} {{" in text]
    lines = "".join(f'printf("%zu\\n", sizeof(struct {name}));' for name in present)
    source = tmp_path / "sizes.c"
    source.write_text(f"#include <stdio.h>\n#include <linux/fuse.h>\nint main(void) {{ {lines} return 0; }}\n")
    harness.run("cc", "-o", tmp_path / "sizes", source)
    found = subprocess.run([tmp_path / "sizes"], check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip(present, map(int, found), strict=True)) == {name: STRUCTURES[name].size for name in present}


def test_names() -> None:
    assert abi.OPCODE_NAMES[abi.FUSE_READDIRPLUS] == "READDIRPLUS"
    assert len(abi.OPCODE_NAMES) == 51
