"""Cells: what a workload is, what its outcome says, and that memory running out is an outcome."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import zlib
from base64 import b64decode
from pathlib import Path

import pytest

import pocketxfs
from pocketxfs.buffer import BACKINGS
from pocketxfs.cli import main
from pocketxfs.lab import cell, record, smallest, tables
from pocketxfs.lab.cell import Spec
from pocketxfs.lab.sample import WANTED, Sampler
from pocketxfs.lab.workloads import WORKLOADS
from pocketxfs.memory import Machine, profile
from tests.conftest import no_judge
from tests.judge import kernel


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("buffers", BACKINGS)
def test_every_workload_runs_on_every_backing(images: dict[str, Path], name: str, buffers: str) -> None:
    image = images[WORKLOADS[name].images[-1]]
    outcome = cell.run(Spec(name, str(image), buffers, "i386", "4M", size=0.02))
    assert outcome["survived"], outcome["failure"]
    assert outcome["steps"] > 1
    assert 0 < outcome["high_water_bytes"] <= 4 << 20
    assert outcome["taken_bytes"] >= outcome["asked_bytes"] > 0
    assert outcome["io"]["segments"] >= outcome["io"]["reads"] > 0
    assert outcome["clock"]["allocate"]["calls"] > 0
    assert json.loads(json.dumps(outcome))["spec"] == outcome["spec"]
    row = tables.row(json.loads(json.dumps(outcome)))
    assert row["survived"] and set(tables.COLUMNS) <= set(row)


def test_a_seed_is_a_run(images: dict[str, Path]) -> None:
    """The same seed asks the same of the buffers, another one something else."""
    found = []
    for seed in (1, 1, 2):
        with pocketxfs.open(images["dir-64k"], memory="4M") as fs:
            for _ in WORKLOADS["mixed"].run(fs, random.Random(seed), 0.05):
                pass
            found.append(fs.mount.cache.report()["kinds"])
    assert found[0] == found[1] != found[2]


def test_at_once_is_at_once(images: dict[str, Path]) -> None:
    """What is enough for one operation is not enough for two hundred, whatever memory they take."""
    alone, many = (
        cell.run(Spec("mixed", str(images["dir-64k"]), "unmapped", "i386", "768K", size=0.2, tasks=tasks))
        for tasks in (1, 200)
    )
    assert alone["survived"]
    assert not many["survived"] and many["failure"]["kind"] == "NoMemory"


def test_what_a_machine_refuses_is_refused(images: dict[str, Path]) -> None:
    outcome = cell.run(Spec("mount", str(images["dir-4k"]), "vm-map-ram", "nommu-8m", "8M"))
    assert not outcome["survived"]
    assert "no MMU" in outcome["refused"]
    assert tables.word(outcome) == "refused"
    assert tables.row(outcome)["high_water_bytes"] == ""


def test_running_out_of_addresses_is_an_outcome(images: dict[str, Path]) -> None:
    outcome = cell.run(Spec("walk", str(images["dir-64k"]), "vmalloc", "i386:vmalloc=1M", "8M"))
    assert not outcome["survived"]
    assert outcome["failure"]["kind"] == "NoAddresses"
    assert outcome["vmalloc"]["exhausted"] > 0
    assert outcome["failure"]["free_pages"] > 100  # pages there were
    assert tables.word(outcome) == "no addresses"


def test_a_run_of_pages_refused_with_pages_free(images: dict[str, Path]) -> None:
    """The claim of 2015: contiguous memory runs out while memory does not.  What is said of it is what there was."""
    found = smallest.smallest(Spec("mixed", str(images["dir-4k"]), "contiguous", "nommu-16m", "", size=0.5, tasks=24))
    enough = found["smallest_bytes"]
    assert found["tried"][enough] and not found["tried"][enough - smallest.STEP_BYTES]
    spec = Spec(**found["spec"])._replace(memory=str(enough - smallest.STEP_BYTES))
    outcome = cell.run(spec)
    failure = outcome["failure"]
    order = failure["allocation"]["order"]
    assert order >= 4
    assert failure["free_pages"] - failure["watermark_pages"]["min"] > 1 << order
    assert failure["fragmentation_index"][order] > 500
    assert sum(count << at for at, count in enumerate(failure["buddyinfo"])) == failure["free_pages"]
    assert cell.run(Spec(**found["spec"])._replace(memory=str(enough - smallest.STEP_BYTES), buffers="unmapped"))[
        "survived"
    ]


def test_samples_are_bounded_and_pictures_are_memory() -> None:
    with Machine(profile("nommu-8m", 1 << 20)) as machine:
        sampler = Sampler(machine)
        held = []
        for step in range(5000):
            if step % 100 == 0:
                held.append(machine.alloc_pages(step // 100 % 3, "buf:dir" if step % 200 else "buf:inode"))
            sampler.tick()
        assert WANTED <= len(sampler.series) < 2 * WANTED
        assert [at["step"] for at in sampler.series] == sorted(at["step"] for at in sampler.series)
        last = sampler.pictures[-1]
        assert len(last) == 256
        assert last.count(0) == sampler.series[-1]["free_pages"]


def test_the_picture_comes_back(images: dict[str, Path]) -> None:
    outcome = cell.run(Spec("lookup", str(images["dir-16k"]), "contiguous", "nommu-8m", "2M", size=0.1))
    kept = outcome["picture"]
    rows = zlib.decompress(b64decode(kept["packed"]))
    assert len(rows) == kept["rows"] * kept["pages"] == kept["rows"] * 512
    assert "buf:dir" in {kept["owners"][owner] for owner in set(rows)}


def test_a_trace_asks_the_same_again(images: dict[str, Path], tmp_path: Path) -> None:
    """Replayed on the machine that it was recorded on, a trace reads as much, and needs as much, as the run did."""
    trace = tmp_path / "mixed.trace"
    with pocketxfs.open(images["dir-64k"], memory="8M", machine="nommu-8m") as fs:
        facts = record.record(fs, "mixed", trace, size=0.1)
        live = fs.mount.cache.report()
    assert facts["events"] > facts["steps"] > 100
    outcome = cell.run(Spec("trace", str(trace), "contiguous", "nommu-8m", "8M"))
    assert outcome["survived"], outcome["failure"]
    assert outcome["steps"] == facts["events"]
    assert abs(outcome["kinds"]["dir"]["misses"] - live["kinds"]["dir"]["misses"]) <= 8
    small = cell.run(Spec("trace", str(trace), "contiguous", "nommu-8m", "512K"))
    assert not small["survived"] and small["failure"]["allocation"]["order"] == 4


def test_recording_leaves_nothing_behind_where_it_fails(images: dict[str, Path], tmp_path: Path) -> None:
    with pocketxfs.open(images["dir-4k"], memory="4M") as fs, pytest.raises(KeyError):
        record.record(fs, "no such thing", tmp_path / "trace")
    assert not list(tmp_path.iterdir())


def test_no_backing_changes_what_is_recovered(images: dict[str, Path], tmp_path: Path) -> None:
    """The same bytes in the image after the same recovery in place."""
    digests = set()
    for buffers in BACKINGS:
        copy = tmp_path / "copy"
        shutil.copyfile(images["dirty"], copy)
        assert main(["recover", "--buffers", buffers, "--memory", "2M", str(copy)]) == 0
        digests.add(hashlib.sha256(copy.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.judged
def test_the_kernel_mounts_what_was_recovered(images: dict[str, Path], tmp_path: Path) -> None:
    lacking = kernel.missing()
    if lacking:
        no_judge(lacking)
    copy = tmp_path / "copy"
    shutil.copyfile(images["dirty"], copy)
    assert main(["recover", "--buffers", "folio", str(copy)]) == 0
    kernel.command("xfs_repair", "-n", copy)
    with kernel.mounted(copy, read_only=True) as point, pocketxfs.open(copy) as fs:
        assert sorted(path.name for path in Path(point).iterdir()) == sorted(fs.listdir("/"))
