"""Judge damaged images: run a case, and say what came of it or raise `Violation`.

The invariant stands in `test_damage.py`.  What is undamaged is told from what each inode's record reads when nothing
else is cached: a case may change the records of the inodes that read a damaged range, and hide what is reached only
through them; every other record must be the same as in the undamaged image.
"""

from __future__ import annotations

import json
import resource
import signal
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pocketxfs
from pocketxfs.buffer import BACKINGS
from pocketxfs.filesystem import FileSystem
from pocketxfs.inode import ATTR_FORK, DATA_FORK, extents_from

from . import images, mutate
from .catalogue import Found, Image
from .mutate import Case
from .patched import Endless, Patched
from .survey import MOST, Survey, _Guard, inode_record, survey
from .trees import Trees, survey_trees

MEMORY = 16 << 20
#: CPU seconds that a case may take; an undamaged survey takes some hundredths of one.
SECONDS = 20.0
#: What a process may grow by while cases run.
GROWTH_BYTES = 256 << 20
#: Ranges of the image are told apart at the size of the smallest inode.
UNIT_LOG = 8
#: Kinds that no file or directory is read through.
COMMON = ("superblock", "AGF", "AGI", "AGFL", "bnobt", "cntbt", "inobt", "finobt", "rmapbt", "refcountbt", "log")


class Violation(AssertionError):
    """The invariant does not hold for a case."""

    def __init__(self, flavour: str, case: Case, what: str) -> None:
        super().__init__(f"{flavour}: {case.name}: {what}")
        self.flavour, self.case, self.what = flavour, case, what

    def reproducer(self) -> str:
        """One line of JSON that `replay` takes."""
        patches = [[offset, data.hex()] for offset, data in self.case.patches]
        record = {"flavour": self.flavour, "name": self.case.name, "cut": self.case.cut, "patches": patches}
        return json.dumps({**record, "what": self.what.splitlines()[-1]})


class Hang(BaseException):
    """The time of a case is up.  Not an `Exception`: nothing may catch it."""


def _alarm(_number: int, _frame: Any) -> None:
    raise Hang("out of time")


def limit_memory() -> tuple[int, int]:
    """Let the process grow by `GROWTH_BYTES` from here; gives the old limit, for `resource.setrlimit`."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GROWTH_BYTES, old[1]))
    return old


class Campaign:
    """One flavour's image, what it shows undamaged, and what reads what."""

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self.path = images.ensure(images.FLAVOURS[flavour])
        self.image = Image(self.path)
        self.file_blocks: dict[int, int] = {}
        self._readers: dict[int, set[int]] = {}
        self._common: set[int] = set()
        #: where the last byte lies that an inode's record needs
        self._ends: dict[int, int] = {}
        for found in self.image.blocks:
            if found.kind in COMMON:
                self._common.update(range(found.offset >> UNIT_LOG, (found.offset + found.nbytes - 1 >> UNIT_LOG) + 1))
        with self._open(Patched(self.image.data)) as fs:
            first = survey(fs)
            self.inos = sorted(first.inodes)
            self.baseline = survey(fs, self.inos)
            self.trees = survey_trees(fs)
            self._children = self._edges(self.baseline)
        for ino in self.inos:
            self._note_readers(ino)
        self._slots = {self.image.ino_of(found.offset) for found in self.image.blocks if found.kind == "inode"}

    def _open(self, source: Patched, norecovery: bool = False, buffers: str = "contiguous") -> FileSystem:
        return pocketxfs.open(source, memory=MEMORY, buffers=buffers, norecovery=norecovery)  # type: ignore[arg-type]

    @staticmethod
    def _edges(found: Survey) -> dict[int, list[int]]:
        """The inodes in each directory."""
        edges: dict[int, list[int]] = {}
        for ino, record in found.inodes.items():
            if record[0][0] >> 12 == 4:
                edges[ino] = [entry[1] for entry in record[7] if entry[0] != b".."]
        return edges

    def _note_readers(self, ino: int) -> None:
        """Which ranges of the image one inode's record needs: a fresh mount, and nothing but it."""
        source = Patched(self.image.data, note=True)
        with self._open(source) as fs:
            inode = fs.trusted_inode(ino)
            record = inode_record(fs, inode, _Guard())
            if record != self.baseline.inodes[ino]:
                raise AssertionError(f"{self.flavour}: inode {ino} read alone differs from itself in a walk")
            for which in (DATA_FORK, ATTR_FORK):
                if (inode.format if which == DATA_FORK else inode.aformat if inode.forkoff else 0) in (2, 3):
                    for offset, start, count, _ in extents_from(fs.mount, inode, 0, which):
                        for index in range(min(count, 64)):
                            place = self.image.fsb_offset(start + index)
                            self.file_blocks.setdefault(place, offset + index)
        assert source.ranges is not None
        self._ends[ino] = max(end for start, end in source.ranges if not self._in_log(start, end))
        for start, end in source.ranges:
            if self._in_log(start, end):
                continue
            inodes = list(self.image.inodes_in(start, end))
            if inodes:
                for offset in inodes:
                    if self.image.ino_of(offset) in (ino, self.image.root_ino):
                        self._note(offset, offset + self.image.inode_bytes, ino)
            else:
                self._note(start, end, ino)

    def _in_log(self, start: int, end: int) -> bool:
        return start < self.image.log_offset + self.image.log_bytes and end > self.image.log_offset

    def _note(self, start: int, end: int, ino: int) -> None:
        for unit in range(start >> UNIT_LOG, (end - 1 >> UNIT_LOG) + 1):
            self._readers.setdefault(unit, set()).add(ino)

    def readers(self, found: Found) -> set[int]:
        """The inodes whose records need a block."""
        return self._readers.get(found.offset >> UNIT_LOG, set())

    # -- one case ----------------------------------------------------------------------------------------------

    def run(self, case: Case) -> str:
        """ "refused", "named" (an error somewhere), "value" (no error, other values where damaged) or "same"."""
        old = signal.signal(signal.SIGPROF, _alarm)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        source = Patched(self.image.data, case.patches, case.cut)
        try:
            return self._run(case, source)
        except Violation:
            raise
        except (Hang, Endless) as error:
            raise Violation(self.flavour, case, f"hangs: {_innermost(error)}") from error
        except Exception as error:
            raise Violation(self.flavour, case, f"{type(error).__name__}: {error}: {_innermost(error)}") from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, old)

    def _run(self, case: Case, source: Patched) -> str:
        log = any(self._in_log(offset, offset + len(data)) for offset, data in case.patches)
        number = zlib.crc32(case.name.encode())
        buffers = BACKINGS[number // 8 % len(BACKINGS)]
        try:
            fs = self._open(source, False, buffers)
        except OSError as error:
            _check_errno(self.flavour, case, error)
            if case.cut is None and not log:
                self._excused_opening(case, error)
                return "refused"
            try:
                fs = self._open(source, True, buffers)
            except OSError as again:
                _check_errno(self.flavour, case, again)
                if case.cut is None:
                    self._excused_opening(case, again)
                return "refused"
        else:
            if log:
                # what a damaged log has replayed may be anything, but it has to be readable
                with fs:
                    survey(fs, self.inos)
                    survey_trees(fs)
                fs = self._open(source, True, buffers)
        hit = self._hit(case)
        common = self._is_common(case)
        # seven of eight cases go for what is damaged, with a glance at the rest; the eighth reads everything
        whole = number % 8 == 0 or not case.patches
        only = None if whole else self._worth_reading(hit, number)
        with fs:
            found = survey(fs, self.inos if whole or common else sorted(hit), only)
            trees = survey_trees(fs) if whole or common else None
            high = fs.mount.machine.high_water_bytes
        if high > MEMORY:
            raise Violation(self.flavour, case, f"{high} bytes of the machine's {MEMORY} used")
        return self._compare(case, hit, common, found, trees, only)

    def _worth_reading(self, hit: set[int], number: int) -> frozenset[int]:
        """The hit inodes, and what only hit directories lead to: it may turn up elsewhere or not at all.

        Where nearly all are hit (by the superblock, by the root) some of them, others in each case.
        """
        if len(hit) > len(self.inos) // 2:
            return frozenset(
                ino for ino in hit if ino == self.image.root_ino or (ino * 2_654_435_761 + number) >> 8 & 3 == 0
            )
        return frozenset(hit.union(self.inos) - set(self._reachable(hit)))

    def _excused_opening(self, case: Case, error: OSError) -> None:
        """Only the superblock, the root inode and the log can keep a filesystem from opening."""
        image = self.image
        for offset, data in case.patches:
            end = offset + len(data)
            if offset < image.sector_bytes or any(
                image.ino_of(at) == image.root_ino for at in image.inodes_in(offset, end)
            ):
                return
        raise Violation(self.flavour, case, f"did not open: {error}")

    def _hit(self, case: Case) -> set[int]:
        """The inodes whose records may differ."""
        hit: set[int] = set()
        if case.cut is not None:
            # an inode cluster is read whole or not at all, so here its other inodes count
            return {ino for ino, end in self._ends.items() if end > case.cut}
        for offset, data in case.patches:
            for unit in range(offset >> UNIT_LOG, (offset + len(data) - 1 >> UNIT_LOG) + 1):
                hit |= self._readers.get(unit, set())
            hit.update(self.image.ino_of(at) for at in self.image.inodes_in(offset, offset + len(data)))
        return hit

    def _is_common(self, case: Case) -> bool:
        return case.cut is not None or any(
            unit in self._common or self._in_log(offset, offset + len(data))
            for offset, data in case.patches
            for unit in range(offset >> UNIT_LOG, ((offset + len(data) - 1) >> UNIT_LOG) + 1)
        )

    def _compare(
        self, case: Case, hit: set[int], common: bool, found: Survey, trees: Trees | None, only: frozenset[int] | None
    ) -> str:
        base = self.baseline
        same = True
        for ino in self._reachable(hit):
            expected, got = base.inodes[ino], found.inodes.get(ino)
            if only is not None and ino not in only:
                expected = expected[:1]
            if got != expected:
                what = _difference(expected, got)
                raise Violation(self.flavour, case, f"undamaged inode {ino} reads otherwise: {what}")
        for ino in hit:
            there, undamaged = found.inodes.get(ino), base.inodes.get(ino)
            if only is not None and ino not in only and undamaged is not None:
                undamaged = undamaged[:1]
            same = same and there == undamaged
        handles = found.whole["handles"]
        if not common:
            if {**found.whole, "handles": 0} != {**base.whole, "handles": 0}:
                raise Violation(self.flavour, case, "statvfs or info differ")
            for ino, handle in handles.items():
                if ino not in hit and handle != base.whole["handles"][ino]:
                    raise Violation(self.flavour, case, f"undamaged inode {ino} by number: {handle}")
            if trees is not None and trees != self.trees:
                raise Violation(self.flavour, case, f"undamaged AG trees differ: {_difference(self.trees, trees)}")
        elif {**found.whole, "handles": 0} != {**base.whole, "handles": 0}:
            same = False
        broken = trees is not None and trees.errors > 0
        for record in (*(found.inodes.get(ino) for ino in hit), *handles.values()):
            broken = broken or _has_error(record)
        if broken:
            return "named"
        return "same" if same and (trees is None or trees == self.trees) else "value"

    def _reachable(self, hit: set[int]) -> list[int]:
        """The inodes that a walk which does not enter the hit ones still meets."""
        root = self.image.root_ino
        if root in hit:
            return []
        seen = {root}
        todo = [root]
        while todo:
            for child in self._children.get(todo.pop(), ()):
                if child not in seen and child not in hit:
                    seen.add(child)
                    todo.append(child)
        return sorted(seen)

    # -- sets of cases -----------------------------------------------------------------------------------------

    def structured(self, per_kind: int = mutate.BLOCKS_PER_KIND) -> Iterator[Case]:
        """The complete fixed set."""
        return mutate.structured(self.image, self.file_blocks, per_kind)

    def random(self, seed: int, first: int = 0) -> Iterator[Case]:
        """Random damage without end, from case `first` on."""
        index = first
        while True:
            yield mutate.random_case(self.image, seed, index)
            index += 1


class Tally:
    """What became of many cases."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.slowest = (0.0, "")

    def add(self, campaign: Campaign, case: Case) -> None:
        """Run one."""
        began = time.process_time()
        try:
            self.outcomes[campaign.run(case)] += 1
        except Violation as violation:
            self.outcomes["violation"] += 1
            self.violations.append(violation)
        took = time.process_time() - began
        if took > self.slowest[0]:
            self.slowest = (took, case.name)

    @property
    def cases(self) -> int:
        """How many."""
        return sum(self.outcomes.values())

    def __str__(self) -> str:
        parts = [f"{self.outcomes[word]} {word}" for word in ("refused", "named", "value", "same", "violation")]
        return f"{self.cases} cases: {', '.join(parts)}; slowest {self.slowest[0]:.1f} s"


def run_all(campaign: Campaign, cases: Iterable[Case]) -> Tally:
    """Run cases one after another."""
    tally = Tally()
    for case in cases:
        tally.add(campaign, case)
    return tally


def case_of(line: str) -> tuple[str, Case]:
    """(flavour, case) of a reproducer's line."""
    record = json.loads(line)
    patches = tuple((offset, bytes.fromhex(text)) for offset, text in record["patches"])
    return record["flavour"], Case(record["name"], patches, record["cut"])


def _check_errno(flavour: str, case: Case, error: OSError) -> None:
    if error.errno is None:
        raise Violation(flavour, case, f"{type(error).__name__} without an errno: {error}")


def _innermost(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/pocketxfs/" in frame.filename]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(own[-4:]))


def _has_error(record: Any) -> bool:
    """Whether a record is or holds an error that the undamaged image does not have: any but that a name is missing."""
    if not isinstance(record, tuple | list) or not record:
        return False
    if record[0] == "!":
        return record[1] not in ("FileNotFoundError", "OSError")
    return any(_has_error(part) for part in record if isinstance(part, tuple | list) and part and part[0] != b".")


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, tuple | list) and isinstance(other, tuple | list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return f"[{index}]{_difference(left, right)}"
    return f": {str(one)[:150]} became {str(other)[:150]}"


__all__ = ["MOST", "Campaign", "Case", "Tally", "Violation", "case_of", "limit_memory", "run_all"]
