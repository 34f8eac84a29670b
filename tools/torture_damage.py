#!/usr/bin/env python3
"""The long damage campaign: broken images until told to stop.

    tools/torture_damage.py [--flavour v5]... [--structured] [--seconds S] [--cases N] [--seed N] [--resume FILE]
    tools/torture_damage.py --replay FILE

Without `--structured` random damage only; with it the fixed set comes first.  `--resume` keeps the place and the counts
in a file, and goes on from there.  Violations go to `damage-violations.jsonl`, a line each, which `--replay` takes.
The invariant stands in tests/damage/test_damage.py.  Needs what the judged tests need, to make images, the first time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from place import Place  # noqa: E402
from tests.damage import images  # noqa: E402
from tests.damage.campaign import Campaign, Case, Tally, Violation, case_of, limit_memory  # noqa: E402

VIOLATIONS = "damage-violations.jsonl"
NOTE_EVERY_S = 2.0


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Break images and read them, until told to stop.")
    parser.add_argument(
        "--flavour", action="append", choices=list(images.FLAVOURS), help="default: all that can be made"
    )
    parser.add_argument("--structured", action="store_true", help="the complete fixed set first")
    parser.add_argument("--per-kind", type=int, default=3, help="blocks of each kind and level in the fixed set")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--cases", type=int, help="random cases for each flavour")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--shard", default="0/1", help="I/N: of the fixed set and of the random cases every N-th from I on"
    )
    parser.add_argument("--resume", type=Path, help="keep the place in this file, and go on from it")
    parser.add_argument("--replay", type=Path, help="run the cases of a file of violations")
    parser.add_argument("--output", type=Path, default=Path(VIOLATIONS))
    return parser.parse_args(words)


class Progress(Place):
    """One line on a terminal, a line now and then elsewhere; and the file to resume from."""

    def __init__(self, options: argparse.Namespace) -> None:
        owner = {"seed": options.seed, "shard": options.shard}
        super().__init__(options.resume, options.seconds, owner, {"flavours": {}})

    def place(self, flavour: str) -> dict[str, Any]:
        """What has been done of a flavour."""
        return self.state["flavours"].setdefault(  # type: ignore[no-any-return]
            flavour, {"structured": 0, "random": 0, "outcomes": {"structured": {}, "random": {}}}
        )

    def done(self, flavour: str, which: str, tally: Tally, last: bool = False) -> None:
        """A case is done."""
        now = time.monotonic()
        if not last and now - self.noted < NOTE_EVERY_S:
            return
        self.noted = now
        self.save()
        if sys.stderr.isatty():
            print(f"\r{flavour} {which}: {tally}\x1b[K", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last:
            print(f"{flavour} {which}: {tally}", flush=True)


def run(campaign: Campaign, which: str, cases: Iterator[Case], step: int, progress: Progress, output: Path) -> None:
    """Run cases until they or the time are over."""
    place = progress.place(campaign.flavour)
    tally = Tally()
    tally.outcomes.update(place["outcomes"][which])
    for case in cases:
        if progress.over():
            break
        known = len(tally.violations)
        tally.add(campaign, case)
        place[which] += step
        place["outcomes"][which] = dict(tally.outcomes)
        for violation in tally.violations[known:]:
            with output.open("a") as out:
                out.write(violation.reproducer() + "\n")
        progress.done(campaign.flavour, which, tally)
    progress.done(campaign.flavour, which, tally, last=True)


def replay(path: Path) -> int:
    """Run the cases of a file; how many still violate the invariant."""
    campaigns: dict[str, Campaign] = {}
    bad = 0
    for line in path.read_text().splitlines():
        flavour, case = case_of(line)
        if flavour not in campaigns:
            campaigns[flavour] = Campaign(flavour)
        try:
            campaigns[flavour].run(case)
        except Violation as violation:
            bad += 1
            print(violation)
    print(f"{bad} cases still violate the invariant")
    return 1 if bad else 0


def main(words: list[str]) -> int:
    """The program."""
    options = arguments(words)
    if options.replay:
        return replay(options.replay)
    progress = Progress(options)
    progress.stop_on_interrupt()
    first, shards = (int(word) for word in options.shard.split("/"))
    violations = 0
    for flavour in options.flavour or images.FLAVOURS:
        lacking = images.lacks(images.FLAVOURS[flavour])
        if lacking:
            print(f"{flavour}: left out: needs {lacking}", file=sys.stderr)
            continue
        if progress.over():
            break
        campaign = Campaign(flavour)
        limit_memory()
        place = progress.place(flavour)
        if options.structured:
            cases = islice(campaign.structured(options.per_kind), max(first, place["structured"] + first), None, shards)
            run(campaign, "structured", cases, shards, progress, options.output)
        cases = islice(campaign.random(options.seed, place["random"] + first), 0, None, shards)
        if options.cases is not None:
            cases = islice(cases, max(0, (options.cases - place["random"]) // shards))
        elif not options.seconds and options.structured:
            cases = iter(())
        run(campaign, "random", cases, shards, progress, options.output)
        for counts in place["outcomes"].values():
            violations += counts.get("violation", 0)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
