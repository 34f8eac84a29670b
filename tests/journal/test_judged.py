"""The kernel judges: images that it abandoned, recovered here and by it.  What is asked stands in `campaign`.

Dozens of cases here, one or two a shape of log and filesystem; `tools/torture_journal.py` runs as many as it is let.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import pocketxfs
from pocketxfs.device import open_device
from pocketxfs.journal.recovery import replay
from tests.conftest import no_judge
from tests.judge import kernel, uml

from . import campaign, crash
from .campaign import Case

pytestmark = pytest.mark.judged

BY_UML = [name for name, shape in crash.SHAPES.items() if shape.uml]
BY_KERNEL = [name for name, shape in crash.SHAPES.items() if not shape.uml]
CASES = [
    *(Case(name, 1, 250, memory="4M", settle=True) for name in BY_KERNEL),
    Case("plain-v5", 2, 150, settle=True, cuts=40),
    Case("rmap-reflink", 3, 150, settle=True, cuts=25),
    Case("big-inodes", 4, 60, settle=True, cuts=25),
    Case("small-log", 5, 9000, rounds=2, held_open=6),
    Case("small-log", 6, 6000, flush_log=False, settle=False, memory="4M"),
    Case("default", 7, 800, rounds=3, flush_log=False, settle=False),
    Case("lbsize-256k", 8, 3000, settle=False, held_open=9),
    Case("dir-16k", 9, 2500, settle=True),
    Case("next", 10, 1200, settle=True, held_open=3),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.shape}-{case.seed}")
def test_recovery_equals_the_kernels(case: Case, tmp_path: Path) -> None:
    lacking = crash.SHAPES[case.shape].lacks
    if lacking:
        no_judge(lacking)
    facts = campaign.run(case, tmp_path / "case")
    assert facts["transactions"] > 0


@pytest.mark.judged("uml")
@pytest.mark.parametrize("name", BY_UML)
def test_recovery_equals_user_mode_linuxs(name: str, tmp_path: Path) -> None:
    """V4, version 1 logs, 512-byte blocks, quotas: every block as that kernel's recovery leaves it."""
    shape = crash.SHAPES[name]
    image = crash.abandon_in_uml(shape, tmp_path / "made", 1, 400, users=True)
    copy = image.copy(tmp_path / "kernel")
    uml.run(copy.path, [uml.Step(f"{shape.mount},ro", ["true"])])
    mine = campaign.Opened(image, "4M")
    after, report = replay(mine.device, mine.geo, mine.machine)
    theirs = open_device(str(copy.path))
    assert report.counts.inodes > 100
    if "quota" in name:
        assert report.counts.dquots > 10
    if not report.unfinished:
        assert not list(campaign.differing(after, theirs, mine.geo))
    after.close()
    theirs.close()
    mine.close()
    run = campaign.Run(Case(name, 1), tmp_path / "unused")
    writable = campaign.Opened(image, writable=True)
    done = campaign.recover(writable.device, writable.geo, writable.machine)
    writable.close()
    assert done.closed != report.unfinished
    uml.run(image.path, [uml.Step(shape.mount, ["true"])])
    code, lines = campaign.repair_says(image, run.shape.version)
    assert not code, lines


def test_the_head_is_where_xfs_logprint_finds_it(tmp_path: Path) -> None:
    """Head and tail, clean and dirty, in a log that goes around."""
    shape = crash.SHAPES["small-log"]
    image = crash.make(shape, tmp_path)
    for turn in range(5):
        with kernel.mounted(image.path, shape.mount) as point:
            top = point / f"turn{turn}"
            top.mkdir()
            load = crash.Load(str(top), turn)
            load.run(900)
            if turn % 2:
                fd = crash.os.open(point, crash.os.O_RDONLY)
                crash.lowlevel.shutdown(fd)
                crash.os.close(fd)
        said = subprocess.run(["xfs_logprint", "-t", str(image.path)], capture_output=True, text=True, errors="replace")
        words = next(line for line in said.stdout.splitlines() if "log tail:" in line).split()
        mine = campaign.Opened(image)
        state = campaign.find_state(campaign.log_ring(mine.device, mine.geo, None))
        mine.close()
        assert (words[2], words[4], words[6]) == (
            str(state.tail_block), str(state.head_block), "<CLEAN>" if state.clean else "<DIRTY>"
        )  # fmt: skip


def test_a_log_of_its_own_must_be_named(tmp_path: Path) -> None:
    """An external log: refused without, replayed with."""
    shape = crash.SHAPES["external"]
    image = crash.abandon(shape, tmp_path / "made", 1, 60)
    with pytest.raises(pocketxfs.Unsupported, match="log"):
        pocketxfs.open(image.path)
    with pocketxfs.open(image.path, logdev=image.log) as fs:
        assert fs.recovered is not None
        assert fs.recovered.transactions
