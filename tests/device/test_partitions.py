"""Partition tables by hand: good ones, damaged ones, and what the library by itself would get wrong."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from struct import pack_into
from typing import Any
from uuid import UUID
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketxfs.device import Partition, PartitionChoice, open_device, partitions
from pocketxfs.errors import Corrupt, DeviceError, Error, NotXfs, Unsupported

from .images import XFS, gpt_entry, gpt_header, gpt_image, mbr, put, slot


def table(image: bytes | bytearray) -> list[Partition]:
    return partitions(open_device(io.BytesIO(image), whole=True))


def places(image: bytes | bytearray, unit: int = 512) -> list[tuple[int, float, float]]:
    return [(one.number, one.start_bytes / unit, one.size_bytes / unit) for one in table(image)]


# GPT


@pytest.mark.parametrize("sector_bytes", [512, 4096])
@pytest.mark.parametrize("entry_bytes", [128, 256, 136])
def test_gpt(sector_bytes: int, entry_bytes: int) -> None:
    entries = [
        gpt_entry(100, 199, "boot", UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B"), entry_bytes),
        bytes(entry_bytes),
        gpt_entry(200, 299, "a name of thirty-six units exactly..", size=entry_bytes),
        gpt_entry(300, 300, "größe", UUID(int=0x1234), entry_bytes),
    ]
    image = gpt_image(entries, 400, sector_bytes, entry_bytes)
    found = table(image)
    assert [(one.number, one.name, one.scheme) for one in found] == [
        (1, "boot", "GPT"),
        (3, "a name of thirty-six units exactly..", "GPT"),
        (4, "größe", "GPT"),
    ]
    assert [one.type for one in found] == [
        "EFI System partition",
        "Linux filesystem data",
        "GPT type 00000000-0000-0000-0000-000000001234",
    ]
    assert [(one.start_bytes, one.size_bytes) for one in found] == [
        (100 * sector_bytes, 100 * sector_bytes),
        (200 * sector_bytes, 100 * sector_bytes),
        (300 * sector_bytes, sector_bytes),
    ]
    put(image, 200 * sector_bytes, XFS)
    device = open_device(io.BytesIO(image))
    assert device.name == "<BytesIO>, partition 3"
    assert device.size_bytes == 100 * sector_bytes
    assert device.pread(0, 4) == XFS


@pytest.mark.parametrize("sector_bytes", [512, 4096])
@pytest.mark.parametrize("damage", ["header", "entries", "signature", "own address"])
def test_gpt_falls_back_to_its_second_copy(sector_bytes: int, damage: str) -> None:
    image = gpt_image([gpt_entry(100, 199, "one")], 400, sector_bytes)
    at = {"header": 40, "entries": sector_bytes + 3, "signature": 2, "own address": 24}[damage] + sector_bytes
    image[at] ^= 0xFF
    assert [one.name for one in table(image)] == ["one"]
    last = len(image) - sector_bytes
    image[last + 40] ^= 1
    with pytest.raises(Corrupt, match="GPT"):
        table(image)
    image[last] ^= 1
    image[sector_bytes] = 0
    with pytest.raises(Corrupt, match="signature"):
        table(image)


def test_gpt_without_its_protective_mbr_and_beside_an_mbr() -> None:
    image = gpt_image([gpt_entry(100, 199, "one")], 400)
    assert len(table(bytes(512) + image[512:])) == 1
    assert len(table(mbr() + image[512:])) == 1
    assert [one.scheme for one in table(mbr(slot(0x83, 50, 10)) + image[512:])] == ["MBR"]
    assert [one.scheme for one in table(mbr(slot(0x83, 50, 10), slot(0xEE, 1, 49)) + image[512:])] == ["GPT"]


@pytest.mark.parametrize(
    "name",
    [
        b"\x00\xd8",
        b"\xff\xfe" + "x".encode("utf-16-le"),
        b"o\0k\0\0\0\x00\xdc\x00\xdc",
        b"\xfe\xff" * 36,
    ],
)
def test_gpt_names_that_are_not_utf16(name: bytes) -> None:
    (found,) = table(gpt_image([gpt_entry(100, 199, name)], 400))
    assert found.start_bytes == 51200
    assert found.name.encode()


def with_header(change: Callable[[bytearray], None]) -> bytes:
    """An image whose two headers are changed, their CRCs made right again."""
    image = gpt_image([gpt_entry(100, 199)], 400)
    for at in (512, len(image) - 512):
        header = image[at : at + 512]
        change(header)
        header[16:20] = bytes(4)
        length = min(int.from_bytes(header[12:16], "little"), 512)
        header[16:20] = crc32(header[:length]).to_bytes(4, "little")
        image[at : at + 512] = header
    return bytes(image)


@pytest.mark.parametrize(
    ("fmt", "at", "value", "said"),
    [
        ("<I", 12, 91, "header size"),
        ("<I", 12, 513, "header size"),
        ("<I", 12, 0xFFFFFFFF, "header size"),
        ("<Q", 72, 1 << 60, "address of the entries"),
        ("<Q", 72, 399, "address of the entries"),
        ("<Q", 72, 3, "CRC of the entries"),
        ("<I", 80, 0xFFFFFFFF, "entries"),
        ("<I", 80, 127, "CRC of the entries"),
        ("<I", 84, 0xFFFFFFF8, "entries"),
        ("<I", 84, 0, "entries"),
        ("<I", 84, 64, "entries"),
        ("<I", 84, 129, "entries"),
        ("<I", 8, 0x00000005, "entries"),
    ],
)
def test_gpt_headers_that_cannot_be_true(fmt: str, at: int, value: int, said: str) -> None:
    image = with_header(lambda header: pack_into(fmt, header, at, value))
    with pytest.raises(Corrupt, match=said):
        table(image)
    with pytest.raises(NotXfs, match=f"partition table is damaged.*{said}"):
        open_device(io.BytesIO(put(bytearray(image), 1600, b"something")))


def test_gpt_entries_that_cannot_be_true_are_passed_over() -> None:
    image = gpt_image([gpt_entry(200, 100), gpt_entry(0, 5), gpt_entry(100, 1 << 60), gpt_entry(1 << 60, 1 << 61)], 400)
    put(image, 100 * 512, XFS)
    assert [one.number for one in table(image)] == [3, 4]
    assert open_device(io.BytesIO(image)).size_bytes == 300 * 512
    with pytest.raises(DeviceError, match="past the end"):
        open_device(io.BytesIO(image), partition=4)


def test_gpt_with_no_entries_in_use() -> None:
    image = gpt_image([], 400)
    assert table(image) == []
    with pytest.raises(NotXfs):
        open_device(io.BytesIO(image))
    header = gpt_header(b"", 1, 399, 2)
    assert table(put(gpt_image([], 400), 512, header)) == []


# MBR


def test_mbr_has_four_slots() -> None:
    """The library by itself reads three."""
    image = mbr(slot(0x0C, 10, 5, 0x80), slot(0x82, 20, 5), slot(0x83, 30, 5), slot(0x7E, 40, 5)).ljust(60 * 512, b"\0")
    assert places(image) == [(1, 10, 5), (2, 20, 5), (3, 30, 5), (4, 40, 5)]
    assert [one.type for one in table(image)] == ["FAT32X", "Linux Swap", "Linux", "MBR type 0x7e"]
    assert open_device(io.BytesIO(put(bytearray(image), 40 * 512, XFS))).size_bytes == 5 * 512


@pytest.mark.parametrize("unit", [512, 4096])
def test_mbr_logical_partitions(unit: int) -> None:
    """The extended one in the fourth slot, links far from their partitions, an empty first link."""
    image = bytearray(200 * unit)
    put(image, 0, mbr(slot(0x83, 10, 10), b"", b"").ljust(512, b"\0"))
    put(image, 0, mbr(slot(0x83, 10, 10), bytes(16), bytes(16), slot(0x05, 50, 150)))
    put(image, 50 * unit, mbr(bytes(16), slot(0x05, 10, 40)))
    put(image, 60 * unit, mbr(slot(0x83, 3, 5), slot(0x05, 50, 40)))
    put(image, 100 * unit, mbr(slot(0x83, 2, 30), slot(0x0F, 90, 40)))
    put(image, 140 * unit, mbr(slot(0x83, 1, 30), bytes(16)))
    put(image, 102 * unit, XFS)
    assert places(image, unit) == [(1, 10, 10), (4, 50, 150), (5, 63, 5), (6, 102, 30), (7, 141, 30)]
    device = open_device(io.BytesIO(image))
    assert (device.name, device.size_bytes) == ("<BytesIO>, partition 6", 30 * unit)
    assert open_device(io.BytesIO(image), partition=5).size_bytes == 5 * unit


def chain(*links: bytes) -> bytearray:
    """An extended partition at 20 whose links lie at 20, 40, 60, ..."""
    image = bytearray(400 * 512)
    put(image, 0, mbr(slot(0x0F, 20, 380)))
    for number, link in enumerate(links):
        put(image, (20 + 20 * number) * 512, link)
    return image


@pytest.mark.parametrize(
    ("image", "numbers"),
    [
        (chain(mbr(slot(0x83, 1, 5), slot(5, 0, 5))), [1, 5]),
        (chain(mbr(slot(0x83, 1, 5), slot(5, 20, 5)), mbr(slot(0x83, 1, 5), slot(5, 0, 5))), [1, 5, 6]),
        (chain(mbr(slot(0x83, 1, 5), slot(5, 20, 5)), b"no link"), [1, 5]),
        (chain(mbr(slot(0x83, 1, 5), slot(5, 0xFFFFFFFF, 5))), [1, 5]),
        (chain(mbr(slot(0x83, 1, 5), slot(0, 20, 5)), mbr(slot(0x83, 1, 5))), [1, 5]),
        (chain(mbr(slot(0x83, 1, 5), slot(5, 20, 0)), mbr(slot(0x83, 1, 5))), [1, 5]),
        (chain(mbr(slot(0x83, 1, 0xFFFFFFFF))), [1]),
        (chain(mbr(slot(5, 20, 5)), mbr(slot(0x83, 1, 5), slot(0x83, 9, 5))), [1, 5, 6]),
        (chain(), [1]),
    ],
    ids=["to itself", "a loop", "nowhere", "off the end", "type 0", "no sectors", "too long", "first slot", "empty"],
)
def test_mbr_chains_that_cannot_be_true_end(image: bytearray, numbers: list[int]) -> None:
    assert [one.number for one in table(image)] == numbers


def test_mbr_chains_have_a_bound() -> None:
    """The library by itself follows one by recursion until Python's stack ends."""
    image = bytearray(3000 * 512)
    put(image, 0, mbr(slot(5, 1, 2999)))
    for lba in range(1, 2999):
        put(image, lba * 512, mbr(slot(0x83, 1, 1), slot(5, lba, 1)))
    assert len(table(image)) == 257


def test_what_only_looks_like_an_mbr() -> None:
    fat = bytearray(random.Random(7).randbytes(64 * 512))
    fat[510:512] = b"\x55\xaa"
    fat[446] = 0x17
    assert table(fat) == []
    assert table(bytes(510) + b"\x55\xaa" + bytes(1024)) == []
    assert table(b"") == table(b"\x55\xaa") == table(bytes(1 << 16)) == []


# Finding the filesystem


def two_filesystems() -> bytearray:
    image = gpt_image([gpt_entry(100, 199, "root"), gpt_entry(200, 299), gpt_entry(300, 350, "home")], 400)
    return put(put(image, 51200, XFS), 300 * 512, XFS)


def test_several_must_be_chosen_from() -> None:
    with pytest.raises(PartitionChoice) as caught:
        open_device(io.BytesIO(two_filesystems()))
    assert isinstance(caught.value, Unsupported)
    assert [one.number for one in caught.value.partitions] == [1, 3]
    assert "1 (51200 bytes, Linux filesystem data, 'root'), 3 (26112 bytes," in str(caught.value)
    assert open_device(io.BytesIO(two_filesystems()), partition=3).size_bytes == 51 * 512
    assert open_device(io.BytesIO(two_filesystems()), partition=2).size_bytes == 51200
    with pytest.raises(NotXfs, match=r"no partition 4; 1 \(51200 bytes.*2 \(.*3 \("):
        open_device(io.BytesIO(two_filesystems()), partition=4)
    with pytest.raises(NotXfs, match="no partition table"):
        open_device(io.BytesIO(bytes(5000)), partition=1)
    with pytest.raises(Unsupported, match="one of them only"):
        open_device(io.BytesIO(two_filesystems()), partition=1, offset=5)


def test_xfs_at_the_beginning_is_the_whole_device() -> None:
    image = put(two_filesystems(), 0, XFS)
    assert open_device(io.BytesIO(image)).size_bytes == len(image)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"XF", "not XFS|no XFS"),
        (bytes(100_000), "zeros only"),
        (b"QFI\xfb\0\0\0\3", "qcow2.*qemu-img"),
        (b"\x1f\x8b\x08" + bytes(3000), "gzip.*decompress"),
        (b"KDMV\1", "VMDK"),
        (b"XFSM" + bytes(2000), "xfs_mdrestore"),
        (bytes(1080) + b"\x53\xef" + bytes(2000), "ext2, ext3 or ext4"),
        (bytes(65600) + b"_BHRfS_M", "btrfs"),
        (b"\xfe\xed\xba\xbe", "XFS log"),
        (b"#!/bin/sh\n" * 300, "no XFS filesystem"),
    ],
)
def test_a_mistake_is_named(content: bytes, said: str) -> None:
    with pytest.raises(NotXfs, match=said):
        open_device(io.BytesIO(content))


def test_what_the_partitions_hold_is_named() -> None:
    image = gpt_image([gpt_entry(100, 149), gpt_entry(150, 199), gpt_entry(200, 299)], 400)
    put(image, 100 * 512 + 1080, b"\x53\xef")
    put(image, 150 * 512 + 536, b"LVM2 001")
    put(image, 200 * 512, b"who knows")
    with pytest.raises(NotXfs) as caught:
        open_device(io.BytesIO(image))
    for said in (
        "partition 1 is an ext2, ext3 or ext4 filesystem",
        "partition 2 is an LVM2 physical volume",
        "partition 3 is not known (Linux filesystem data)",
    ):
        assert said in str(caught.value)


def test_without_the_library_an_offset_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyreadpartitions", None)
    with pytest.raises(Unsupported, match="give the offset"):
        open_device(io.BytesIO(two_filesystems()))
    assert open_device(io.BytesIO(two_filesystems()), offset=51200).pread(0, 4) == XFS


def test_whatever_the_library_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyreadpartitions

    def broken(*_: Any, **__: Any) -> None:
        raise AttributeError("'NoneType' object has no attribute 'lba'")

    monkeypatch.setattr(pyreadpartitions, "read_gpt_partitions", broken)
    monkeypatch.setattr(pyreadpartitions, "read_mbr_partitions", broken)
    for image in (gpt_image([gpt_entry(100, 199)], 400), chain(mbr(slot(0x83, 1, 5)))):
        with pytest.raises(Corrupt, match="NoneType"):
            table(image)


# Fuzz: any bytes give a list or our error.

SEEDS = [
    bytes(gpt_image([gpt_entry(100, 199, "one"), gpt_entry(200, 299)], 300)),
    bytes(gpt_image([gpt_entry(10, 19, "one")], 60, 4096)),
    bytes(chain(mbr(slot(0x83, 1, 5), slot(5, 20, 5)), mbr(slot(0x83, 1, 5)))),
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.one_of(st.integers(0, 1100), st.integers(0, 30_000)), st.binary(min_size=1, max_size=8))),
    st.booleans(),
    st.integers(0, 200_000),
)
def test_any_bytes(seed: bytes, changes: list[tuple[int, bytes]], repair: bool, length: int) -> None:
    image = bytearray(seed)
    for at, data in changes:
        image[at : at + len(data)] = data
    if repair:
        for at in (512, 4096):
            if image[at : at + 8] == b"EFI PART":
                size = min(int.from_bytes(image[at + 12 : at + 16], "little"), 4096)
                image[at + 16 : at + 20] = bytes(4)
                image[at + 16 : at + 20] = crc32(image[at : at + size]).to_bytes(4, "little")
    del image[max(length, 1000) :]
    try:
        found = table(image)
        assert len(found) <= 1024
        assert all(one.start_bytes >= 0 and one.size_bytes > 0 for one in found)
        open_device(io.BytesIO(image))
    except Error as error:
        assert str(error)
