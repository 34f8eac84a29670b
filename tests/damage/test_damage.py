"""Broken images.

The invariant: whatever bytes an image holds, opening it and then everything that reading offers (the full walk with
readdir, lookup, stat, attributes and their values, links, extents, contents, parents, statvfs, info, inodes by number,
and the B+trees of the allocation groups) gives a value or an `OSError` with an errno, pocketxfs's own among them;
within a bounded time (CPU seconds and reads are counted) and bounded memory (the machine's, the process's, and what is
returned); never another exception, never a hang.  And what is undamaged is still read: the record of every inode that
does not read the damaged bytes, and is not reached through one that does, is what it was.

Here a seeded portion; `tools/torture_damage.py` runs the complete fixed set, and random damage without end.
"""

from __future__ import annotations

import functools
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import pocketxfs
from pocketxfs.format import da
from tests.conftest import no_judge

from . import images, mutate
from .campaign import Campaign, Case, Tally, case_of, limit_memory, run_all
from .patched import Patched

SEED = 20_240
#: Cases of each set, for each flavour.
STRUCTURED, RANDOM, CUTS = 80, 50, 8

flavours = pytest.mark.parametrize("flavour", ["v5", "v5-1k", "v5-dir16k", "v4-512", "metadir"])


@functools.cache
def _campaign(flavour: str) -> Campaign:
    return Campaign(flavour)


@pytest.fixture
def campaign(flavour: str) -> Iterator[Campaign]:
    """The flavour's image; what runs with it may not make the process grow much."""
    lacking = images.lacks(images.FLAVOURS[flavour])
    if lacking:
        no_judge(lacking)
    found = _campaign(flavour)
    old = limit_memory()
    yield found
    resource.setrlimit(resource.RLIMIT_AS, old)


def _judge(tally: Tally) -> None:
    assert not tally.violations, f"{tally}\n" + "\n".join(map(str, tally.violations[:5]))


@flavours
def test_undamaged(campaign: Campaign) -> None:
    assert campaign.run(Case("nothing")) == "same"


@flavours
def test_every_kind_is_there(campaign: Campaign) -> None:
    """The image has a block of every kind that its version knows."""
    there = {found.kind for found in campaign.image.blocks if campaign.image.sound(found)}
    absent = set(campaign.image.kinds) - there
    if campaign.flavour == "v5-dir16k":
        absent -= {"rmapbt"}
    assert not absent


@flavours
def test_structured(campaign: Campaign) -> None:
    cases = list(campaign.structured(1))
    chosen = random.Random(f"{SEED} {campaign.flavour}").sample(cases, STRUCTURED)
    _judge(run_all(campaign, chosen))


@flavours
def test_random(campaign: Campaign) -> None:
    _judge(run_all(campaign, islice(campaign.random(SEED), RANDOM)))


@flavours
def test_cut_short(campaign: Campaign) -> None:
    _judge(run_all(campaign, mutate.cuts(campaign.image, SEED, CUTS)))


@flavours
def test_rest_of_a_directory(campaign: Campaign) -> None:
    """A broken data block takes its own names along, no others: they are listed before the error, and found."""
    with pocketxfs.open(Patched(campaign.image.data)) as fs:
        before = {name: ino for name, ino, _, _ in fs.readdir(fs.resolve("/directories/node"))}
        parent = fs.resolve("/directories/node").ino
    blocks = [found for found in campaign.image.blocks if found.kind == "dir-data"]
    broken = next(found for found in blocks if parent in campaign.readers(found))
    with pocketxfs.open(Patched(campaign.image.data, ((broken.offset, bytes(broken.nbytes)),))) as fs:
        directory = fs.resolve("/directories/node")
        listed = {}
        with pytest.raises(pocketxfs.Corrupt):
            for name, ino, _, _ in fs.readdir(directory):
                listed[name] = ino
        lost = before.keys() - listed.keys()
        assert listed.items() <= before.items()
        assert 0 < len(lost) <= broken.nbytes // 16
        for name, ino in listed.items():
            assert fs.lookup(directory, name) == ino
        for name in lost:
            with pytest.raises(pocketxfs.Corrupt):
                fs.lookup(directory, name)


@pytest.mark.parametrize("flavour", ["v5"])
def test_command_line(campaign: Campaign, tmp_path: Path) -> None:
    """The verbs end with an exit code and no traceback."""
    image = tmp_path / "image"
    subprocess.run(["cp", "--sparse=always", campaign.path, image], check=True)
    cases = random.Random(SEED).sample(list(campaign.structured(1)), 6)
    for number, case in enumerate(cases):
        with image.open("r+b") as out:
            for offset, data in case.patches:
                out.seek(offset)
                out.write(data)
        for words in (["ls", "-laR", image], ["tar", image, "-o", os.devnull], ["cp", "-r", f"{image}:/", "DEST"]):
            into = tmp_path / f"{number}"
            command = [str(into) if word == "DEST" else str(word) for word in words]
            done = subprocess.run(
                [sys.executable, "-m", "pocketxfs", *command], capture_output=True, timeout=120, check=False
            )
            shutil.rmtree(into, ignore_errors=True)
            assert done.returncode in (0, 1, 3, 4, 5), f"{case.name}: {command}: {done.stderr.decode()}"
            assert b"Traceback" not in done.stderr, f"{case.name}: {command}: {done.stderr.decode()}"
        with image.open("r+b") as out:
            for offset, data in case.patches:
                out.seek(offset)
                out.write(campaign.image.data[offset : offset + len(data)])


# -- that it notices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["v5"])
def test_notices_a_check_that_is_missing(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that believes every count of a directory's index lets an exception through, or time."""
    monkeypatch.setattr(da, "_verify_counts", lambda *_: None)
    found = next(found for found in campaign.image.blocks if found.kind == "dir-leafn")
    field = next(field for field in campaign.image.fields(found) if field.name == "count")
    tally = run_all(campaign, [Case("count", mutate.patched(campaign.image, found, [(field, 0xFFFF)]))])
    assert len(tally.violations) == 1
    flavour, again = case_of(tally.violations[0].reproducer())
    assert (flavour, again) == ("v5", tally.violations[0].case)


@pytest.mark.parametrize("flavour", ["v5"])
@pytest.mark.parametrize(
    "breaks",
    [
        pytest.param(lambda: [0] * (1 << 40), id="memory"),
        pytest.param(lambda: (_ for _ in ()).throw(OSError("no errno")).__next__(), id="no errno"),
        pytest.param(lambda: 1 // 0, id="another exception"),
    ],
)
def test_notices(campaign: Campaign, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[], Any]) -> None:
    """What must not come out does not pass."""
    monkeypatch.setattr("pocketxfs.filesystem.FileSystem.statvfs", lambda *_: breaks())
    assert run_all(campaign, [Case("nothing")]).outcomes["violation"] == 1


@pytest.mark.parametrize("flavour", ["v5"])
def test_notices_a_hang(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr("pocketxfs.filesystem.FileSystem.statvfs", hang)
    monkeypatch.setattr("tests.damage.campaign.SECONDS", 0.3)
    assert "hangs" in str(run_all(campaign, [Case("nothing")]).violations[0])


@pytest.mark.parametrize("flavour", ["v5"])
def test_notices_what_is_lost(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """An undamaged file that reads otherwise is a violation."""
    from pocketxfs.inode import data

    monkeypatch.setattr(data, "UNWRITTEN", 1)
    assert "reads otherwise" in str(run_all(campaign, [Case("nothing")]).violations[0])
