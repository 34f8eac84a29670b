"""Large temporary memory: contiguous first, mapped after, contiguous only where nothing can be mapped."""

from __future__ import annotations

import os

import pytest

from pocketxfs.errors import NoMemory
from pocketxfs.memory import NOFS, Machine, current_scope, profile

PAGE = 4096
MIB = 1 << 20

needs_memfd = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this host has no memfd")


def in_pieces(machine: Machine) -> list[int]:
    """Half of the memory in use, no two free pages together."""
    pages = machine.alloc_bulk(machine.free_bytes // PAGE - machine.watermarks.low - 4, "x")
    for page in pages:
        if page // PAGE % 2:
            machine.free_pages(page, 0)
    while machine.buddyinfo().split()[5:] != ["0"] * 10:
        machine.alloc_pages(1, "y", noretry=True)
    return pages


@pytest.mark.parametrize("name", ["x86_64", "i386", "nommu-16m"])
def test_contiguous_where_that_is_easy(name: str) -> None:
    with Machine(profile(name, 4 * MIB)) as machine:
        large = machine.kmem_alloc_large(69_000, "log")
        assert large.contiguous and len(large.data) == 69_000
        assert machine.owners() == {"log": 17 * PAGE}  # trimmed
        assert [len(piece) for piece in large.segments(0, 69_000)] == [69_000]
        large.data[68_999] = 7
        assert machine.map[large.offset + 68_999] == 7
        large.free()
        assert machine.owners() == {}
        with pytest.raises(ValueError, match="already"):
            large.free()


@needs_memfd
@pytest.mark.parametrize("name", ["x86_64", "i386"])
def test_mapped_where_memory_lies_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Machine(profile(name, 4 * MIB)) as machine:
        in_pieces(machine)
        scopes = []
        area = machine.vmalloc_area
        vmalloc = type(area).vmalloc

        def watched(self: object, nbytes: int, owner: str) -> int:
            scopes.append(current_scope())
            return vmalloc(area, nbytes, owner)

        monkeypatch.setattr(type(area), "vmalloc", watched)
        large = machine.kmem_alloc_large(69_000, "log")
        assert not large.contiguous and scopes == [NOFS] and current_scope() < NOFS
        assert machine.owners()["log"] == 17 * PAGE
        large.data[:] = bytes(number % 251 for number in range(69_000))
        pieces = large.segments(0, 69_000)
        assert [len(piece) for piece in pieces] == [PAGE] * 16 + [69_000 - 65_536]
        assert b"".join(pieces) == large.data
        assert b"".join(large.segments(5000, 20_000)) == large.data[5000:25_000]
        assert b"".join(large.segments(PAGE, PAGE)) == large.data[PAGE : 2 * PAGE]
        pieces[3][9] = 255
        assert large.data[3 * PAGE + 9] == 255
        large.free()
        assert "log" not in machine.owners()
        with pytest.raises(ValueError, match="already"):
            large.free()


def test_without_an_mmu_there_is_no_way_out() -> None:
    with Machine(profile("nommu-16m", 4 * MIB)) as machine:
        in_pieces(machine)
        assert machine.free_bytes > 40 * PAGE
        with pytest.raises(NoMemory, match="order 5.*fragmentation index"):
            machine.kmem_alloc_large(69_000, "log")
