"""A digest of a file's contents that does not depend on where its holes are.

Contents are cut in chunks of 64 KiB; chunks that are all zeros are left out, the others are hashed with their offset,
and the size last.  So a reader may skip holes or read them, and gets one answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

CHUNK = 65536
_ZEROS = bytes(CHUNK)
#: Files above this are read by their data segments only; smaller ones whole, holes as the zeros they must read as.
WHOLE_BELOW = 16 << 20


def segments(size: int, seek_data: Callable[[int], int], seek_hole: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Chunk-aligned (start, end) that cover the data of a file; `seek_data` raises OSError past the last."""
    at = 0
    while at < size:
        try:
            start = seek_data(at)
        except OSError:
            return
        end = min(size, -(-seek_hole(start) // CHUNK) * CHUNK)
        start = max(at, start // CHUNK * CHUNK)
        yield start, end
        at = end


def digest(size: int, pread: Callable[[int, int], bytes], parts: Iterator[tuple[int, int]]) -> str:
    """The digest.  `pread(nbytes, offset)` must give all that is asked for."""
    state = hashlib.sha256()
    for start, end in parts:
        for at in range(start, end, CHUNK):
            wanted = min(CHUNK, end - at)
            data = pread(wanted, at)
            if len(data) != wanted:
                raise AssertionError(f"{len(data)} bytes of {wanted} at {at}")
            if data != _ZEROS[:wanted]:
                state.update(at.to_bytes(8, "big") + data)
    state.update(size.to_bytes(8, "big"))
    return state.hexdigest()
