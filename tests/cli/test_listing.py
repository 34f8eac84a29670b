"""ls, find, du, df, stat, memory, against what the tools of the same names say of the same tree.

The tree is written twice: into the fake filesystem, and to the disk for ls, find and du.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketxfs.cli.common import spill
from pocketxfs.cli.common.glob import matcher
from pocketxfs.cli.common.text import escaped, human

from .conftest import Command
from .fake import DIR, LNK, REG, FakeFs, FakeInode


@pytest.fixture
def both(fake: FakeFs) -> Iterator[FakeFs]:
    """The fake filesystem and the same tree in ./out."""
    rng = iter(range(10**9))

    def fill(parent: FakeInode, depth: int) -> None:
        for name, size in ((b"b.c", 10), (b"a", 5000), (b".hid", 0), (b"Z.C", 1), (b"caf\xe9", 512), (b"x y", 513)):
            fake.add(parent, name, REG if name != b"a" else 0o100755, b"x" * size)
        fake.add(parent, b"lnk", LNK, b"b.c")
        fake.add(parent, b"empty", DIR)
        if depth:
            for name in (b"sub", b".dot", b"Sub2"):
                fill(fake.add(parent, name, DIR), depth - 1)
        fake.link(parent, b"hard%d" % depth, fake.inodes[parent.entries[0][1]])

    fill(fake.root, 2)
    made: dict[int, bytes] = {}

    def write(inode: FakeInode, path: bytes) -> None:
        for name, ino in inode.entries:
            child, target = fake.inodes[ino], path + b"/" + name
            if ino in made:
                os.link(made[ino], target)
                continue
            made[ino] = target
            if child.is_dir:
                os.mkdir(target)
                write(child, target)
                child.nlink = os.stat(target).st_nlink
            elif child.kind == LNK & 0o170000:
                os.symlink(child.data, target)
            else:
                Path(os.fsdecode(target)).write_bytes(child.data)
                os.chmod(target, child.mode & 0o7777)
            child.mtime_ns = 1_600_000_000_000_000_000 + next(rng) * 10**9
            child.size = os.lstat(target).st_size
            os.utime(target, ns=(child.atime_ns, child.mtime_ns), follow_symlinks=False)

    write(fake.root, b"out")
    for ino, target in made.items():
        os.utime(target, ns=(0, fake.inodes[ino].mtime_ns), follow_symlinks=False)
    os.utime("out", ns=(0, fake.root.mtime_ns))
    yield fake


def tool(*words: str) -> list[bytes]:
    done = subprocess.run(words, cwd="out", capture_output=True, env={"LC_ALL": "C", "PATH": os.environ["PATH"]})
    return done.stdout.splitlines()


@pytest.mark.parametrize("flags", ["", "-a", "-A", "-r", "-R", "-Ra", "-RA", "-Rr", "-t", "-S", "-tr", "-d", "-RAt"])
def test_ls(both: FakeFs, pxfs: Command, flags: str) -> None:
    mine = pxfs("ls", *([flags] if flags else []), "image").lines
    theirs = tool("ls", *([flags] if flags else []), "-1")
    theirs = [re.sub(rb"^\.(/(?P<rest>.*))?:$", rb"/\g<rest>:", line) for line in theirs]
    if flags == "-d":
        theirs = [b"/"]
    if "S" in flags:  # directories have a size of their own there
        both_names = (b"empty", b"sub", b"Sub2")
        mine, theirs = ([name for name in names if name not in both_names] for names in (mine, theirs))
    assert mine == theirs


@pytest.mark.parametrize("records", [3, 1000])
def test_ls_sorts_beyond_memory(both: FakeFs, pxfs: Command, monkeypatch: pytest.MonkeyPatch, records: int) -> None:
    monkeypatch.setattr(spill, "RUN_RECORDS", records)
    monkeypatch.setattr(spill, "FAN_IN", 2)
    assert [line for line in pxfs("ls", "-RA", "image").lines if not line.endswith(b":")] == [
        line for line in tool("ls", "-RA") if not line.endswith(b":")
    ]


def test_ls_long(both: FakeFs, pxfs: Command) -> None:
    for flags in ("-l", "-ln", "-lA", "-lh", "-li", "-l --full-time"):
        mine, theirs = pxfs("ls", *flags.split(), "image").lines, tool("ls", *flags.split())
        assert mine[0].startswith(b"total ")
        strip = 1 if "i" in flags else 0
        for one, other in zip(mine[1:], theirs[1:], strict=True):
            if b" d" in b" " + other[:12] or other.startswith(b"d"):
                continue  # sizes of directories
            assert one.split()[strip:] == other.split()[strip:]
    assert pxfs("ls", "-l", "image:/lnk").out.endswith(b"/lnk -> b.c\n")


def test_ls_unreadable_and_loops(fake: FakeFs, pxfs: Command) -> None:
    fake.root.entries.append((b"gone", 999))
    below = fake.add(fake.root, b"d", DIR)
    below.entries.append((b"again", fake.root_ino))
    result = pxfs("ls", "-l", "image")
    assert result.code == 1 and b"? gone" in result.lines[-1]
    fake.dtypes = False
    assert pxfs("ls", "-R", "image").code == 1
    assert pxfs("ls", "-R", "image").lines[:4] == [b"/:", b"d", b"gone", b""]


def test_ls_json_and_operands(both: FakeFs, pxfs: Command) -> None:
    said = json.loads(pxfs("ls", "--json", "-R", "image").out)
    assert said["schema_version"] == 1 and said["failed"] == 0
    paths = [entry["path"] for entry in said["entries"]]
    assert "/sub/sub/a" in paths
    assert [entry for entry in said["entries"] if "path_base64" in entry]
    assert pxfs("ls", "image:/a", "image:/empty", "image:/b.c").lines == [b"/a", b"/b.c", b"", b"/empty:"]
    assert pxfs("ls", "image:/none").code == 1


EXPRESSIONS = [
    "", "-name *.c", "-iname *.c", "-name .*", "-name ?", "-name [a-b]*", "-name [!a-z]*", "-path */sub/*", "-type d",
    "-type f,l", "-type f -size 1", "-type f -size +0", "-type f -size -2", "-type f -size +1k", "-type f -size -1k",
    "-type f -size 512c", "-type f -size 256w", "-size 10c", "-type f -size +4k -o -name empty", "-empty",
    "-type f -empty", "-newer a", "-newer sub/a", "-maxdepth 1", "-mindepth 2", "-maxdepth 0",
    "-mindepth 1 -maxdepth 2 -type d",
    "-depth", "-depth -maxdepth 1", "-depth -mindepth 2", "-name sub -prune -o -print",
    "-name sub -prune -o -type f -print",
    "! -name *.c", "( -name a -o -name b.c ) -type f", "-name a , -name b.c", "-type f -links +1", "-perm 755",
    "-type f -perm -700", "-type f -perm /111", "-lname b*", "-name a -print -print", "-type l -printf %l\\n",
    "-type f -printf %p|%f|%h|%P|%s|%m|%M|%n|%d|%y|%T@|%5s|%-5s|\\t\\101\\n",
    "-type f -printf %TY-%Tm-%Td_%TH:%TM:%TS%%\\n",
    "-newermt 2020-09-13T12:26:45", "-not -newermt @1600000010", "-true", "-false -o -name a", "-type f -mtime +100",
    "-name a -quit", "-printf %t\\n", "-samefile b.c", "-user root", "-gid 0", "-name caf*",
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_find(both: FakeFs, pxfs: Command, expression: str) -> None:
    words = expression.split()
    if "-quit" in words:
        result = pxfs("find", "image", *words)
        assert (result.code, result.out) == (0, b"")
        return
    mine = pxfs("find", "image", *words)
    theirs = tool("find", ".", *words)
    assert mine.code == 0, mine.err
    lines = mine.lines
    if "-printf" in words:
        theirs = [line.replace(b"|.|", b"||") for line in theirs]  # %h of what is in "/"
    # here the tree begins at "/", there at "."; the order of directories differs
    theirs = [re.sub(rb"(^|\|)\./", rb"\1/", line) for line in theirs]
    theirs = [b"/" if line == b"." else line for line in theirs]
    if "-size" in words or words in (["-empty"], ["-name", ".*"]) or words == ["-printf", "%t\\n"]:
        theirs = [line for line in theirs if line not in (b"/", b"/.dot")]
        lines = [line for line in lines if line not in (b"/", b"/.dot")]
    assert sorted(lines) == sorted(theirs)


def test_find_depth_comes_after(both: FakeFs, pxfs: Command) -> None:
    lines = pxfs("find", "image", "-depth").lines
    assert lines[-1] == b"/" and lines.index(b"/sub/a") < lines.index(b"/sub")


def test_find_print0_ls_json(both: FakeFs, pxfs: Command) -> None:
    assert pxfs("find", "image:/empty", "-print0").out == b"/empty\0"
    line = pxfs("find", "image:/a", "-ls").out
    assert line.split()[2] == b"-rwxr-xr-x" and line.endswith(b" /a\n")
    said = json.loads(pxfs("find", "--json", "image", "-name", "a", "-print0").out)
    assert [entry["path"] for entry in said["entries"]].count("/a") == 1
    assert pxfs("find", "image", "-name", "a", "--json").code == 0


@pytest.mark.parametrize(
    "words",
    [
        "-exec rm {} ;",
        "-delete",
        "-name",
        "( -name a",
        "-name a )",
        "-size x",
        "-type q",
        "a b",
        "-maxdepth",
        "-o",
        "!",
    ],
)
def test_find_refuses(fake: FakeFs, pxfs: Command, words: str) -> None:
    assert pxfs("find", "image", *words.split()).code == 2


def test_find_reads_no_inodes_for_names(both: FakeFs, pxfs: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = both.trusted_inode
    monkeypatch.setattr(both, "trusted_inode", lambda ino: read.append(ino) or real(ino))
    assert pxfs("find", "image", "-name", "a", "-type", "f").code == 0
    assert all(both.inodes[ino].is_dir for ino in read)


def test_du(both: FakeFs, pxfs: Command) -> None:
    """Against du itself, with the fake's blocks: apparent sizes of files are what both know."""
    for flags in ("-ab", "-b", "-sb", "-b -d 1", "-ablc", "-abc"):
        mine = pxfs("du", *flags.split(), "image").lines
        theirs = tool("du", *flags.split())
        mine_paths = sorted(line.split(b"\t")[1].lstrip(b"/") for line in mine)
        theirs_paths = sorted(re.sub(rb"^\./?", b"", line.split(b"\t")[1]) for line in theirs)
        if "l" in flags or "a" not in flags:
            assert mine_paths == theirs_paths, flags
        else:
            # which of its names an inode is counted under depends on the order of names
            assert len(mine_paths) == len(theirs_paths)
    files = sum(inode.size for inode in both.inodes.values() if inode.kind in (0o100000, 0o120000))
    assert pxfs("du", "-sb", "image").out == b"%d\t/\n" % files
    assert pxfs("du", "-sh", "image:/a").out == b"8.0K\t/a\n"
    said = json.loads(pxfs("du", "--json", "-s", "image").out)
    assert said["entries"] == [{"path": "/", "bytes": said["total_bytes"]}]


def test_df(fake: FakeFs, pxfs: Command) -> None:
    assert pxfs("df", "image").lines == [
        b"Filesystem 1K-blocks   Used Available Use%",
        b"image         400000 160000    240000  40%",
    ]
    assert pxfs("df", "-hi", "image").lines[1].split() == [b"image", b"4.9K", b"1000", b"4.0K", b"20%"]
    assert json.loads(pxfs("df", "--json", "image").out)["filesystems"][0]["blocks"] == 100_000


def test_stat(both: FakeFs, pxfs: Command) -> None:
    inode = both.resolve(b"/a")
    inode.flags, inode.attributes[b"user.x"] = 8, b"value"
    text = pxfs("stat", "image:/a").out.decode()
    assert "  File: /a\n  Size: 5000" in text and "Access: (0755/-rwxr-xr-x)" in text
    assert " Flags: immutable\n" in text and "user.x (5 bytes)" in text
    said = json.loads(pxfs("stat", "--json", "image:/a", "image:/lnk").out)
    assert said["files"][0]["mtime_ns"] == inode.mtime_ns
    assert said["files"][1]["target"] == "b.c"
    assert pxfs("stat", "-f", "image").code == 0


def test_memory(both: FakeFs, pxfs: Command) -> None:
    said = json.loads(pxfs("memory", "--read", "--json", "image").out)["report"]
    assert said["work"]["bytes_read"] == sum(
        both.inodes[ino].size
        for inode in both.inodes.values()
        for _, ino in inode.entries
        if both.inodes[ino].kind == 0o100000
    )
    assert said["high_water_bytes"] == 123456
    text = pxfs("memory", "image").out.decode()
    assert "high water bytes" in text and "  inode:" in text


def test_names_are_escaped_for_people_only(fake: FakeFs, pxfs: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.add(fake.root, b"a\n\x1b[31m\xe9\\ \xc2\x85", REG)
    assert pxfs("ls", "image").out == b"a\n\x1b[31m\xe9\\ \xc2\x85\n"
    from pocketxfs.cli import run

    monkeypatch.setattr(run, "is_terminal", lambda _stream: True)
    shown = b"a\\n\\033[31m\\351\\\\ \\302\\205"
    assert pxfs("ls", "image").out == shown + b"\n"
    assert pxfs("find", "image", "-type", "f").out == b"/" + shown + b"\n"
    assert pxfs("find", "image", "-type", "f", "-print0").out == b"/a\n\x1b[31m\xe9\\ \xc2\x85\0"


def test_columns_on_a_terminal(fake: FakeFs, pxfs: Command) -> None:
    for number in range(30):
        fake.add(fake.root, b"name-%02d" % number, REG)
    lines = pxfs("ls", "-C", "image").lines
    assert len(lines) == 4 and lines[0].split()[:2] == [b"name-00", b"name-04"]
    assert max(map(len, lines)) <= 80


def test_words_and_sizes() -> None:
    sizes = (0, 1023, 1024, 1025, 10188, 10240, 1047552, 1047553, 1 << 20, (1 << 40) + 1)
    assert [human(size) for size in sizes] == [
        "0", "1023", "1.0K", "1.1K", "10K", "10K", "1023K", "1.0M", "1.0M", "1.1T",
    ]  # fmt: skip
    assert escaped("grün".encode()) == "grün"
    assert escaped(b"a b") == "a b"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", [b"", b"a/b", b".x"], []),
        ("a?c", [b"abc", b"a/c", "aüc".encode()], [b"ac", b"abbc"]),
        ("[]a]", [b"]", b"a"], [b"b"]),
        ("[!]a]", [b"b"], [b"]", b"a"]),
        ("[^a-c]", [b"d"], [b"b"]),
        ("[a", [b"[a"], [b"a"]),
        ("[[:digit:]x]", [b"5", b"x"], [b"d", b":"]),
        ("[![:digit:]]", [b"x"], [b"5"]),
        (r"\*", [b"*"], [b"a"]),
        (r"[\]]", [b"]"], [b"\\"]),
        ("[a-]", [b"a", b"-"], [b"b"]),
        ("a**b", [b"ab", b"axxb"], [b"a"]),
        ("a.b", [b"a.b"], [b"axb"]),
        ("[c-a]", [], [b"b", b"c", b"a"]),
        ("x\n*", [b"x\n\n"], [b"x"]),
    ],
)
def test_patterns(pattern: str, yes: list[bytes], no: list[bytes]) -> None:
    test = matcher(pattern)
    assert all(map(test, yes)) and not any(map(test, no))
