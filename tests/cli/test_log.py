"""`log` and `recover`, on the abandoned filesystems that ship with the project, and beside xfs_logprint."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.journal import campaign, crash, damage, golden
from tests.judge import compare, kernel, ours

from .conftest import Command


@pytest.fixture
def image(name: str, tmp_path: Path) -> Path:
    return golden.written(name, tmp_path)


def items(result: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.out)["items"]
    return found


@golden.each
def test_log_in_words(image: Path, pxfs: Command) -> None:
    before = campaign.digest(image)
    result = pxfs("log", image)
    text = result.out.decode()
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^log    \d+ blocks of 512 bytes \(\d MiB\), internal, at byte \d+ of the device$", text, re.M)
    assert re.search(r"^state  dirty: \d+ KiB of changes not yet written back$", text, re.M)
    assert re.search(r"^head   block \d+, cycle \d+\ntail   block \d+$", text, re.M)
    assert re.search(r"^transaction 1  lsn \d+:\d+  items \d+$", text, re.M)
    # inodes by path; fields with what they were and are; entries that come and go
    head, changed = r"^  INODE    inode \d+ \S*/d1  \(AG \d block \d+\)\n", r"             mode 040755 -> 040700$"
    assert re.search(head + r"(             .*\n)*" + changed, text, re.M)
    assert re.search(r"^             nlink 1 -> 2$", text, re.M)
    assert re.search(r"^             \+ entry 'linked' inode \d+$", text, re.M)
    assert re.search(r"^             - entry 'd2' inode \d+$", text, re.M)
    assert re.search(r"^             \+ attribute 'user.a' of 9 bytes$", text, re.M)
    assert re.search(r"^  BUF      bnobt leaf  \(AG \d block \d+\)$", text, re.M)
    assert re.search(r"^             agf_freeblks \d+ -> \d+$", text, re.M)
    assert re.search(r"^\d+ transactions in \d+ records, \d+ KiB$", text, re.M)
    assert campaign.digest(image) == before


@golden.each
def test_log_as_json(image: Path, pxfs: Command) -> None:
    result = pxfs("--json", "log", image)
    document = json.loads(result.out)
    assert (document["verb"], document["failed"], document["log"]["state"]) == ("log", 0, "dirty")
    found = document["items"]
    assert {item["transaction"] for item in found} == set(range(1, document["transactions"] + 1))
    inode = next(item for item in found if item["item"] == "INODE" and item.get("path", "").endswith("/holes"))
    assert inode["changes"]
    assert all(set(change) == {"what", "from", "to"} for item in found for change in item["changes"])
    brief = items(pxfs("--json", "log", "--summary", "--no-paths", image))
    assert len(brief) == len(found)
    assert not any("changes" in item or "path" in item for item in brief)


@golden.each
def test_log_since(image: Path, pxfs: Command) -> None:
    """From an LSN on: the same items with the same changes, for what came before has been replayed all the same."""
    whole = items(pxfs("--json", "log", image))
    lsns = list(dict.fromkeys(item["lsn"] for item in whole))
    since = lsns[len(lsns) // 2]
    cycle, block = map(int, since.split(":"))
    expected = [item for item in whole if tuple(map(int, item["lsn"].split(":"))) >= (cycle, block)]
    assert items(pxfs("--json", "log", f"--since={since}", image)) == expected
    assert items(pxfs("--json", "log", f"--since={cycle << 32 | block}", image)) == expected
    text = pxfs("log", f"--since={since}", image).out.decode()
    assert re.findall(r"^transaction \d+  lsn (\S+)", text, re.M)[0] == since
    assert pxfs("log", "--since=1:x", image).code == 2


def test_log_of_a_clean_one_and_of_what_is_none(tmp_path: Path, pxfs: Command) -> None:
    image = tmp_path / "image"
    image.write_bytes(golden.unpacked("golden-dirty-v5"))
    assert pxfs("recover", image).code == 0
    result = pxfs("log", image)
    assert b"state  clean: unmounted" in result.out
    assert b"transaction" not in result.out
    assert json.loads(pxfs("--json", "log", image).out)["items"] == []
    (tmp_path / "other").write_bytes(b"none" * 1000)
    assert pxfs("log", tmp_path / "other").code == 4
    assert pxfs("log", f"{image}:/d0").code == 2
    assert pxfs("log", tmp_path / "missing").code == 1


def damaged(tmp_path: Path) -> Path:
    """Damage in the middle of the log."""
    target = damage.Target(golden.unpacked("golden-dirty-v5"))
    found = target.records[2]
    spot = target.at(found, 1000)
    case = target.case("", {spot: target.bytes_of(spot[0])[spot[1]] ^ 1}, found, mended=False)
    image = tmp_path / "damaged"
    data = bytearray(golden.unpacked("golden-dirty-v5"))
    for offset, piece in case.patches:
        data[offset : offset + len(piece)] = piece
    image.write_bytes(data)
    return image


@pytest.mark.parametrize("verb", ["log", "recover", "ls"])
def test_damage_is_named(verb: str, tmp_path: Path, pxfs: Command) -> None:
    image = damaged(tmp_path)
    before = campaign.digest(image)
    result = pxfs(verb, image)
    assert result.code == 3
    assert re.search(r"log record at .*damaged, log, block \d+: bad h_crc", result.err)
    assert campaign.digest(image) == before


@golden.each
def test_recover(name: str, image: Path, pxfs: Command) -> None:
    before = campaign.digest(image)
    result = pxfs("recover", "--dry-run", image)
    assert result.code == 0
    assert re.search(
        rb"^.*image: \d+ transactions would be replayed\n.*image: the log would be closed: clean$", result.out
    )
    assert campaign.digest(image) == before
    result = pxfs("--json", "recover", image)
    document = json.loads(result.out)
    (facts,) = document["images"]
    assert (result.code, facts["was"], facts["log"], facts["left"]) == (0, "dirty", "clean", [])
    assert facts["bytes_written"] > 0
    assert facts["replay"]["transactions"] > 5
    again = pxfs("recover", image)
    assert (again.code, again.out) == (0, f"{image}: the log is clean, nothing to do\n".encode())
    import pocketxfs

    with pocketxfs.open(image) as fs:
        assert not compare.report(compare.kernel_records(golden.manifest(name)), ours.walk(fs))


def test_recover_several_and_one_that_fails(tmp_path: Path, pxfs: Command) -> None:
    good, bad = tmp_path / "good", damaged(tmp_path)
    good.write_bytes(golden.unpacked("golden-dirty-v5"))
    result = pxfs("--json", "recover", bad, good)
    assert result.code == 1
    document = json.loads(result.out)
    assert document["failed"] == 1
    assert [facts["image"] for facts in document["images"]] == [str(good)]
    assert pxfs("recover", tmp_path).code != 0
    read_only = tmp_path / "read-only"
    read_only.write_bytes(golden.unpacked("golden-dirty-v5"))
    assert pxfs("recover").code == 2


@golden.each
def test_memory_is_reported_and_kept(image: Path, tmp_path: Path, pxfs: Command) -> None:
    for verb in ("log", "recover"):
        report = tmp_path / "memory.json"
        assert pxfs("--memory=4M", f"--memory-report={report}", verb, image).code == 0
        (found,) = json.loads(report.read_text())["reports"]
        assert 0 < found["high_water_bytes"] <= found["ram_bytes"] == 4 << 20
        assert found["charged_bytes"] == 0


# -- judged ----------------------------------------------------------------------------------------------------------


@pytest.mark.judged
def test_what_is_left_is_told(tmp_path: Path, pxfs: Command) -> None:
    """Inodes unlinked while open: replayed, named, and left to Linux, which then finds nothing else to do."""
    image = crash.abandon(crash.SHAPES["plain-v5"], tmp_path / "made", 3, 40, held_open=3, settle=True)
    result = pxfs("recover", image.path)
    assert result.code == 1
    assert b"left for Linux to finish, the log stays dirty" in result.out
    assert re.search(rb"\d+ unlinked inodes to be freed: \d+", result.out)
    with crash.kernel_recovers(image, "noatime"):
        pass
    result = pxfs("recover", image.path)
    assert (result.code, result.out) == (0, f"{image.path}: the log is clean, nothing to do\n".encode())
    assert campaign.repair_says(image, "6.1")[0] == 0


@pytest.mark.judged
def test_a_mounted_image_is_not_touched(tmp_path: Path, pxfs: Command) -> None:
    image = tmp_path / "image"
    image.write_bytes(golden.unpacked("golden-dirty-v5"))
    with kernel.mounted(image):
        result = pxfs("recover", image)
        assert result.code == 1
        assert "the kernel has it mounted" in result.err


@pytest.mark.judged
def test_transactions_are_xfs_logprints(tmp_path: Path, pxfs: Command) -> None:
    """The same kinds of items, as many of each, transaction by transaction."""
    image = crash.abandon(crash.SHAPES["plain-v5"], tmp_path / "made", 2, 300, settle=True)
    found = items(pxfs("--json", "log", "--summary", "--no-paths", image.path))
    mine: dict[int, list[str]] = {}
    for item in found:
        mine.setdefault(item["transaction"], []).append(item["item"])
    said = subprocess.run(
        ["xfs_logprint", "-t", "-i", "-b", str(image.path)], capture_output=True, text=True, errors="replace"
    )
    names = {"INO": "INODE", "ICR": "ICREATE"}
    theirs = [
        [names.get(kind, kind) for kind in re.findall(r"^([A-Z]+):", part, re.M)]
        for part in said.stdout.split("\nTRANS: ")[1:]
    ]
    assert len(mine) > 5
    assert [Counter(kinds) for kinds in mine.values()] == [Counter(kinds) for kinds in theirs]
