"""The RAM itself."""

from __future__ import annotations

import mmap
import os

import pytest

from pocketxfs.memory import Frames


@pytest.mark.parametrize("use_memfd", [True, False])
def test_all_of_it_can_be_written(use_memfd: bool) -> None:
    frames = Frames(1 << 20, use_memfd=use_memfd)
    assert len(frames.map) == 1 << 20 and not frames.map.readonly
    frames.map[0] = frames.map[-1] = 7
    assert bytes(frames.map[:2]) == b"\7\0"
    frames.close()
    frames.close()


def test_without_memfd_only_double_mapping_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    frames = Frames(1 << 20)
    assert frames.fd is None and not frames.double_map
    frames.map[:5] = b"hello"
    frames.close()


def test_a_forbidden_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(name: str) -> int:
        raise PermissionError(name)

    monkeypatch.setattr(os, "memfd_create", forbidden, raising=False)
    frames = Frames(1 << 20)
    assert frames.fd is None
    frames.close()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this host has no memfd")
def test_a_page_can_be_mapped_twice() -> None:
    frames = Frames(1 << 20)
    assert frames.fd is not None
    with mmap.mmap(frames.fd, mmap.PAGESIZE, offset=mmap.ALLOCATIONGRANULARITY) as again:
        frames.map[mmap.ALLOCATIONGRANULARITY] = 42
        assert again[0] == 42
    frames.close()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this host has no memfd")
def test_memory_is_taken_when_it_is_touched() -> None:
    frames = Frames(8 << 20)
    assert frames.fd is not None
    assert os.fstat(frames.fd).st_blocks == 0
    frames.map[4096] = 1
    assert os.fstat(frames.fd).st_blocks * 512 <= mmap.PAGESIZE
    frames.close()


def test_a_view_that_is_held_outlives_close() -> None:
    frames = Frames(1 << 20)
    held = frames.map[4096:8192]
    held[0] = 9
    frames.close()
    assert held[0] == 9


def test_whole_pages_only() -> None:
    with pytest.raises(ValueError):
        Frames(4097)
    with pytest.raises(ValueError):
        Frames(0)
