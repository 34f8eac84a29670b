"""Abandoned filesystems that ship with the project, replayed: judged by what the kernel left, on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pocketxfs
from pocketxfs.device import open_device
from pocketxfs.format.geometry import Geometry
from pocketxfs.journal.head import log_state
from pocketxfs.journal.recovery import log_ring, replay
from pocketxfs.journal.view import LogView
from pocketxfs.memory import Machine, profile
from pocketxfs.mounting import read_superblock
from tests.damage.patched import Patched
from tests.judge import compare, ours

from . import campaign, crash, damage, golden


@pytest.fixture
def image(name: str, tmp_path: Path) -> Path:
    return golden.written(name, tmp_path)


@golden.each
@pytest.mark.parametrize("memory", ["4M", "16M"])
def test_what_is_shown_equals_the_kernels(name: str, memory: str, image: Path) -> None:
    """Opened for reading: all is there, and no byte of the image has changed."""
    before = campaign.digest(image)
    with pocketxfs.open(image, memory=memory) as fs:
        assert fs.recovered is not None
        assert fs.recovered.counts.inodes > 50
        found = compare.report(compare.kernel_records(golden.manifest(name)), ours.walk(fs))
        assert fs.memory_report()["high_water_bytes"] <= fs.mount.machine.profile.ram_bytes
    assert campaign.digest(image) == before
    if found:
        pytest.fail(found, pytrace=False)


@golden.each
def test_recovered_in_place(name: str, image: Path) -> None:
    """The same files, from a log that is clean now; a second recovery does nothing."""
    mine = campaign.Opened(crash.Image(image, None), "4M", writable=True)
    done = campaign.recover(mine.device, mine.geo, mine.machine)
    assert done.closed
    assert done.sectors_written
    assert campaign.find_state(log_ring(mine.device, mine.geo, None)).reason == "unmounted"
    mine.close()
    before = campaign.digest(image)
    with pocketxfs.open(image) as fs:
        assert fs.recovered is None
        found = compare.report(compare.kernel_records(golden.manifest(name)), ours.walk(fs))
    mine = campaign.Opened(crash.Image(image, None), writable=True)
    again = campaign.recover(mine.device, mine.geo, mine.machine)
    mine.close()
    assert (again.closed, again.sectors_written) == (True, 0)
    assert campaign.digest(image) == before
    if found:
        pytest.fail(found, pytrace=False)


@golden.each
def test_interrupted_at_every_write(name: str, image: Path) -> None:
    """And with writes torn, dropped, out of order between two flushes: the second recovery ends in the same state."""
    mine = campaign.Opened(crash.Image(image, None), "4M")
    assert campaign.check_interruptions(mine, 10_000, 1) > 30
    mine.close()


@golden.each
def test_the_view_ends_where_the_replay_ends(name: str, image: Path) -> None:
    """What `pocketxfs log` replays item by item is the replay."""
    mine = campaign.Opened(crash.Image(image, None), "4M")
    after, report = replay(mine.device, mine.geo, mine.machine)
    device = open_device(str(image))
    machine = Machine(profile("host", 4 << 20))
    geo = Geometry(read_superblock(device))
    ring = log_ring(device, geo, None)
    kinds: dict[str, int] = {}
    with LogView(device, ring, campaign.find_state(ring), geo, machine) as view:
        transactions = 0
        for commit in view.transactions():
            transactions += 1
            for item in view.items(commit):
                kinds[item.kind] = kinds.get(item.kind, 0) + 1
        assert transactions == report.transactions
        view.finish()
        assert not [place for place in campaign.differing(after, view.device, geo) if place]
    assert kinds["INODE"] == report.counts.inodes + report.counts.inodes_newer + report.counts.inodes_cancelled
    after.close()
    device.close()
    machine.close()
    mine.close()


def patched(data: bytes, *patches: tuple[int, bytes]) -> bytes:
    held = bytearray(data)
    for offset, piece in patches:
        held[offset : offset + len(piece)] = piece
    return bytes(held)


def superblock_with(data: bytes, offset: int, value: bytes) -> bytes:
    """The image with another primary superblock, its checksum right."""
    from pocketxfs.format.block import checksum

    head = bytearray(data[:512])
    head[offset : offset + len(value)] = value
    head[224:228] = checksum(head, 224).to_bytes(4, "little")
    return patched(data, (0, bytes(head)))


def refuses_recovery_in_place(image: Path, named: str) -> None:
    """By name, and not a byte changes."""
    before = campaign.digest(image)
    mine = campaign.Opened(crash.Image(image, None), writable=True)
    with pytest.raises(pocketxfs.Unsupported, match=named):
        campaign.recover(mine.device, mine.geo, mine.machine)
    mine.close()
    assert campaign.digest(image) == before


def test_an_unknown_log_feature_refuses_the_replay_only(tmp_path: Path) -> None:
    """As in the kernel: the log may hold items that nobody here knows."""
    image = tmp_path / "image"
    image.write_bytes(superblock_with(golden.unpacked("golden-dirty-v5"), 220, (1 << 7).to_bytes(4, "big")))
    with pytest.raises(pocketxfs.Unsupported, match="unknown-bit-7"):
        pocketxfs.open(image)
    refuses_recovery_in_place(image, "unknown-bit-7")
    with pocketxfs.open(image, norecovery=True) as fs:
        assert fs.recovered is None


def test_an_unknown_ro_compat_feature_refuses_recovery_in_place_only(tmp_path: Path) -> None:
    """What it protects could be harmed by writing; reading it is safe."""
    image = tmp_path / "image"
    data = golden.unpacked("golden-dirty-v5")
    word = int.from_bytes(data[212:216], "big") | 1 << 9
    image.write_bytes(superblock_with(data, 212, word.to_bytes(4, "big")))
    refuses_recovery_in_place(image, "unknown-bit-9")
    with pocketxfs.open(image) as fs:
        assert fs.recovered is not None


def test_logged_xattrs_are_let_go_of_with_the_log(tmp_path: Path) -> None:
    """The log's own feature bits are cleared when there is no log left that needs them."""
    image = tmp_path / "image"
    image.write_bytes(superblock_with(golden.unpacked("golden-dirty-v5"), 220, (1).to_bytes(4, "big")))
    mine = campaign.Opened(crash.Image(image, None), writable=True)
    assert mine.geo.sb.sb_features_log_incompat == 1
    assert campaign.recover(mine.device, mine.geo, mine.machine).closed
    assert Geometry(read_superblock(mine.device)).sb.sb_features_log_incompat == 0
    mine.close()


def test_a_log_written_in_irix_format_is_refused(tmp_path: Path) -> None:
    """By name: byte order is not all that differs."""
    target = damage.Target(golden.unpacked("golden-dirty-v5"))
    found = target.records[0]
    changes: dict[tuple[int, int], int] = {(found.record.block, 303): 3}
    case: Any = target.case("IRIX", changes, found, mended=True)
    image = tmp_path / "image"
    image.write_bytes(patched(golden.unpacked("golden-dirty-v5"), *case.patches))
    with pytest.raises(pocketxfs.Unsupported, match="format 3"):
        pocketxfs.open(image)


def test_the_head_of_a_log_on_its_first_turn_with_a_block_missing() -> None:
    """The block shows cycle 0, which is where such a log ends: back to the record that it is missing from.

    The same where nothing lies in front of the log, as on a device of its own.
    """
    target = damage.Target(golden.unpacked("golden-dirty-v5"))
    start, nbytes = target.ring.base_bytes, target.ring.blocks * 512
    for found in target.records[-6:]:
        block = target.ring.after(found.record.block, found.header_blocks)
        zeroed = patched(bytes(target.image), (start + block * 512, bytes(512)))
        inside = log_state(open_device(Patched(zeroed)), start, nbytes, target.geo)
        alone = log_state(open_device(Patched(zeroed[start : start + nbytes]), whole=True), 0, nbytes, target.geo)
        assert inside == alone
        assert inside.head_block == found.record.block
