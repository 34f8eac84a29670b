"""Logs of machines that nobody has at hand: big-endian and 32-bit ones, from a log that the kernel wrote here.

What is shown must be the same as from the kernel's own; of the big-endian one, where no LSN changes, every block.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import pocketxfs
from pocketxfs.device import open_device
from tests.damage.patched import Patched
from tests.judge import compare, ours

from . import campaign, crash, damage, golden, rewrite

WRITERS = {
    "itself": rewrite.Writer(),
    "big-endian": rewrite.Writer(big=True),
    "i386": rewrite.Writer(i386=True),
    "big-endian-32-bit": rewrite.Writer(big=True, i386=True),
}


@golden.each
@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_what_is_shown(name: str, writer: rewrite.Writer, tmp_path: Path) -> None:
    target = damage.Target(golden.unpacked(name))
    image = tmp_path / "image"
    image.write_bytes(rewrite.rewritten(target, writer))
    with pocketxfs.open(image, memory="4M") as fs:
        assert fs.recovered is not None
        assert fs.recovered.records == len(target.records)
        found = compare.report(compare.kernel_records(golden.manifest(name)), ours.walk(fs))
    if found:
        pytest.fail(found, pytrace=False)


@golden.each
def test_every_block_of_a_big_endian_log(name: str, tmp_path: Path) -> None:
    target = damage.Target(golden.unpacked(name))
    image = tmp_path / "image"
    image.write_bytes(rewrite.rewritten(target, WRITERS["big-endian"]))
    mine = campaign.Opened(crash.Image(image, None))
    native = open_device(Patched(golden.unpacked(name)))  # type: ignore[arg-type]
    one, _ = campaign.replay(mine.device, mine.geo, mine.machine)
    other, _ = campaign.replay(native, mine.geo, mine.machine)
    assert not list(campaign.differing(one, other, mine.geo))
    one.close()
    other.close()
    mine.close()
