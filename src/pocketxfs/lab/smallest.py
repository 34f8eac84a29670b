"""The smallest memory in which a cell still finishes, by bisection.

What survives with some memory is taken to survive with more; the size found and the one below it are both run, so that
the answer is at least locally true.  Sizes are multiples of `STEP_BYTES`.
"""

from __future__ import annotations

from typing import Any

from ..memory.profile import MIN_RAM_BYTES
from .cell import Spec, process, run

STEP_BYTES = 64 << 10
MOST_BYTES = 64 << 20


def smallest(spec: Spec) -> dict[str, Any]:
    """`smallest_bytes` (None where `MOST_BYTES` does not do), all that was `tried`, and `why` it is not one step less.

    `spec.memory` is not used.
    """
    tried: dict[int, bool] = {}
    why: dict[int, str] = {}
    refused: str | None = None

    def survives(units: int) -> bool:
        nonlocal refused
        if units not in tried:
            outcome = run(spec._replace(memory=str(units * STEP_BYTES)), pictures=False)
            refused = refused or outcome["refused"]
            tried[units] = outcome["survived"]
            if outcome["failure"]:
                why[units] = outcome["failure"]["error"]
        return tried[units]

    low, high = MIN_RAM_BYTES // STEP_BYTES, MIN_RAM_BYTES // STEP_BYTES
    while not survives(high) and not refused and high * STEP_BYTES < MOST_BYTES:
        low, high = high + 1, high * 2
    found = None
    if tried[high] and not refused:
        while low < high:
            middle = (low + high) // 2
            if survives(middle):
                high = middle
            else:
                low = middle + 1
        found = high * STEP_BYTES
    below = (found or 0) // STEP_BYTES - 1
    return {
        "spec": spec._asdict(),
        "refused": refused,
        "smallest_bytes": found,
        "tried": {units * STEP_BYTES: survived for units, survived in sorted(tried.items())},
        "why": why.get(below),
    }


if __name__ == "__main__":
    raise SystemExit(process(smallest))
