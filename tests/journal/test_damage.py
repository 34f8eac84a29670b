"""Damaged logs: a named error or a right answer.  The invariant and the cases stand in `damage`.

Here a seeded portion on the images that ship with the project; `tools/torture_journal.py` runs the complete fixed set
and random damage without end.  Where no checksum was made right again, the kernel must agree: it refuses the logs that
are refused here, and what it replays of the others is what is replayed here.
"""

from __future__ import annotations

import random
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketxfs.device import open_device
from pocketxfs.errors import Error
from pocketxfs.journal.recovery import replay
from tests.damage.campaign import limit_memory
from tests.judge import kernel

from . import campaign, crash, damage, golden

SEED = 20_241
STRUCTURED, RANDOM, JUDGED = 160, 120, 40


@pytest.fixture
def target(name: str) -> Iterator[damage.Target]:
    """An image; what runs with it may not make the process grow much."""
    found = damage.golden_target(name)
    old = limit_memory()
    yield found
    resource.setrlimit(resource.RLIMIT_AS, old)


@golden.each
def test_structured(target: damage.Target) -> None:
    """Every field, told values."""
    cases = list(target.structured())
    outcomes = Counter(target.run(case) for case in random.Random(SEED).sample(cases, STRUCTURED))
    assert outcomes["refused"] > STRUCTURED // 4, outcomes
    assert outcomes["right"] > STRUCTURED // 8, outcomes


@golden.each
def test_random(target: damage.Target) -> None:
    """Bytes and bits, anywhere in the live part of the log."""
    for seed in range(SEED, SEED + RANDOM):
        target.run(target.drawn(seed))


@golden.each
def test_mid_log_damage_is_refused(target: damage.Target) -> None:
    """A flipped bit in what is certainly no torn tail: refused by name, wherever it is."""
    rng = random.Random(SEED)
    for found in target.records[:-8]:
        for _ in range(3):
            place = rng.randrange(found.record.length)
            spot = target.at(found, place)
            flipped = target.bytes_of(spot[0])[spot[1]] ^ 1 << rng.randrange(8)
            case = target.case(f"record at {found.record.block}, byte {place}", {spot: flipped}, found, mended=False)
            assert target.run(case) == "refused", case.name


@pytest.mark.slow
@golden.each
def test_all_structured(target: damage.Target) -> None:
    """The complete set: a quarter of an hour."""
    for case in target.structured():
        target.run(case)


@pytest.mark.judged
def test_the_kernel_agrees(tmp_path: Path) -> None:
    """V5, checksums left wrong: torn tails are taken off as the kernel takes them off, all else is refused as there."""
    target = damage.golden_target("golden-dirty-v5")
    cases = [case for case in target.structured() if not case.mended and "mended False" in case.name]
    image = crash.Image(tmp_path / "image", None)
    image.path.write_bytes(target.image)
    outcomes: Counter[str] = Counter()
    for case in random.Random(SEED).sample(cases, JUDGED):
        shutil.copy(image.path, tmp_path / "damaged")
        with (tmp_path / "damaged").open("r+b") as out:
            for offset, data in case.patches:
                out.seek(offset)
                out.write(data)
        theirs = crash.Image(tmp_path / "damaged", None).copy(tmp_path / "theirs")
        mine = campaign.Opened(crash.Image(tmp_path / "damaged", None))
        try:
            with crash.kernel_recovers(theirs):
                pass
        except RuntimeError:
            with pytest.raises(Error):
                replay(mine.device, mine.geo, mine.machine)
            outcomes["refused"] += 1
        else:
            after, _ = replay(mine.device, mine.geo, mine.machine)
            kernels = open_device(str(theirs.path))
            assert not list(campaign.differing(after, kernels, mine.geo)), case.name
            kernels.close()
            after.close()
            outcomes["replayed"] += 1
        mine.close()
    assert min(outcomes["refused"], outcomes["replayed"]) > 5, outcomes
    assert kernel.missing() is None
