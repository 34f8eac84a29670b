"""Judged by sfdisk (what the tables say), by mkfs.xfs and by the kernel (loop devices)."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from pocketxfs.device import open_device, partitions
from tests.conftest import no_judge

pytestmark = pytest.mark.judged

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def tool(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        no_judge(name)
    return found


@contextmanager
def loop_device(image: Path, sector_bytes: int) -> Iterator[str]:
    program = tool("losetup")
    made = subprocess.run(
        [program, "--find", "--show", "--sector-size", str(sector_bytes), image], capture_output=True, text=True
    )
    if made.returncode:
        no_judge(f"a loop device: {made.stderr.strip()}")
    loop = made.stdout.strip()
    try:
        yield loop
    finally:
        subprocess.run([program, "--detach", loop], check=True)


def sfdisk(image: Path, script: str, sector_bytes: int = 512) -> list[dict[str, Any]]:
    """Make the table; what sfdisk then reads back.  It knows 4096-byte sectors from a device only."""
    program = tool("sfdisk")
    with loop_device(image, sector_bytes) if sector_bytes != 512 else nullcontext(os.fspath(image)) as where:
        subprocess.run([program, "-q", "--no-tell-kernel", where], input=script, text=True, check=True)
        shown = subprocess.run([program, "--json", where], check=True, capture_output=True).stdout
    table: dict[str, Any] = json.loads(shown)["partitiontable"]
    listed: list[dict[str, Any]] = table["partitions"]
    for one in listed:
        one["number"] = int(one["node"].removeprefix(where).removeprefix("p"))
    return listed


SCRIPTS = {
    "gpt": "label: gpt\nsize=4M, type=U, name=boot\nsize=8M, name=größe\nsize=1M\nname=rest\n",
    "gpt-gaps": "label: gpt\n3: size=4M\n17: size=8M, name=x\n",
    "gpt-small": "label: gpt\ntable-length: 8\nsize=4M\nsize=8M\n",
    "dos-primary": "label: dos\nsize=4M, type=c, bootable\nsize=4M, type=82\nsize=4M\nsize=8M\n",
    "dos-logical": "label: dos\nsize=4M\nsize=40M, type=5\n4: size=4M\nsize=4M\nsize=8M\nsize=6M\nsize=1M\n",
    "dos-extended-last": "label: dos\nsize=2M\nsize=2M\nsize=2M\ntype=f\nsize=4M\nsize=8M\n",
}


@pytest.mark.parametrize("sector_bytes", [512, 4096])
@pytest.mark.parametrize("name", SCRIPTS)
def test_tables_as_sfdisk_sees_them(name: str, sector_bytes: int, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with open(image, "wb") as out:
        out.truncate(96 << 20)
    listed = sfdisk(image, SCRIPTS[name], sector_bytes)
    expected = [(one["number"], one["start"], one["size"], one.get("name", "")) for one in listed]
    # An MBR does not say its unit: the filesystem in one of its partitions does.
    with open(image, "r+b") as out:
        out.seek(listed[-1]["start"] * sector_bytes)
        out.write(b"XFSB")
    with open_device(image, whole=True) as device:
        found = partitions(device)
    assert [
        (one.number, one.start_bytes / sector_bytes, one.size_bytes / sector_bytes, one.name)
        for one in found
        if not (one.scheme == "MBR" and "Extended" in one.type)
    ] == [
        entry for entry, one in zip(expected, listed, strict=True) if not ("dos" in name and one["type"] in ("5", "f"))
    ]
    with open_device(image) as device:
        assert device.size_bytes == listed[-1]["size"] * sector_bytes
        assert device.base_bytes == listed[-1]["start"] * sector_bytes


def test_a_filesystem_in_a_partition(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with open(image, "wb") as out:
        out.truncate(340 << 20)
    listed = sfdisk(image, "label: gpt\nsize=4M\nsize=320M\n")
    inner = tmp_path / "xfs"
    with open(inner, "wb") as out:
        out.truncate(320 << 20)
    subprocess.run([tool("mkfs.xfs"), "-q", inner], check=True)
    start = listed[1]["start"] * 512
    with open(inner, "rb") as source, open(image, "r+b") as out:
        out.seek(start)
        out.write(source.read(1 << 20))
    with open_device(image) as device:
        assert (device.base_bytes, device.size_bytes) == (start, 320 << 20)
        assert device.pread(0, 4) == b"XFSB"


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_a_block_device(tmp_path: Path, sector_bytes: int) -> None:
    image = tmp_path / "image"
    content = os.urandom(1 << 20)
    image.write_bytes(content)
    with loop_device(image, sector_bytes) as loop:
        assert stat.S_ISBLK(os.stat(loop).st_mode)
        with open_device(loop, whole=True) as device:
            assert (device.size_bytes, device.sector_bytes, device.name) == (1 << 20, sector_bytes, loop)
            held = bytearray(10_000)
            view = memoryview(held)
            device.readahead(0, 1 << 20)
            device.pread_into(777, (view[:1], view[1:]))
            assert held == content[777:10_777]
            assert device.fileno() is not None
        with open_device(loop, offset=(1 << 20) - 5) as device:
            assert device.pread(0, 5) == content[-5:]
