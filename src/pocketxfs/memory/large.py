"""Large temporary memory, as XFS's kmem_alloc_large takes it: contiguous if that comes easily, else mapped together.

A contiguous run is tried once, without reclaim; then pages from anywhere are mapped side by side, inside a NOFS scope
so that their page tables are too (with `flags_per_call` the scope is missing, as it was before it was known to be
needed).  Where there is no vmalloc area, vmalloc is kmalloc: contiguous, with all that reclaim can do.

The run is trimmed to whole pages (kernel: kmalloc rounds up to a power of two), because what takes such memory here,
log buffers and staging buffers, is asked for once and kept for long.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..errors import NoMemory
from .frames import page_segments
from .scope import nofs
from .vmalloc import refusal

if TYPE_CHECKING:
    from .machine import Machine


class Large:
    """Memory in one piece: `data` is all of it.  `address` is -1 where it is contiguous, `offset` where it is not."""

    __slots__ = ("_machine", "address", "data", "nbytes", "offset")

    def __init__(self, machine: Machine, nbytes: int, offset: int, address: int) -> None:
        self._machine, self.nbytes, self.offset, self.address = machine, nbytes, offset, address
        if address < 0:
            self.data = machine.map[offset : offset + nbytes]
        else:
            self.data = machine.vmalloc_area.memory[address : address + nbytes]

    @property
    def contiguous(self) -> bool:
        """Whether its pages lie together in RAM too."""
        return self.address < 0

    def segments(self, start: int, nbytes: int) -> list[memoryview]:
        """What a bio takes for `nbytes` from byte `start`: one piece where contiguous, else one a page."""
        if self.address < 0:
            return [self.data[start : start + nbytes]]
        page_bytes = self._machine.page_bytes
        head = start % page_bytes
        pages = self._machine.vmalloc_area.pages_at(self.address + start, nbytes)
        found = page_segments(self._machine.map, pages, head + nbytes, page_bytes)
        found[0] = found[0][head:]
        return found

    def free(self) -> None:
        """Give it back.  Once only; views of it must not be used afterwards."""
        machine = self._machine
        if self.address >= 0:
            address, self.address = self.address, -1
            self.data.release()
            machine.vmalloc_area.vfree(address)
        elif self.offset >= 0:
            offset, self.offset = self.offset, -1
            self.data.release()
            machine.free_exact(offset, self.nbytes)
        else:
            raise ValueError("this memory has been given back already")
        self.offset = -1


def kmem_alloc_large(machine: Machine, nbytes: int, owner: str) -> Large:
    """Memory for `nbytes` in one piece.  Raises `NoMemory`."""
    if nbytes <= machine.page_bytes or refusal(machine) is not None:
        return Large(machine, nbytes, machine.alloc_exact(nbytes, owner), -1)
    try:
        return Large(machine, nbytes, machine.alloc_exact(nbytes, owner, noretry=True), -1)
    except NoMemory:
        pass  # vmalloc is what this is for
    with nullcontext() if machine.profile.flags_per_call else nofs():
        return Large(machine, nbytes, -1, machine.vmalloc_area.vmalloc(nbytes, owner))
