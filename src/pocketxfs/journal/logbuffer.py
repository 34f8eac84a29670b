"""The buffer that log records are read into during recovery (kernel: xlog_alloc_buffer): real memory of the machine.

It is taken as kmem_alloc_large takes it, grows to the largest record that the log turns out to hold, and goes when
recovery is through.  A bio gets its pages: one segment where it is contiguous, one a page where it is not.
"""

from __future__ import annotations

from ..memory import Machine
from ..memory.large import Large

OWNER = "log"
LEAST_BYTES = 32 << 10


class LogBuffer:
    """A buffer for one read at a time."""

    __slots__ = ("_large", "_machine")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._large: Large | None = None

    def room(self, nbytes: int) -> Large:
        """The buffer, of `nbytes` at least.  What it held is gone.  Raises `NoMemory`."""
        large = self._large
        if large is None or large.nbytes < nbytes:
            self.free()
            large = self._large = self._machine.kmem_alloc_large(
                max(LEAST_BYTES, 1 << (nbytes - 1).bit_length()), OWNER
            )
        return large

    def free(self) -> None:
        """Give it back."""
        large, self._large = self._large, None
        if large is not None:
            large.free()
