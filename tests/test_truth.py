"""The truth test: what pocketxfs shows of kernel-made filesystems equals what the kernel shows, entry by entry.

Every recipe of the matrix is judged on machines with different backings, 16 and 4 MiB of memory, and the 8 MiB of a
machine without an MMU; those with buffers larger than a page, with every backing on every kind of machine that can have
it.  `--torture` judges all combinations, and the big recipes.
"""

from __future__ import annotations

import ast
import os
import sys

import pytest

from pocketxfs.buffer import BACKINGS
from tests.conftest import no_judge
from tests.judge import compare, kernel, ours, uml
from tests.judge.recipes import ALL, BIG, MATRIX, Recipe

MACHINES: dict[str, dict[str, str]] = {
    "16M-contiguous": {"memory": "16M", "buffers": "contiguous"},
    "4M-unmapped": {"memory": "4M", "buffers": "unmapped"},
    "nommu-8m-exact": {"memory": "8M", "buffers": "contiguous-exact", "machine": "nommu-8m"},
}
#: The backings that map, and where else they can be; i386 has few enough addresses that they are used again.
MAPPED_MACHINES: dict[str, dict[str, str]] = {
    "4M-vm-map-ram": {"memory": "4M", "buffers": "vm-map-ram"},
    "4M-vmalloc": {"memory": "4M", "buffers": "vmalloc"},
    "4M-folio": {"memory": "4M", "buffers": "folio"},
    "i386-32M-vm-map-ram": {"memory": "2M", "buffers": "vm-map-ram", "machine": "i386:vmalloc=32M"},
    "arm32-4M-vmalloc": {"memory": "2M", "buffers": "vmalloc", "machine": "arm32:vmalloc=4M"},
    "nommu-8m-vmalloc": {"memory": "8M", "buffers": "vmalloc", "machine": "nommu-8m"},
    "nommu-8m-folio": {"memory": "8M", "buffers": "folio", "machine": "nommu-8m"},
}
#: The recipes that are read with all of them: directory blocks, blocks, inode clusters and attributes above a page.
LARGE_BUFFERS = ("dir-16k", "scattered-dir-64k", "block-64k", "inode-2048")
MORE_MACHINES: dict[str, dict[str, str]] = {
    f"{machine}-{memory}-{buffers}": {"memory": memory, "buffers": buffers, "machine": machine}
    for machine, memory in (
        ("host", "16M"), ("host", "4M"), ("nommu-16m", "16M"), ("nommu-8m", "8M"), ("i386", "4M"), ("arm32", "16M"),
    )
    for buffers in BACKINGS
    if not (machine.startswith("nommu") and buffers == "vm-map-ram")
}  # fmt: skip


def machines(config: pytest.Config) -> dict[str, dict[str, str]]:
    """Those asked for on pytest's command line, or the usual ones."""
    asked = {name: config.getoption("--pxfs-" + name) for name in ("memory", "buffers", "machine")}
    asked = {name: value for name, value in asked.items() if value}
    if asked:
        return {"asked": asked}
    return MORE_MACHINES if config.getoption("--torture") else MACHINES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test a recipe and machine; those of one recipe go to one worker, which makes its image once."""
    if "machine" in metafunc.fixturenames:
        cases = []
        for recipe in (*MATRIX, *BIG):
            found = machines(metafunc.config)
            usual = found if recipe in MATRIX else {name: found[name] for name in list(found)[:1]}
            if recipe.name in LARGE_BUFFERS and found is MACHINES:
                usual = {**found, **MAPPED_MACHINES}
            for name, options in usual.items():
                marks = [pytest.mark.xdist_group(recipe.name), *([pytest.mark.slow] if recipe.slow else [])]
                cases.append(pytest.param(recipe, options, id=f"{recipe.name}-{name}", marks=marks))
        metafunc.parametrize(("recipe", "machine"), cases)
    elif "recipe" in metafunc.fixturenames:
        marked = [pytest.param(recipe, id=recipe.name, marks=pytest.mark.xdist_group(recipe.name)) for recipe in MATRIX]
        metafunc.parametrize("recipe", marked)


def built(recipe: Recipe) -> kernel.Built:
    """The recipe's image, or a loud skip."""
    lacking = kernel.lacks(recipe)
    if lacking:
        no_judge(lacking)
    return kernel.ensure(recipe)


def test_manifest_equals_the_kernels(recipe: Recipe, machine: dict[str, str], pytestconfig: pytest.Config) -> None:
    """Types, modes, owners, sizes, times, links, attributes, contents, extents, order of directories."""
    made = built(recipe)
    lookups = 10_000 if pytestconfig.getoption("--torture") else ours.LOOKUPS
    with ours.opened(made, **machine) as fs:
        found = compare.report(compare.kernel_records(made.manifest), ours.walk(fs, lookups))
        high_water, ram = fs.memory_report()["high_water_bytes"], fs.mount.machine.profile.ram_bytes
    if found:
        pytest.fail(found, pytrace=False)
    assert high_water <= ram


def test_statvfs_equals_the_kernels(recipe: Recipe) -> None:
    """Sizes and free counts, of a read-only mount."""
    made = built(recipe)
    with ours.opened(made) as fs:
        shown = fs.statvfs("/")
    expected = compare.kernel_header(made.manifest)["statvfs"]
    assert {name: getattr(shown, "f_" + name) for name in expected} == expected


@pytest.mark.parametrize("name", ["default", "block-1k", "million", "dir-64k", "uml-v4"])
def test_names_that_are_not_there(name: str) -> None:
    """A lookup by hash finds what is there and nothing else, however large the directory."""
    made = built(ALL[name])
    with ours.opened(made, memory="4M") as fs:
        directories = (
            ["/names"] if name == "million" else ["/directories/" + form for form in ("short", "block", "leaf", "node")]
        )
        top = "/million" if name == "million" else ""
        for directory in directories:
            taken = []
            for entry in fs.scandir(top + directory):
                taken.append(entry.name)
                if len(taken) == 2000:
                    break
            for present in taken[::50]:
                assert fs.lexists(f"{top}{directory}/{present}")
                for absent in (present + "~", present[:-1], present.upper(), "~" + present):
                    if absent and absent not in (present, "") and absent not in taken:
                        assert not fs.lexists(f"{top}{directory}/{absent}"), absent


def test_cookies_go_on_where_a_listing_stopped() -> None:
    """readdir from any cookie, in a new opening, gives the rest and only that."""
    made = built(ALL["default"])
    for form in ("short", "block", "leaf", "node", "node-removed-5"):
        path = f"/directories/{form}"
        with ours.opened(made) as fs:
            whole = list(fs.readdir(fs.inode(fs.stat(path).st_ino)))
        assert len({cookie for *_, cookie in whole}) == len(whole)
        with ours.opened(made, memory="4M", buffers="unmapped") as fs:
            inode = fs.inode(fs.stat(path).st_ino)
            for at in {0, 1, 2, len(whole) // 2, len(whole) - 2, len(whole) - 1} & set(range(len(whole))):
                assert list(fs.readdir(inode, whole[at][3])) == whole[at + 1 :]


def test_parent_pointers_name_every_entry() -> None:
    """`parents` gives each name of an inode with its directory, hard links too."""
    made = built(ALL["parent"])
    with ours.opened(made) as fs:
        names: dict[int, list[tuple[int, bytes]]] = {}
        for top, folders, files in fs.walk(b"/special"):
            parent = fs.stat(top).st_ino
            for name in (*folders, *files):
                names.setdefault(fs.lstat(top + b"/" + name).st_ino, []).append((parent, name))
        assert names
        for ino, expected in names.items():
            assert sorted(fs.parents(ino)) == sorted(expected)
        linked = fs.lstat(b"/special/linked").st_ino
        assert len(fs.parents(linked)) == 41


def test_case_blind_directories() -> None:
    """ascii-ci: what has another case is found, as the kernel finds it: Latin-1's letters too."""
    made = built(ALL["uml-ascii-ci"])
    spelled = ("mixedcase", "MIXEDCASE", "MixedCase", "upper", "LOWER", "n0t-LETTERS_[]", "N0T-letters_{}", "nope")
    asked = [b"/case_names/" + name.encode() for name in spelled]
    asked += [b"/case_names/\xe4\xf6", b"/case_names/\xc4\xd6", b"/case_names/\xe4\xd6", b"/case_names/\xc5\xd6"]
    asked += [b"/Case_Names/NODE/eNTRY-0000777", b"/case_names/Node/entry-0009999", b"/CASE_NAMES/block/ENTRY-0000007"]
    program = f"import os; print([os.path.lexists({uml.MOUNTPOINT.encode()!r} + path) for path in {asked!r}])"
    step = uml.Step("ro,norecovery", [os.path.realpath(sys.executable), "-c", program])
    by_kernel = ast.literal_eval(uml.run(made.image, [step]))
    assert True in by_kernel and False in by_kernel
    with ours.opened(made) as fs:
        assert dict(zip(asked, map(fs.lexists, asked), strict=True)) == dict(zip(asked, by_kernel, strict=True))
