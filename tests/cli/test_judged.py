"""The verbs against the kernel and the tools whose forms they take: cp and tar, extents and xfs_bmap, ls, find, du, df.

Copies go to a filesystem that the kernel has just made, so that whatever the image holds can be kept there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketxfs.cli import main
from tests.conftest import no_judge
from tests.judge import kernel, manifest, recipes
from tests.judge.compare import report

pytestmark = pytest.mark.judged

#: What a copy cannot have in common with its original, and what is not copied: flags, project ids, creation times.
NEVER = frozenset(
    ("ino", "dino", "ct", "bt", "blocks", "ext", "order", "xflags", "projid", "extsize", "cowextsize", "nextents")
)
COPIED = ("default", "prefilled-64k", "scattered-1k", "next-all", "inodes-64bit")
Record = dict[str, Any]


def built(name: str) -> kernel.Built:
    recipe = next(recipe for recipe in recipes.MATRIX if recipe.name == name)
    lacking = kernel.lacks(recipe)
    if lacking:
        no_judge(lacking)
    return kernel.ensure(recipe)


def pxfs(*words: str | Path, code: int = 0, **options: Any) -> bytes:
    """A run in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pocketxfs", *map(str, words)], capture_output=True, check=False, **options
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """An empty filesystem to copy into."""
    image = tmp_path / "fresh"
    with open(image, "wb") as file:
        file.truncate(1 << 30)
    kernel.command("mkfs.xfs", "-q", image)
    with kernel.mounted(image, "noatime") as point:
        yield point


def records(top: Path, leave_out: str = "") -> list[Record]:
    """The manifest of a tree but for some types, and for the sizes of directories, which tell of what was removed."""
    found = []
    for record in manifest.walk(os.fsencode(top)):
        if record.get("t") == "d":
            del record["size"]
        if "t" not in record or record["t"] not in leave_out:
            found.append(record)
    return found


def different(one: list[Record], other: list[Record], ignore: frozenset[str]) -> str:
    return report(iter(one), iter(other), ignore)


@pytest.mark.parametrize("name", COPIED)
@pytest.mark.parametrize("buffers", ["contiguous", "unmapped"])
def test_cp_a_equals_the_kernels_tree(name: str, buffers: str, fresh: Path) -> None:
    image = built(name).image
    before = image.stat().st_mtime_ns
    pxfs("cp", "-a", "--memory", "4M", "--buffers", buffers, f"{image}:", fresh)
    with kernel.mounted(image, read_only=True) as point:
        assert different(records(point), records(fresh), NEVER) == ""
    assert image.stat().st_mtime_ns == before


def test_cp_r_equals_cp_r(tmp_path: Path, fresh: Path) -> None:
    """Without -p: modes by the umask, owners ours; hard links are kept, which cp(1) leaves to -d."""
    image = built("default").image
    for umask in (0o022, 0o077):
        ours, theirs = fresh / f"ours{umask:o}", fresh / f"theirs{umask:o}"
        old = os.umask(umask)
        try:
            pxfs("cp", "-r", f"{image}:", ours)
            with kernel.mounted(image, read_only=True) as point:
                subprocess.run(["cp", "-r", "--preserve=links", "--sparse=always", point, theirs], check=True)
        finally:
            os.umask(old)
        assert different(records(theirs), records(ours), NEVER | {"at", "mt"}) == ""


@pytest.mark.parametrize("name", COPIED)
def test_gnu_tar_makes_the_kernels_tree_of_it(name: str, fresh: Path) -> None:
    image = built(name).image
    with subprocess.Popen(
        [sys.executable, "-m", "pocketxfs", "--memory", "4M", "tar", str(image)], stdout=subprocess.PIPE
    ) as ours:
        unpack = ["tar", "-x", "--xattrs", "--xattrs-include=*", "--acls", "--same-owner", "-p", "-C", str(fresh)]
        subprocess.run(unpack, stdin=ours.stdout, check=True)
    assert ours.returncode == 0
    with kernel.mounted(image, read_only=True) as point:
        ignore = NEVER | {"at"}
        assert different(records(point, "s"), records(fresh, "s"), ignore) == ""


def plain(path: str) -> bool:
    return path.isascii() and path.isprintable() and not set(path) & set("\\: ")


@pytest.mark.parametrize("name", ["default", "stripe", "many-groups", "prefilled-1k", "block-64k"])
def test_extents_are_xfs_bmaps(name: str) -> None:
    image = built(name).image
    with kernel.mounted(image, "norecovery", read_only=True) as point:
        paths = [
            str(path.relative_to(point))
            for path in sorted(point.rglob("*"))
            if not path.is_symlink() and (path.is_file() or path.is_dir()) and plain(str(path.relative_to(point)))
        ][:400]
        for flags in ("-v", "-vp", "-av"):
            theirs = subprocess.run(
                ["xfs_bmap", flags, *paths], cwd=point, capture_output=True, text=True, check=True
            ).stdout.splitlines()
            ours = pxfs("extents", flags, *(f"{image}:/{path}" for path in paths)).decode().splitlines()
            assert [line.removeprefix("/") for line in ours] == theirs, flags


def test_lists_are_the_tools(tmp_path: Path) -> None:
    image = built("default").image
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    with kernel.mounted(image, read_only=True) as point:

        def tool(*words: str) -> list[bytes]:
            return subprocess.run(
                words, cwd=point, capture_output=True, check=True, env=environment
            ).stdout.splitlines()

        def rooted(lines: list[bytes]) -> list[bytes]:
            return [re.sub(rb"^\.(/|(?=:$))", b"/", line) for line in lines]

        for flags in ("-lnRA --full-time", "-R", "-lnARi", "-RAU", "-lnRhS", "-ntR", "-lnRsA"):
            theirs, ours = tool("ls", *flags.split()), pxfs("ls", *flags.split(), image, env=environment).splitlines()
            assert [line.split() for line in ours] == [line.split() for line in rooted(theirs)], flags
        text = r"%p\0%y %m %U %G %s %n %i %b %k %T@ %A@ %C@ %l %d\n"
        assert sorted(pxfs("find", image, "-mindepth", "1", "-printf", text).splitlines()) == sorted(
            rooted(tool("find", ".", "-mindepth", "1", "-printf", text))
        )
        for words in ("-type f -size +3", "-empty", "-newer ./files", "-links +1", "-name [a-f]*", "-perm /6000"):
            ours = pxfs("find", image, "-mindepth", "1", *words.split()).splitlines()
            assert sorted(ours) == sorted(rooted(tool("find", ".", "-mindepth", "1", *words.split()))), words
        size = lambda line: line.split(b"\t")[0]  # noqa: E731
        for flags in ("-s", "-sh", "-k", "-b", "-sb"):
            theirs = sorted(map(size, tool("du", *flags.split())))
            ours = sorted(map(size, pxfs("du", *flags.split(), image).splitlines()))
            if "b" not in flags:  # GNU du counts directories' own sizes in some versions and not in others
                assert ours == theirs, flags
        for flags in ("-k", "-h", "-i"):
            theirs = tool("df", flags, ".")[1].split()[1:5]
            assert pxfs("df", flags, image).splitlines()[1].split()[1:] == theirs, flags


def test_info_is_xfs_infos(tmp_path: Path) -> None:
    for name in ("default", "stripe", "all-off", "block-64k", "external-log"):
        one = built(name)
        theirs = subprocess.run(["xfs_db", "-r", "-c", "info", one.image], capture_output=True, text=True, check=False)
        if theirs.returncode or "meta-data" not in theirs.stdout:
            continue
        ours = pxfs("info", one.image).decode()
        assert [line.split() for line in ours.split("\n\n")[0].splitlines()] == [
            line.split() for line in theirs.stdout.splitlines()
        ], name


def test_info_tells_of_a_dirty_log() -> None:
    image = built("dirty-log").image
    assert b"log       dirty" in pxfs("info", image)
    assert pxfs("ls", "-laR", image) != pxfs("ls", "-laR", "--norecovery", image)


def test_starting_is_quick_and_small(tmp_path: Path) -> None:
    """No time is asserted; what is not imported is: nothing heavy for a verb that has no use for it."""
    image = built("default").image
    report_file = tmp_path / "imports"
    code = (
        "import sys; from pocketxfs.cli import main; main(sys.argv[1:]); "
        f"open({str(report_file)!r}, 'w').write(' '.join(sys.modules))"
    )
    path = pxfs("find", image, "-type", "f", "-size", "-3", "-quit", "-print").decode().strip() or "/files/inline"
    del path
    subprocess.run([sys.executable, "-c", code, "ls", str(image)], check=True, capture_output=True)
    loaded = set(report_file.read_text().split())
    heavy = {"argparse", "tqdm", "sqlite3", "json", "tempfile", "logging", "dataclasses", "inspect", "tarfile"}
    assert not loaded & heavy


def test_the_reader_goes_away() -> None:
    image = built("default").image
    done = subprocess.run(
        f"{sys.executable} -m pocketxfs ls -laR {image} | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "" and done.stdout.splitlines()[-1] == "141"


def as_nobody(said: Path, *words: str | Path) -> int:
    """A run by an ordinary user, its exit code; all is imported before, as this Python may be out of his reach."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            main(["cp", "-rp", *map(str, words[2:-1]), f"{words[-1]}-by-root"])
            sys.stderr = open(said, "w")  # noqa: SIM115
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code = main([str(word) for word in words])
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_an_ordinary_user_gets_all_but_devices_and_owners(fresh: Path) -> None:
    image = fresh / "image"
    subprocess.run(["cp", "--sparse=always", built("default").image, image], check=True)
    os.chmod(image, 0o644)
    os.chmod(fresh, 0o1777)
    assert as_nobody(fresh / "said", "cp", "-a", f"{image}:", fresh / "copy") == 1
    said = (fresh / "said").read_text().splitlines()
    assert said and all(line.endswith(": Operation not permitted") for line in said)
    refused = {line.split(": ")[1].lstrip("/") for line in said}
    ignore = NEVER | {"uid", "gid", "xattr"}
    with kernel.mounted(image, "norecovery,nouuid", read_only=True) as point:
        theirs = [record for record in records(point) if record["p"] not in refused]
        for record in theirs:
            if record.get("uid", 65534) != 65534 or record.get("gid", 65534) != 65534:
                # set-ids would act in somebody else's name
                record["mode"] &= 0o1777
            private = {name for name in record.get("xattr", ()) if name.startswith("user.")}
            record["private"] = sorted(private)
        ours = records(fresh / "copy")
        for record in ours:
            if "mode" in record:
                record["private"] = sorted(name for name in record["xattr"] if name.startswith("user."))
        for record in theirs:
            if "mode" not in record:
                record.pop("private")
        assert different(theirs, ours, ignore) == ""


def test_memory_stays_small_however_large_the_tree(tmp_path: Path) -> None:
    """The promise for 60,000 files: arena never above 16 MiB, process under 44 MiB."""
    import json

    recipe = next(recipe for recipe in recipes.BIG if recipe.name == "tree-60k")
    image = kernel.ensure(recipe).image
    for words in (
        ("cp", "-r", f"{image}:", tmp_path / "copy"),
        ("tar", "-o", "/dev/null", image),
        ("ls", "-lR", image),
    ):
        told = tmp_path / "report.json"
        pxfs(*words, "--memory-report", told)
        said = json.loads(told.read_text())["reports"][0]
        assert said["high_water_bytes"] <= 16 << 20
        assert said["process_peak_rss_bytes"] < 44 << 20, words


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["cp", "tar"])
def test_signals_leave_nothing_half_done(number: signal.Signals, verb: str, tmp_path: Path) -> None:
    image = built("default").image
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    target = tmp_path / "target"
    # a pipe that nobody reads holds the run at a known place
    words = ["cp", "-rv", f"{image}:", str(target)] if verb == "cp" else ["tar", "-v", "-o", str(target), str(image)]
    with subprocess.Popen(
        [sys.executable, "-m", "pocketxfs", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)},
    ) as run:  # fmt: skip
        assert run.stdout is not None and run.stderr is not None
        (run.stdout if verb == "cp" else run.stderr).read(1)
        run.send_signal(number)
        run.stdout.read()
        run.stderr.read()
    assert run.returncode == 128 + number
    assert os.listdir(temporary) == []
    if verb == "tar":
        assert not target.exists()
