"""`df`: space and inodes as the kernel's statfs counts them."""

from __future__ import annotations

import os

from .common.args import Option
from .common.text import escaped, human
from .run import Run

USAGE = "[-hi] IMAGE ..."
OPTIONS = (
    Option(("-h", "--human-readable"), "human", "sizes as 1.1K, 2.0M"),
    Option(("-i", "--inodes"), "inodes", "inodes instead of space"),
    Option(("-k",), "kib", "in KiB, as it is anyway"),
)


def run(run: Run) -> None:
    """One line an image."""
    inodes, as_json = run.args.inodes, run.args.json
    size = human if run.args.human else str
    space = human if run.args.human else lambda nbytes: str(-(-nbytes >> 10))
    if inodes:
        rows = [("Filesystem", "Inodes", "IUsed", "IFree", "IUse%")]
    else:
        rows = [("Filesystem", "Size" if run.args.human else "1K-blocks", "Used", "Available", "Use%")]
    documents = []
    for target, fs, _ in run.each(follow=True, root_only=True):
        whole = fs.statvfs()
        run.done += 1
        unit = whole.f_frsize
        documents.append({
            "image": target.image, "block_bytes": unit, "blocks": whole.f_blocks, "free_blocks": whole.f_bfree,
            "available_blocks": whole.f_bavail, "files": whole.f_files, "free_files": whole.f_ffree,
        })  # fmt: skip
        name = escaped(os.fsencode(target.image))
        if inodes:
            used = whole.f_files - whole.f_ffree
            rows.append((name, size(whole.f_files), size(used), size(whole.f_ffree), _percent(used, whole.f_ffree)))
        else:
            used = whole.f_blocks - whole.f_bfree
            total, free = whole.f_blocks * unit, whole.f_bavail * unit
            rows.append((name, space(total), space(used * unit), space(free), _percent(used, whole.f_bavail)))
    if as_json:
        from .common.jsonout import document

        document(run, filesystems=documents, failed=run.failed)
    elif documents:
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        for row in rows:
            text = f"{row[0]:<{widths[0]}}" + "".join(
                f" {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)
            )
            run.out.write(text.encode() + b"\n")


def _percent(used: int, free: int) -> str:
    """Used of what can be used, rounded up."""
    return f"{-(-used * 100 // (used + free))}%" if used + free > 0 else "-"
