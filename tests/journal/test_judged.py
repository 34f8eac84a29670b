"""The kernel judges: images that it abandoned, recovered here and by it.  What is asked stands in `campaign`.

Dozens of cases here, one or two a shape of log and filesystem; `tools/torture_journal.py` runs as many as it is let.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import pocketxfs
from tests.conftest import no_judge
from tests.judge import kernel

from . import campaign, crash, golden
from .by_uml import judge_in_uml
from .campaign import Case

pytestmark = pytest.mark.judged

BY_UML = [name for name, shape in crash.SHAPES.items() if shape.uml and name not in golden.DIRTY]
#: Tested on their own, or no more than any other.
LARGE = ("largest", *golden.DIRTY)
SLOW_BY_UML = ("v4-isize-256", "v5-quota", "v4-external", "v4-smallest-512")
BY_KERNEL = [name for name, shape in crash.SHAPES.items() if not shape.uml and name not in LARGE]
CASES = [
    *(Case(name, 1, 200, memory="4M", settle=True) for name in BY_KERNEL),
    Case("plain-v5", 2, 60, settle=True, cuts=10_000),
    Case("external", 3, 40, settle=True, cuts=10_000),
    Case("rmap-reflink", 3, 100, settle=True, cuts=25),
    Case("big-inodes", 4, 60, settle=True, cuts=25),
    Case("smallest-1k", 5, 1200, rounds=2, held_open=6),
    Case("default", 7, 600, rounds=3, flush_log=False, settle=False),
    Case("lbsize-256k", 8, 1500, settle=False, held_open=9),
    Case("next", 10, 800, settle=True, held_open=3),
    Case("plain-v5", 11, 900, copies=3),
    Case("smallest-4k", 12, 900, copies=2, memory="4M"),
    Case("rmap-reflink", 13, copies=3, extents=400),
]
SLOW_CASES = [
    Case("small-log", 5, 9000, rounds=2, held_open=6),
    Case("small-log", 6, 6000, flush_log=False, settle=False, memory="4M"),
    Case("smallest-4k", 7, 4000, rounds=3, settle=True),
    Case("dir-16k", 9, 2500, settle=True),
    Case("default", 14, 2500, copies=6),
    Case("next", 15, copies=6, extents=1000),
]


@pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_CASES)],
    ids=lambda case: f"{case.shape}-{case.seed}",
)
def test_recovery_equals_the_kernels(case: Case, tmp_path: Path) -> None:
    lacking = crash.SHAPES[case.shape].lacks
    if lacking:
        no_judge(lacking)
    facts = campaign.run(case, tmp_path / "case")
    assert facts["transactions"] > 0


@pytest.mark.judged("uml")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_BY_UML else []) for name in BY_UML]
)
def test_recovery_equals_user_mode_linuxs(name: str, tmp_path: Path) -> None:
    """V4, version 1 logs, 512-byte blocks, quotas, realtime: every block as that kernel's recovery leaves it."""
    facts = judge_in_uml(Case(name, 1, 300, memory="4M", cuts=12), tmp_path / "case")
    assert facts["inodes"] > 100
    assert facts["cuts"]
    if "quota" in name:
        assert facts["dquots"] > 10


@pytest.mark.judged("uml")
@pytest.mark.parametrize("name", ["v4", pytest.param("v5-quota", marks=pytest.mark.slow)])
def test_that_kernel_killed_in_mid_work(name: str, tmp_path: Path) -> None:
    """No shutdown, no sync: the process is gone."""
    facts = judge_in_uml(Case(name, 2, 300, settle=False), tmp_path / "case", killed_after_s=0.2)
    assert facts["transactions"]


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


def test_a_filesystem_that_grew(tmp_path: Path) -> None:
    """What is replayed behind a `xfs_growfs` lies in groups that were not there when the image was opened."""
    shape = crash.Shape("grown", ("-d", "size=64m,agsize=16m", "-m", "reflink=0", "-l", "size=8m"))
    image = crash.make(shape, tmp_path / "made")
    with kernel.mounted(image.path, shape.mount) as point:
        crash.Load(str(point), 1).run(100)
        os.sync()
        kernel.command("xfs_growfs", "-d", point)
        for number in range(100):
            (point / f"new{number}").mkdir()
            (point / f"new{number}" / "file").write_bytes(b"x" * 50_000)
        os.sync()
        os.statvfs(point)
        fd = os.open(point, os.O_RDONLY)
        crash.lowlevel.shutdown(fd)
        os.close(fd)
    run = campaign.Run(Case("plain-v5", 1, cuts=15), tmp_path / "case")
    run.directory.mkdir()
    run.judge(image)
    assert run.facts["icreates"] > 1
    mine = campaign.Opened(image)
    assert mine.geo.ag_count == 8
    mine.close()
