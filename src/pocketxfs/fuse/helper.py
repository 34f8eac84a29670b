"""`mount.fuse.pocketxfs IMAGE DIR [-o OPTIONS]`: what mount(8) and fstab run; and lklfuse's way of being called.

mount(8) calls a program of this name in /sbin for `-t fuse.pocketxfs`, else mount.fuse3, which runs `pocketxfs IMAGE
DIR -o OPTIONS`: `is_direct` tells such a command line from a verb's.  Source: mount(8), "External helpers".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Sequence

from ..errors import Error
from .options import MountOptions

EXIT_USAGE, EXIT_FAILED = 1, 32
USAGE = "usage: mount.fuse.pocketxfs IMAGE DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTIONS]"


def is_direct(argv: Sequence[str], verbs: Container[str]) -> bool:
    """Whether a command line of `pocketxfs` is `IMAGE DIR -o OPTIONS`, as mount.fuse3 calls it."""
    return (
        len(argv) >= 2
        and argv[0] not in verbs
        and not argv[0].startswith("-")
        and os.path.exists(argv[0])
        and not os.path.isdir(argv[0])
        and os.path.isdir(argv[1])
        and (len(argv) == 2 or argv[2].startswith("-"))
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The helper's exit code, as mount(8) reads it."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = MountOptions()
    operands: list[str] = []
    fake = False
    try:
        while words:
            word = words.pop(0)
            if word.startswith("-o"):
                text = word[2:] or (words.pop(0) if words else "")
                options.take(text)
            elif word == "-N" or word == "-t":
                if words:
                    words.pop(0)
            elif word.startswith("-") and len(word) > 1 and not word.strip("-sfnv"):
                fake = fake or "f" in word
            else:
                operands.append(word)
        if len(operands) != 2:
            print(USAGE, file=sys.stderr)
            return EXIT_USAGE
        if fake:
            return 0
        from .daemon import mount

        for note in options.notes:
            print(f"pocketxfs: {operands[0]}: {note}", file=sys.stderr)
        mount(operands[0], operands[1], options)
    except Error as error:
        print(f"pocketxfs: {error}", file=sys.stderr)
        return EXIT_USAGE if error.exit_code == 2 else EXIT_FAILED
    except OSError as error:
        name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        print(f"pocketxfs: {name}{error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
