"""CRC32C, from the library `crc32c`: its C function, without the package around it.

The package's `__init__` imports `importlib.metadata` (and with it `email`) to learn its own version: a third of the
start-up of `pocketxfs cat`, and 3 MB of every mount.  So the extension module is loaded by itself; where a release lays
its files out otherwise, the package is imported as usual.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder

Buffer = bytes | bytearray | memoryview


def _load() -> Callable[..., int]:
    package = sys.modules.get("crc32c")
    if package is None:
        outer = PathFinder.find_spec("crc32c")
        places = outer.submodule_search_locations if outer is not None else None
        inner = PathFinder.find_spec("crc32c._crc32c", list(places)) if places else None
        if inner is not None and inner.loader is not None:
            module = inner.loader.create_module(inner)
            if module is not None:
                inner.loader.exec_module(module)
                return module.crc32c  # type: ignore[no-any-return]
    from crc32c import crc32c as function

    return function


#: crc32c(data, value=0) -> int
crc32c = _load()
