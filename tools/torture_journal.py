#!/usr/bin/env python3
"""The long campaign on journals: abandoned filesystems and damaged logs, until done or told to stop.

    tools/torture_journal.py [--seconds S] [--crashes N] [--damage N] [--structured] [--shape NAME]... [--seed N]
                             [--resume FILE]
    tools/torture_journal.py --replay FILE

Crashes: for each shape of filesystem and log (`tests/journal/crash.py`) `--crashes` seeds, each drawn into a case (how
much load, how abandoned, memory, power cuts; `tests/journal/campaign.py`), judged by the kernel's own recovery of a
copy and by xfs_repair.  Damage: `--damage` random ones for each image that ships with the project, the complete fixed
set with `--structured` (`tests/journal/damage.py`).  Shapes that only user-mode Linux can make are abandoned there,
half of them by killing that kernel.

`--resume` keeps the place in a file and goes on from it.  Violations go to `journal-violations.jsonl`, a line each,
which `--replay` takes; a crash's images are kept where that line says.  Crashes need root, loop mounts and xfsprogs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from place import Place  # noqa: E402
from tests.journal import campaign, crash, damage, golden  # noqa: E402
from tests.journal.by_uml import judge_in_uml  # noqa: E402

#: Made once, elsewhere: too large for hundreds of copies, or only to ship.
NOT_DRAWN = ("largest", *golden.DIRTY)
NOTE_EVERY_S = 10.0
WORK = "/var/tmp"


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Abandon filesystems, damage logs, recover them, let Linux judge.")
    parser.add_argument("--crashes", type=int, default=10, help="seeds for each shape (default 10)")
    parser.add_argument("--damage", type=int, default=1000, help="random damage for each image (default 1000)")
    parser.add_argument("--structured", action="store_true", help="the complete fixed set of damage too")
    parser.add_argument("--shape", action="append", choices=[name for name in crash.SHAPES if name not in NOT_DRAWN])
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--resume", type=Path, help="keep the place in this file, and go on from it")
    parser.add_argument("--replay", type=Path, help="run the cases of a file of violations")
    parser.add_argument("--output", type=Path, default=Path("journal-violations.jsonl"))
    return parser.parse_args(words)


class Progress(Place):
    """What has been done, in a file; one line now and then."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options.resume, options.seconds, {"seed": options.seed}, {"done": {}, "outcomes": {}})
        self.options = options
        self.noted = time.monotonic()

    def place(self, what: str) -> int:
        """How many cases of a kind are done."""
        return int(self.state["done"].get(what, 0))

    def done(self, what: str, outcome: str) -> None:
        """One more."""
        self.state["done"][what] = self.place(what) + 1
        counts = self.state["outcomes"]
        counts[outcome] = counts.get(outcome, 0) + 1
        self.save()
        if time.monotonic() - self.noted > NOTE_EVERY_S:
            self.noted = time.monotonic()
            self.tell(what)

    def tell(self, what: str) -> None:
        """Where it stands."""
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.state["outcomes"].items()))
        print(f"{what} {self.place(what)}: {counts}", flush=True)

    def violation(self, record: dict[str, Any], error: BaseException) -> None:
        """Keep what it takes to see it again."""
        print(f"VIOLATION {record}: {error}", flush=True)
        with self.options.output.open("a") as out:
            out.write(json.dumps({**record, "what": str(error).splitlines()[-1]}) + "\n")


def run_crash(case: campaign.Case, work: Path) -> dict[str, Any]:
    """One abandoned filesystem."""
    if not crash.SHAPES[case.shape].uml:
        return campaign.run(case, work)
    rng = random.Random(f"uml {case.shape} {case.seed}")
    killed = rng.random() * 0.5 if rng.random() < 0.5 else None
    return judge_in_uml(case._replace(steps=min(case.steps, 400)), work, killed_after_s=killed)


def crashes(options: argparse.Namespace, progress: Progress) -> None:
    """Seed by seed, all shapes each: wherever it stops, all have had their turn."""
    shapes = options.shape or [name for name in crash.SHAPES if name not in NOT_DRAWN]
    for number in range(options.crashes):
        for name in shapes:
            if progress.over():
                return
            if progress.place(name) > number:
                continue
            lacking = crash.SHAPES[name].lacks
            if lacking:
                if number == 0:
                    print(f"{name}: left out: needs {lacking}", file=sys.stderr)
                continue
            case = campaign.Case.drawn(name, options.seed + number)
            work = Path(WORK, f"torture-journal-{name}-{case.seed}")
            try:
                run_crash(case, work)
                outcome = "recovered"
            except (campaign.Violation, AssertionError, OSError, RuntimeError) as error:
                outcome = "violation"
                progress.violation({"crash": case._asdict(), "kept": str(work)}, error)
            progress.done(name, outcome)


def damages(options: argparse.Namespace, progress: Progress) -> None:
    """Damaged logs of the images that ship with the project."""
    for name in golden.DIRTY:
        target = damage.Target(golden.unpacked(name))
        sets: list[tuple[str, Iterator[damage.Case]]] = []
        if options.structured:
            sets.append((f"{name} structured", target.structured()))
        sets.append((f"{name} random", map(target.drawn, range(options.seed, options.seed + options.damage))))
        for what, cases in sets:
            for case in islice(cases, progress.place(what), None):
                if progress.over():
                    return
                try:
                    outcome = f"damage {target.run(case)}"
                except damage.Violation as error:
                    outcome = "violation"
                    patches = [[offset, data.hex()] for offset, data in case.patches]
                    progress.violation({"damage": case.name, "image": name, "patches": patches}, error)
                progress.done(what, outcome)
            progress.tell(what)


def replay(path: Path) -> int:
    """Run the cases of a file; 1 where some still violate the invariant."""
    outcomes: Counter[str] = Counter()
    targets: dict[str, damage.Target] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        try:
            if "crash" in record:
                with tempfile.TemporaryDirectory(prefix="torture-journal-", dir=WORK) as work:
                    run_crash(campaign.Case(**record["crash"]), Path(work, "case"))
            else:
                name = record["image"]
                target = targets.setdefault(name, damage.Target(golden.unpacked(name)))
                patches = tuple((offset, bytes.fromhex(text)) for offset, text in record["patches"])
                target.run(damage.Case(record["damage"], patches))
            outcomes["good"] += 1
        except (campaign.Violation, AssertionError, OSError, RuntimeError) as error:
            outcomes["violation"] += 1
            print(f"VIOLATION {record.get('crash') or record.get('damage')}: {error}")
    print(f"{outcomes['violation']} cases still violate the invariant, {outcomes['good']} do not")
    return 1 if outcomes["violation"] else 0


def main(words: list[str]) -> int:
    """The program."""
    options = arguments(words)
    if options.replay:
        return replay(options.replay)
    progress = Progress(options)
    progress.stop_on_interrupt()
    damages(options, progress)
    crashes(options, progress)
    progress.tell("crashes")
    return 1 if progress.state["outcomes"].get("violation") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
