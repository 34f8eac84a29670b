"""Arguments, operands, and the table of verbs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from pocketxfs.cli.command import COMMON
from pocketxfs.cli.common.args import Option, UsageError, byte_count, parse
from pocketxfs.cli.common.target import split
from pocketxfs.cli.verbs import VERBS

from .conftest import Command
from .fake import DIR, REG, FakeFs

OPTIONS = (
    Option(("-l",), "long", ""),
    Option(("-a", "--all"), "all", ""),
    Option(("--alone",), "alone", ""),
    Option(("-n", "--number"), "number", "", "N", int),
)


@pytest.mark.parametrize(
    ("words", "values", "operands"),
    [
        ("-la x", {"long": True, "all": True}, ["x"]),
        ("x -l y --all", {"long": True, "all": True}, ["x", "y"]),
        ("-ln5 x", {"long": True, "number": 5}, ["x"]),
        ("-ln 5 x", {"long": True, "number": 5}, ["x"]),
        ("--number=6 --number 7", {"number": 7}, []),
        ("--num 7", {"number": 7}, []),
        ("--al -l", None, None),
        ("-- -l --all", {}, ["-l", "--all"]),
        ("- x", {}, ["-", "x"]),
        ("-x", None, None),
        ("--all=1", None, None),
        ("--number", None, None),
        ("-n x", None, None),
    ],
)
def test_parse(words: str, values: dict[str, object] | None, operands: list[str] | None) -> None:
    if values is None:
        with pytest.raises(UsageError):
            parse(words.split(), OPTIONS)
    else:
        assert parse(words.split(), OPTIONS) == (values, operands)


def test_find_words_stay_operands() -> None:
    assert parse(["i", "-name", "x", "--all", "!", "-o"], OPTIONS, only_long=True) == (
        {"all": True},
        ["i", "-name", "x", "!", "-o"],
    )


def test_byte_counts() -> None:
    assert [byte_count(text) for text in ("0", "512", "4K", "1m", "0x10")] == [0, 512, 4096, 1 << 20, 16]
    for wrong in ("", "K", "-1", "1.5M"):
        with pytest.raises(ValueError):
            byte_count(wrong)


def test_every_verb_stands_for_itself() -> None:
    """Each has what dispatch needs, and no option that is also a common one."""
    common = {flag for option in COMMON for flag in option.flags} | {"--help"}
    for name, (module, about) in VERBS.items():
        verb = import_module(f"pocketxfs.cli.{module}")
        assert callable(verb.run) and verb.USAGE and about and verb.__doc__, name
        flags = [flag for option in verb.OPTIONS for flag in option.flags]
        assert len(flags) == len(set(flags)), name
        assert not common & set(flags), name


def test_existing_file_with_a_colon_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a:b", "a:b:c"):
        Path(name).touch()
    Path("d").mkdir()
    assert split("a") == ("a", b"/", False)
    assert split("a:b") == ("a:b", b"/", False)
    assert split("a:b:/etc") == ("a:b", b"/etc", True)
    assert split("a:x:/etc") == ("a", b"/x:/etc", True)
    assert split("a:b:c:") == ("a:b:c", b"/", True)
    assert split("a:etc/passwd") == ("a", b"/etc/passwd", True)
    assert split("missing:/x:y") == ("missing", b"/x:y", True)
    assert split("missing") == ("missing", b"/", False)
    assert split("d:/x") == ("d", b"/x", True)
    assert split("a:/caf\udce9") == ("a", b"/caf\xe9", True)


def test_common_options_before_and_after_the_verb(fake: FakeFs, pxfs: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import pocketxfs

    seen: list[dict[str, object]] = []
    monkeypatch.setattr(pocketxfs, "open", lambda image, **named: seen.append({"image": image, **named}) or fake)
    assert pxfs("--memory", "4M", "--buffers=unmapped", "ls", "--partition", "2", "image", "--norecovery").code == 0
    assert seen == [{
        "image": "image", "memory": "4M", "buffers": "unmapped", "machine": "host", "partition": 2, "offset": None,
        "logdev": None, "rtdev": None, "norecovery": True, "force": False,
    }]  # fmt: skip
    assert pxfs("--memory", "4M", "ls", "--memory", "8M", "image").code == 0
    assert seen[1]["memory"] == "8M"


def test_usage_errors(fake: FakeFs, pxfs: Command) -> None:
    for words in ([], ["nothing"], ["ls"], ["ls", "-x", "image"], ["--bad"], ["cp", "image"], ["df", "image:/etc"]):
        result = pxfs(*words)
        assert result.code == 2, words
        assert result.err.startswith("pocketxfs: ") and not result.out


def test_help_and_version(pxfs: Command) -> None:
    assert pxfs("--help").code == pxfs("-h").code == 0
    assert b"tar" in pxfs("--help").out
    assert pxfs("--version").out.startswith(b"pocketxfs ")
    for verb in VERBS:
        result = pxfs(verb, "--help")
        assert result.code == 0 and result.out.startswith(f"usage: pocketxfs {verb} ".encode())


def test_exit_codes_of_errors(fake: FakeFs, pxfs: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import pocketxfs
    from pocketxfs.errors import Corrupt, NoMemory, NotXfs, Unsupported

    for error, code in (
        (Corrupt("AGF", "AG 0", "magic", 1, 2), 3),
        (Unsupported("no"), 4),
        (NotXfs("no"), 4),
        (NoMemory("no"), 5),
        (FileNotFoundError(2, "No such file or directory", "image"), 1),
        (ValueError("no such memory"), 2),
    ):

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(pocketxfs, "open", refuse)
        for verb in ("ls", "find", "info", "df"):
            result = pxfs(verb, "image")
            assert (result.code, result.err.count("\n")) == (code, 1 if code != 2 else 2), (verb, error)


def test_one_failure_among_successes_is_1_and_alone_its_own_code(fake: FakeFs, pxfs: Command) -> None:
    fake.add(fake.root, b"good", REG, b"data")
    fake.add(fake.root, b"bad", REG, b"x" * 10).fails_at = 0
    result = pxfs("cat", "image:/bad", "image:/good")
    assert (result.code, result.out) == (1, b"data")
    assert result.err.startswith("pocketxfs: /bad: bmbt block")
    assert pxfs("cat", "image:/bad").code == 3
    assert pxfs("cat", "image:/none").code == 1
    assert pxfs("cat", "image:/").err == "pocketxfs: /: Is a directory\n"
    assert fake.closed


def test_memory_report(fake: FakeFs, pxfs: Command, tmp_path: Path) -> None:
    import json

    fake.add(fake.root, b"d", DIR)
    assert "high water bytes" in pxfs("ls", "image", "--memory-report", "-").err
    assert pxfs("ls", "image", "--memory-report", tmp_path / "r.json").code == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["schema_version"] == 1
    assert report["reports"][0]["high_water_bytes"] == 123456
    assert report["reports"][0]["process_peak_rss_bytes"] > 1 << 20
