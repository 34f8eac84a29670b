"""CRC32C, from the library `crc32c`: its C function, without the package around it.

The package's `__init__` imports `importlib.metadata` (and with it `email`) to learn its own version: a third of the
start-up of `pocketxfs cat`, and 3 MB of every mount.  So the extension module is loaded by itself; where a release lays
its files out otherwise, the package is imported as usual.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
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


@cache
def with_own_field(nbytes: int, offset: int) -> tuple[list[int], ...]:
    """Four tables that judge a structure which holds its own checksum, with one call over all of it.

    A structure of `nbytes` with its checksum in the bytes c0 to c3 at `offset` is right where
    `crc32c(all) == t0[c0] ^ t1[c1] ^ t2[c2] ^ t3[c3]`.  For a CRC is linear: the checksum with the field filled is the
    one with the field zero, which must be the field's value, xor what the field alone adds.
    """
    blank = bytearray(nbytes)
    nothing = crc32c(blank)
    tables = []
    for place in range(4):
        bits = []
        for bit in range(8):
            blank[offset + place] = 1 << bit
            bits.append(crc32c(blank) ^ nothing ^ 1 << 8 * place + bit)
        blank[offset + place] = 0
        table = [0] * 256
        for value in range(1, 256):
            low = value & -value
            table[value] = table[value ^ low] ^ bits[low.bit_length() - 1]
        tables.append(table)
    return tuple(tables)
