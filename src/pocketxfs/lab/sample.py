"""What the memory looks like over time: indexes, space, and a picture of every page.

A workload calls `tick` after each of its steps; how many there will be is not known before, so samples are taken ever
further apart: when there are twice as many as wanted, every other one is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..memory.buddy import NR_ORDERS, fragmentation_index, unusable_index

if TYPE_CHECKING:
    from ..memory import Machine

#: Samples that are kept: at least this many of a long run, less than twice as many.
WANTED = 96
#: Orders that are followed: an inode cluster, a directory block, remote attributes.
ORDERS = (2, 4, 5)


class Sampler:
    """Samples of one machine.  `series` is a list of dicts, `pictures` one row of owner numbers each."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.steps = 0
        self._every = 1
        self.series: list[dict[str, Any]] = []
        self.pictures: list[bytes] = []
        self.take()

    def tick(self) -> None:
        """One step is done."""
        self.steps += 1
        if self.steps % self._every == 0:
            self.take()
            if len(self.series) >= 2 * WANTED:
                del self.series[1::2], self.pictures[1::2]
                self._every *= 2

    def take(self) -> None:
        """A sample, now."""
        machine = self.machine
        counts = machine.free_blocks()
        area = machine.vmalloc_if_used
        self.series.append(
            {
                "step": self.steps,
                "free_pages": sum(count << order for order, count in enumerate(counts)),
                "fragmentation_index": {order: fragmentation_index(counts, order) for order in ORDERS},
                "unusable_index": {order: unusable_index(counts, order) for order in ORDERS},
                "largest_order": max((order for order in range(NR_ORDERS) if counts[order]), default=-1),
                "vmalloc_bytes": 0 if area is None else (area.busy_pages + area.lazy_pages) * machine.page_bytes,
                "reclaimed_pages": machine.reclaim.pages,
            }
        )
        self.pictures.append(machine.page_owners()[1])
