"""Machine profiles and sizes."""

from __future__ import annotations

import pytest

from pocketxfs.memory import PROFILES, Machine, parse_size, profile

MIB = 1 << 20


def test_the_named_machines() -> None:
    assert set(PROFILES) == {"nommu-16m", "nommu-8m", "arm32", "i386", "x86_64", "host"}
    assert profile().name == "host" and profile().ram_bytes == 16 * MIB
    assert profile("nommu-8m").ram_bytes == 8 * MIB
    for name, shape in PROFILES.items():
        assert shape.name == name
        assert shape.page_bytes == 4096 and shape.ram_bytes % 4096 == 0
        assert (shape.vmalloc_bytes > 0) == shape.mmu == shape.double_map
    assert profile("arm32").vmalloc_bytes == 240 * MIB
    assert profile("i386").vmalloc_bytes == 128 * MIB
    assert profile("x86_64").vmalloc_bytes == 32 << 40


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_any_machine_with_any_memory(name: str) -> None:
    shape = profile(name, 4 * MIB + 5)
    assert shape.ram_bytes == 4 * MIB
    with Machine(shape) as machine:
        assert len(machine.map) == 4 * MIB
        assert machine.report()["machine"]["name"] == name


def test_refused() -> None:
    with pytest.raises(ValueError, match="nommu-16m"):
        profile("vax")
    with pytest.raises(ValueError, match="256K"):
        profile("host", 100_000)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("16M", 16 * MIB),
        ("16m", 16 * MIB),
        ("16MiB", 16 * MIB),
        ("16MB", 16 * MIB),
        (" 4096 ", 4096),
        ("4096B", 4096),
        ("512k", 512 << 10),
        ("1G", 1 << 30),
        ("2T", 2 << 40),
        ("0", 0),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "M", "-1M", "1.5M", "16MM", "16IB", "16X", "1_000", "²", "16iB", "0x10"])
def test_not_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_words_behind_the_name() -> None:
    shape = profile("i386:vmalloc=4M:cpus=8:flags-per-call", 2 * MIB)
    assert shape.name == "i386:vmalloc=4M:cpus=8:flags-per-call"
    assert (shape.vmalloc_bytes, shape.cpus, shape.flags_per_call, shape.ram_bytes) == (4 * MIB, 8, True, 2 * MIB)
    assert profile("i386,vmalloc=4M") == profile("i386:vmalloc=4M")
    assert not profile("i386").flags_per_call and profile("i386").vmalloc_bytes == 128 * MIB


@pytest.mark.parametrize(
    "name",
    ["nommu-16m:vmalloc=4M", "i386:vmalloc=5", "i386:vmalloc=0", "i386:vmalloc=2G", "i386:cpus=0", "i386:cpus=x",
     "i386:fast", "i386:", "i386:flags-per-call=1", "i386:vmalloc=x"],
)  # fmt: skip
def test_words_that_make_no_sense(name: str) -> None:
    with pytest.raises(ValueError):
        profile(name)
