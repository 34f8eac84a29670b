"""The kernel's page table for the vmalloc area: real pages of the RAM, with real entries.

A page of entries is taken when an address that it covers is first mapped, and never given back, as in the kernel.  On
64-bit machines a page of the next level, which covers `ptes_per_page` of those, is taken likewise; the levels above it
are there from boot.  32-bit machines have only the one level below their directory.  An entry is the frame's offset
with bit 0 set (present).

Limits: entries are plain, without protection or accessed bits; arm's second copy of each table is not written.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import Machine

OWNER = "pagetable"


class PageTable:
    """Entries by page number of the area."""

    __slots__ = ("_code", "_machine", "_per", "_shift", "_tables", "_upper", "_upper_per", "_words", "_zeros", "pages")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        shape = machine.profile
        self._code = "Q" if shape.bits == 64 else "I"
        self._words: memoryview = machine.map.cast("Q") if shape.bits == 64 else machine.map.cast("I")
        self._shift = (shape.bits >> 3).bit_length() - 1
        self._per = shape.ptes_per_page
        self._upper_per = self._per if shape.bits == 64 else 0
        self._zeros = array(self._code, bytes(machine.page_bytes))
        #: Table number -> index of its first entry in `_words`.
        self._tables: dict[int, int] = {}
        self._upper: dict[int, int] = {}
        #: Pages that all levels take.
        self.pages = 0

    def populate(self, first: int, npages: int) -> None:
        """Have all tables for a range of pages.  GFP_KERNEL, whatever the caller asked.  Raises `NoMemory`."""
        per, tables = self._per, self._tables
        for number in range(first // per, (first + npages - 1) // per + 1):
            if number not in tables:
                upper = number // self._upper_per if self._upper_per else -1
                if upper >= 0 and upper not in self._upper:
                    self._upper[upper] = self._page()
                at = self._page()
                tables[number] = at

    def _page(self) -> int:
        # Reclaim may run here, and free what is mapped elsewhere; it never maps, so nobody else adds this table.
        at = self._machine.kernel_alloc(self._machine.page_bytes, OWNER) >> self._shift
        self._words[at : at + len(self._zeros)] = self._zeros
        self.pages += 1
        return at

    def set(self, first: int, frames: list[int]) -> None:
        """Make the pages from `first` on show these frames (byte offsets).  The tables must be there."""
        per, words, done = self._per, self._words, 0
        while done < len(frames):
            table, slot = divmod(first + done, per)
            some = min(per - slot, len(frames) - done)
            at = self._tables[table] + slot
            words[at : at + some] = array(self._code, [frame | 1 for frame in frames[done : done + some]])
            done += some

    def clear(self, first: int, npages: int) -> None:
        """Make a range of pages show nothing."""
        per, words = self._per, self._words
        while npages:
            table, slot = divmod(first, per)
            some = min(per - slot, npages)
            base = self._tables.get(table)
            if base is not None:
                words[base + slot : base + slot + some] = self._zeros[:some]
            first += some
            npages -= some

    def frames(self, first: int, npages: int) -> list[int]:
        """What a range of pages shows (kernel: vmalloc_to_page, for each): offsets of frames, -1 for nothing."""
        per, found = self._per, []
        for page in range(first, first + npages):
            base = self._tables.get(page // per)
            entry = 0 if base is None else self._words[base + page % per]
            found.append(entry - 1 if entry & 1 else -1)
        return found

    def close(self) -> None:
        """Give all tables back: the machine goes."""
        self._words.release()
        for at in (*self._tables.values(), *self._upper.values()):
            self._machine.kfree(at << self._shift)
        self._tables.clear()
        self._upper.clear()
        self.pages = 0
