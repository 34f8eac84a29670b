"""The buffer cache (DESIGN: "Buffers have one interface and several backings").

    cache = BufferCache(machine, device, geo, backing="contiguous")
    with cache.read(daddr, nbytes, OPS) as buf:     # held, verified; a `format.block.Block`
        ...

Nothing above this floor knows which backing is in use.
"""

from .backing import BACKINGS, Backing
from .buffer import Buffer
from .cache import BUFFER_CHARGE_BYTES, BufferCache
from .ops import BufferOps

__all__ = ["BACKINGS", "BUFFER_CHARGE_BYTES", "Backing", "Buffer", "BufferCache", "BufferOps"]
