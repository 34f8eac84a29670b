"""Many cells: the matrix, runs that go on where they stopped, the command line, and the page as a browser shows it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketxfs.buffer import BACKINGS
from pocketxfs.errors import Error
from pocketxfs.lab import matrix, runner
from pocketxfs.lab.cell import Spec
from pocketxfs.lab.runner import Job
from tests.conftest import no_judge

DOCS = Path(__file__).resolve().parents[2] / "docs"
LAB = [sys.executable, "-m", "pocketxfs", "lab"]


def lab(*words: str | Path, code: int = 0) -> str:
    """A run of the command; what it printed."""
    done = subprocess.run([*LAB, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_quick_has_every_backing_on_every_machine(tmp_path: Path) -> None:
    jobs = matrix.quick(tmp_path)
    pairs = {(job.spec.buffers, job.spec.machine) for job in jobs}
    assert {(backing, machine) for backing in BACKINGS for machine in matrix.MACHINES} <= pairs
    assert len({job.path(tmp_path) for job in jobs}) == len(jobs)


def test_a_run_goes_on_where_it_stopped(images: dict[str, Path], tmp_path: Path) -> None:
    jobs = [Job(Spec("mount", str(images["dir-4k"]), name, "nommu-8m", "2M")) for name in BACKINGS]
    ticks: list[Job] = []
    first = runner.run(jobs[:3], tmp_path, tick=ticks.append)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    every = runner.run(jobs, tmp_path, tick=ticks.append)
    assert every[:3] == first
    assert len(ticks) == 3 + len(jobs)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert [outcome["spec"]["buffers"] for outcome in every] == list(BACKINGS)


def test_another_image_is_another_cell(images: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copyfile(images["dirty"], copy)
    spec = Spec("mount", str(copy), "contiguous", "host", "2M")
    before = spec.key()
    os.utime(copy, ns=(1, 1))
    assert spec.key() != before


def test_a_cell_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"nothing here" * 1000)
    with pytest.raises(Error, match="mount on image"):
        runner.run([Job(Spec("mount", str(image), "contiguous", "host", "2M"))], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_outcome_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "cell-1.json").write_text("{}")
    with pytest.raises(Error, match="cell-1.json"):
        runner.outcomes(tmp_path)


def test_interrupted_it_leaves_what_is_finished(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*LAB, "run", "--workloads", "mount,readers", "--machines", "host", "--memories", "4M,8M", "-o", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not list(tmp_path.glob("cell-*.json")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert list(tmp_path.glob("cell-*.json"))
    assert not list(tmp_path.glob("*.part"))
    for path in tmp_path.glob("cell-*.json"):
        runner.load(path)


def test_record_run_report(images: dict[str, Path], tmp_path: Path) -> None:
    """The three commands, one after the other."""
    trace, folder = tmp_path / "walk.trace", tmp_path / "out"
    said = json.loads(lab("record", images["dir-4k"], "-o", trace, "--size", "0.1", "--json", "--", "lookup"))
    assert said["schema_version"] == 1 and said["events"] > 100
    words = ("--traces", trace, "--machines", "nommu-8m,i386", "--memories", "1M,2M", "-o", folder)
    found = json.loads(lab("run", *words, "--json"))
    assert len(found["cells"]) == 2 * 2 * len(BACKINGS)
    assert {row["buffers"] for row in found["cells"] if row["refused"]} == {"vm-map-ram"}
    assert "refused" in lab("run", *words)
    written = lab("report", folder).split()
    assert [Path(path).name for path in written] == ["report.html", "cells.csv", "results.json"]
    with open(folder / "cells.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == len(found["cells"])
    assert {row["workload"] for row in rows} == {"trace"}
    page = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)  # self-contained


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("run", "--workloads", "juggling"), "juggling"),
        (("run", "--backings", "cards"), "cards"),
        (("run", "--machines", "abacus"), "abacus"),
        (("run", "--memories", "1K"), "256K"),
        (("run", "--memory", "4M"), "--memories"),
        (("run", "--images", "nowhere"), "nowhere"),
        (("report", "nowhere"), "nowhere"),
        (("record", "image"), "lab:"),
        (("dance",), "lab:"),
    ],
)
def test_usage(words: tuple[str, ...], why: str, tmp_path: Path) -> None:
    assert why in lab(*words, code=2)


def browser() -> str:
    """Headless Chromium, which shows the page."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        no_judge("chromium (Debian: chromium)")
    assert found is not None
    return found


def show(page: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Open a page."""
    return subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            f"--user-data-dir={folder}", "--window-size=1300,1700", *words, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


@pytest.mark.judged("chromium")
def test_a_browser_shows_the_report(images: dict[str, Path], tmp_path: Path) -> None:
    """Chromium parses it, draws it, and shows what was measured; the one in the docs is such a page."""
    from PIL import Image

    folder = tmp_path / "out"
    words = ("--machines", "nommu-8m,i386:vmalloc=1M", "--memories", "8M", "--size", "0.2", "-o", folder)
    lab("run", "--workloads", "walk", "--images", images["dir-64k"], *words)
    lab(
        "run",
        "--workloads",
        "mixed",
        "--images",
        images["dir-4k"],
        "--smallest",
        "--backings",
        "contiguous,unmapped",
        *words,
    )
    lab("report", folder)
    page = folder / "report.html"
    shown = show(page, tmp_path / "profile", "--dump-dom").stdout
    for table in ("matrix", "smallest", "failures", "costs"):
        assert f'<table id="{table}">' in shown
    assert (
        shown.count("<details") == shown.count("</details>") == len(list(folder.glob("cell-*.json"))) - 1
    )  # one is refused
    assert "no addresses" in shown
    picture = tmp_path / "page.png"
    show(page, tmp_path / "profile", f"--screenshot={picture}")
    for path in (picture, DOCS / "buffers" / "report.png"):
        with Image.open(path) as image:
            assert image.width >= 1000 and image.height >= 1000
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 100
    assert "buffers/report.png" in (DOCS / "buffers.md").read_text()
