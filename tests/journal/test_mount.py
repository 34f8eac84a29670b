"""Mounted with a dirty log: replayed as Linux replays it, the image untouched; and what is said where it cannot be."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from tests.conftest import no_judge
from tests.fuse import harness

from . import crash, damage, golden

pytestmark = pytest.mark.judged


@pytest.fixture
def image(tmp_path: Path) -> Path:
    lacking = harness.missing()
    if lacking:
        no_judge(lacking)
    path = tmp_path / "image"
    path.write_bytes(golden.unpacked("golden-dirty-v5"))
    return path


def test_the_mount_shows_what_the_kernel_shows(image: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    theirs = crash.Image(image, None).copy(tmp_path / "kernel")
    log = tmp_path / "said"
    with (
        crash.kernel_recovers(theirs, "ro,noatime,nouuid") as one,
        harness.mounted(image, tmp_path, f"memory=4M,log={log}") as other,
    ):
        harness.run("diff", "-r", "--no-dereference", one, other)
        listing = ["find", ".", "-printf", "%p %i %m %u %g %s %n %T@ %l\\n"]
        assert harness.run(*listing, cwd=one).stdout == harness.run(*listing, cwd=other).stdout
        with pytest.raises(OSError) as caught:
            (other / "new").write_bytes(b"")
        assert caught.value.errno == errno.EROFS
    assert "19 transactions replayed in memory" in log.read_text()
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_a_log_that_cannot_be_replayed_says_why(image: Path, tmp_path: Path) -> None:
    target = damage.Target(golden.unpacked("golden-dirty-v5"))
    found = target.records[2]
    spot = target.at(found, 1000)
    case = target.case("", {spot: target.bytes_of(spot[0])[spot[1]] ^ 1}, found, mended=False)
    with image.open("r+b") as out:
        for offset, piece in case.patches:
            out.seek(offset)
            out.write(piece)
    (tmp_path / "mnt").mkdir()
    done = harness.run(*harness.COMMAND, "mount", image, tmp_path / "mnt", check=False)
    assert done.returncode == 3
    assert "bad h_crc" in done.stderr
    assert "norecovery" in done.stderr
    assert not harness.is_mounted(tmp_path / "mnt")
    with harness.mounted(image, tmp_path, "norecovery") as point:
        assert list(point.iterdir()) == []  # what was made since the last write-back is in the log alone
