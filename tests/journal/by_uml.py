"""One case judged by the kernel that runs as a process: V4, version 1 logs, quotas, realtime devices.

Abandoned by shutdown, or by killing that kernel in mid-work.  Its recovery of a copy is compared with ours, sector by
sector where nothing was left to finish; then ours is recovered in place, mounted there, and looked at by xfs_repair.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pocketxfs.device import open_device
from pocketxfs.journal.recovery import replay

from ..judge import uml
from . import campaign, crash


def judge_in_uml(case: campaign.Case, directory: Path, *, killed_after_s: float | None = None) -> dict[str, Any]:
    """What was seen; raises `campaign.Violation`."""
    shape = crash.SHAPES[case.shape]
    shutil.rmtree(directory, ignore_errors=True)
    image = crash.abandon_in_uml(
        shape, directory / "made", case.seed, case.steps, flush_log=case.flush_log, settle=case.settle,
        users="quota" in case.shape, killed_after_s=killed_after_s,
    )  # fmt: skip

    def fail(text: str) -> None:
        raise campaign.Violation(f"{case.line()}, killed after {killed_after_s}: {text}")

    copy = image.copy(directory / "kernel")
    uml.run(copy.path, [uml.Step(f"{shape.mount},ro", ["true"])], log=copy.log, rt=copy.rt)
    before = campaign.digest(image.path), campaign.digest(image.log)
    mine = campaign.Opened(image, case.memory)
    after, report = replay(mine.device, mine.geo, mine.machine, mine.log)
    facts = {"unfinished": report.unfinished, "transactions": report.transactions, **report.counts.as_dict()}
    if report.state.clean:
        fail("the log is clean")
    if not report.unfinished:
        theirs = open_device(str(copy.path))
        places = list(campaign.differing(after, theirs, mine.geo))
        theirs.close()
        if places:
            fail(f"{len(places)} sectors differ from that kernel's recovery, first at bytes {places[:5]}")
    after.close()
    mine.close()
    if (campaign.digest(image.path), campaign.digest(image.log)) != before:
        fail("reading changed the image")
    if case.cuts:
        mine = campaign.Opened(image, case.memory)
        facts["cuts"] = campaign.check_interruptions(mine, case.cuts, case.seed)
        mine.close()
    mine = campaign.Opened(image, case.memory, writable=True)
    done = campaign.recover(mine.device, mine.geo, mine.machine, mine.log)
    mine.close()
    if done.closed == report.unfinished:
        fail(f"closed {done.closed}, unfinished {report.unfinished}")
    if done.closed:
        code, lines = campaign.repair_says(image, shape.version)
        kernels, kernel_lines = campaign.repair_says(copy, shape.version)
        if code and (not kernels or any(line not in kernel_lines for line in lines)):
            fail(f"xfs_repair -n: {lines[:5]}")
    uml.run(image.path, [uml.Step(shape.mount, ["true"])], log=image.log, rt=image.rt)
    code, lines = campaign.repair_says(image, shape.version)
    if code:
        fail(f"xfs_repair -n after that kernel: {lines[:5]}")
    shutil.rmtree(directory, ignore_errors=True)
    return facts
