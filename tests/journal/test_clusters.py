"""Inode changes that wait by windows of the disk end as they would have one after the other, errors too.

The plain way is the reference here, and what lies on the disk is damaged, for what waits only meets it late.  That
undamaged logs end as the kernel's own recovery ends is judged in `test_judged`.
"""

from __future__ import annotations

import random

import pytest

from pocketxfs.device import Overlay, open_device
from pocketxfs.format import log_items as li
from pocketxfs.journal import recovery
from pocketxfs.journal.apply import Applier
from pocketxfs.journal.buffers import BufferStore
from pocketxfs.journal.clusters import CHANGE_BYTES, WAITING_BYTES, UsualInodes, window_bytes
from pocketxfs.journal.fetch import Fetcher
from pocketxfs.journal.spool import LastSeen
from pocketxfs.journal.view import LogView
from pocketxfs.memory import Machine, profile

from ..damage.patched import Patched
from . import damage

V5 = "golden-dirty-v5"
CASES = 60
SEED = 5
#: Memory for what waits: none, so that each change is laid down at once; some; all.
LIMITS = (0, 40_000, 4 << 20)


@pytest.fixture(params=LIMITS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> damage.Target:
    """The image, replayed with so much for what waits."""
    usual = recovery.shares
    monkeypatch.setattr(recovery, "shares", lambda *where: usual(*where)._replace(inodes=request.param))
    return damage.golden_target(V5)


def _logged(target: damage.Target) -> list[int]:
    """Where on the disk inodes lie that the log changes."""
    machine = Machine(profile("host", damage.MEMORY))
    try:
        with LogView(target.ring.device, target.ring, target.state, target.geo, machine) as view:
            places = [target.geo.inode_place(ino) for ino in set(view.inodes())]
            return sorted((daddr << 9) + offset for daddr, offset in places)
    finally:
        machine.close()


def _older(target: damage.Target) -> list[int]:
    """Those of them that were inodes before."""
    return [at for at in _logged(target) if target.image[at : at + 2] == b"IN"]


def test_undamaged(target: damage.Target) -> None:
    """Chunks made and changed in the log, and inodes that were there before."""
    changes, counts = target.plain(())  # type: ignore[misc]
    assert changes
    assert counts["inodes"] > 100
    assert counts["icreates"] > 0


#: What may have become of an inode on the disk: offset in it, bytes.
HARM = {
    "no inode": (0, b"XX"),
    "an older version": (4, b"\2"),
    "newer": (112, b"\x7f" * 8),
    "without LSN": (112, b"\xff" * 8),
    "of LSN 0": (112, bytes(8)),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_each_harm(target: damage.Target, harm: str) -> None:
    """Every inode that was there before, alone and all of them."""
    place, data = HARM[harm]
    older = _older(target)
    assert len(older) > 20
    for at in older:
        target.plain(((at + place, data),))
    found = target.plain(tuple((at + place, data) for at in older))
    if harm == "no inode":
        assert "di_magic" in str(found)
    if harm == "newer":
        assert found[1]["inodes_newer"] >= len(older)  # type: ignore[index]


def test_the_first_error_of_many(target: damage.Target) -> None:
    """Some harmed in one way, some in another: what the log comes to first is what is said."""
    older = _older(target)
    said = set()
    for seed in range(CASES):
        rng = random.Random(SEED + seed)
        harmed = {at: rng.choice(list(HARM.values())) for at in rng.sample(older, rng.randrange(2, len(older)))}
        found = target.plain(tuple((at + place, data) for at, (place, data) in sorted(harmed.items())))
        said.add(str(found)[:200])
    assert len(said) > 10


def test_in_a_damaged_log(target: damage.Target) -> None:
    """An error in the log and one that waits: again the first."""
    older = _older(target)
    cases = random.Random(SEED).sample(list(target.structured()), CASES)
    for number, case in enumerate(cases):
        harmed = tuple((at, b"XX") for at in random.Random(number).sample(older, 3))
        target.plain(tuple(sorted(case.patches + harmed)))


@pytest.mark.parametrize("shift", range(20))
def test_chunks_wherever_they_lie(shift: int) -> None:
    """New chunks begin at any block, not only with a window; one follows the other, or lies over it."""
    target = damage.golden_target(V5)
    geo = target.geo
    per_chunk = 64 >> geo.inopblog
    first = geo.ag_blocks // 2 + shift
    found = []
    for waiting in (False, True):
        overlay = Overlay(open_device(Patched(target.image)), block_bytes=geo.block_bytes)
        store = BufferStore(overlay, geo, 64 << 10)
        applier = Applier(store, geo, LastSeen(), 0)
        usual = UsualInodes(applier, Fetcher(target.ring, 0), 1 << 20, lambda *_: None) if waiting else None
        for start, gen in ((first, 1), (first + per_chunk, 2), (first + geo.cluster_blocks, 3)):
            applier.icreate([li.ICREATE.pack(0, start, 64, geo.inode_bytes, per_chunk, gen)])
        if usual is not None:
            usual.settle_all()
        store.flush()
        found.append([(start, overlay.pread(start, nbytes)) for start, nbytes in overlay.changes()])
        assert applier.counts.icreates == 3
    assert found[0] == found[1]
    assert sum(len(data) for _, data in found[0]) == 2 * per_chunk * geo.block_bytes


def test_what_waits_is_bounded() -> None:
    """A log of nothing but new chunks waits in no more than its memory either: the others have been written."""
    target, limit = damage.golden_target(V5), 64 << 10
    geo = target.geo
    overlay = Overlay(open_device(Patched(target.image)), block_bytes=window_bytes(geo))
    applier = Applier(BufferStore(overlay, geo, 64 << 10), geo, LastSeen(), 0)
    UsualInodes(applier, Fetcher(target.ring, 0), limit, lambda *_: None)
    per_chunk = 64 >> geo.inopblog
    chunks = range(geo.ag_blocks // 2, geo.ag_blocks - per_chunk, per_chunk)
    for start in chunks:
        applier.icreate([li.ICREATE.pack(0, start, 64, geo.inode_bytes, per_chunk, 1)])
    windows = len(chunks) * per_chunk * geo.block_bytes // window_bytes(geo)
    assert windows > 400
    assert windows - overlay.changed_blocks <= limit // (CHANGE_BYTES + WAITING_BYTES)
