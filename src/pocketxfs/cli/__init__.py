"""The command line: `pocketxfs VERB [options] IMAGE[:PATH] ...` (also `pxfs`, `python -m pocketxfs`).

`main` reads the verb, imports its module and nothing else of the kind, and turns what happens into an exit code:
0 done, 1 some failed, 2 usage, 3 corrupt, 4 unsupported, 5 no memory; 130 interrupted, 141 the reader went away.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    from .command import command

    return command(list(sys.argv[1:] if argv is None else argv))
