"""Where the bytes are: a file, a block device, a file object, a partition in one of them, an overlay over one of them.

`open_device` opens what the user names and finds the filesystem in it; `Device` is what the floors above see.  The
common path, a regular file, imports only `base`, `file` and `opening`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Device, slice_segments
from .opening import open_device

if TYPE_CHECKING:
    from .overlay import Overlay as Overlay
    from .partitions import Partition as Partition
    from .partitions import PartitionChoice as PartitionChoice
    from .partitions import partitions as partitions
else:
    _LATER = {
        "Overlay": "overlay",
        "Partition": "partitions",
        "PartitionChoice": "partitions",
        "partitions": "partitions",
    }

    def __getattr__(name: str) -> Any:
        home = _LATER.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


__all__ = ["Device", "Overlay", "Partition", "PartitionChoice", "open_device", "partitions", "slice_segments"]
