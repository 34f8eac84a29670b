"""The largest log that there can be, in little memory; and that memory does not grow with what a log holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pocketxfs
from tests.conftest import no_judge
from tests.judge import compare, ours

from . import campaign, crash

pytestmark = pytest.mark.judged

#: The interpreter and all modules that a verb loads; what is left over is small.
PROCESS_BYTES = 30 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> crash.Image:
    """2 GiB of log, most of it never written."""
    shape = crash.SHAPES["largest"]
    if shape.lacks:
        no_judge(shape.lacks)
    return crash.abandon(shape, tmp_path_factory.mktemp("largest"), 1, 250, settle=True)


def measured(*words: str | Path, memory: str, report: Path) -> dict[str, Any]:
    """A run in a process of its own; its memory report."""
    command = [sys.executable, "-m", "pocketxfs", f"--memory={memory}", f"--memory-report={report}", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(report.read_text())["reports"]
    assert found["high_water_bytes"] <= found["ram_bytes"]
    assert found["process_peak_rss_bytes"] < PROCESS_BYTES + found["ram_bytes"]
    return dict(found)


def test_the_largest_log(image: crash.Image, tmp_path: Path) -> None:
    """Shown and replayed in 4 and in 16 MiB; the same files as the kernel's; the image unchanged."""
    theirs = image.copy(tmp_path / "kernel")
    shown = campaign.kernel_shows(theirs, crash.SHAPES["largest"], tmp_path / "manifest.gz")
    before = campaign.digest(image.path)
    for memory in ("4M", "16M"):
        with pocketxfs.open(image.path, memory=memory) as fs:
            assert fs.geo.log_blocks << fs.geo.block_log == 2038 << 20
            assert fs.recovered is not None
            assert fs.recovered.transactions
            records = compare.kernel_records(shown), ours.walk(fs, 100)
            assert not compare.report(*(campaign.comparable(one, fs.recovered) for one in records))
            assert fs.memory_report()["high_water_bytes"] <= fs.mount.machine.profile.ram_bytes
    report = tmp_path / "report.json"
    for words in (("log", image.path), ("recover", "-n", image.path), ("ls", "-R", image.path)):
        measured(*words, memory="4M", report=report)
    assert campaign.digest(image.path) == before
    measured("recover", image.path, memory="16M", report=report)
    assert campaign.repair_says(image, "6.1")[0] == 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Half a million items take what two hundred thousand take, which fill all that there is to fill."""
    shape = crash.SHAPES["largest"]
    peaks = []
    for files in (100_000, 250_000):
        image = crash.make(shape, tmp_path / f"made{files}")
        with campaign.kernel.mounted(image.path, shape.mount) as point:
            for number in range(files):
                if number % 1000 == 0:
                    (point / f"d{number}").mkdir()
                fd = os.open(point / f"d{number // 1000 * 1000}" / f"file{number}", os.O_CREAT | os.O_WRONLY)
                os.close(fd)
            os.sync()
            fd = os.open(point, os.O_RDONLY)
            crash.lowlevel.shutdown(fd)
            os.close(fd)
        report = tmp_path / "report.json"
        peaks.append(
            [
                measured(*words, image.path, memory="4M", report=report)["process_peak_rss_bytes"]
                for words in (("log", "-s"), ("ls",), ("recover",))
            ]
        )
    for few, many in zip(*peaks, strict=True):
        assert many < few + (1 << 20)
