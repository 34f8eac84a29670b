"""`du`: the space that trees take, each inode counted once however many names it has.

Only the sums of the directories on the way down are kept, and a bounded account of inodes with several names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .common.args import Option, number
from .common.links import Links
from .common.text import human, named
from .common.walk import ENTRY, Walk
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode
    from .common.jsonout import JsonList

USAGE = "[-ashbclk] [-d N] IMAGE[:PATH] ..."
ABOUT = """In KiB unless told otherwise; directories come after what is in them."""
OPTIONS = (
    Option(("-a", "--all"), "all", "files too"),
    Option(("-s", "--summarize"), "summarize", "the operands only"),
    Option(("-h", "--human-readable"), "human", "sizes as 1.1K, 2.0M"),
    Option(("--apparent-size",), "apparent", "sizes of files instead of space on the disk"),
    Option(("-b", "--bytes"), "nbytes", "apparent sizes in bytes"),
    Option(("-c", "--total"), "total", "a sum at the end"),
    Option(("-l", "--count-links"), "links", "every name of an inode counted"),
    Option(("-d", "--max-depth"), "depth", "show directories down to this depth", "N", number),
    Option(("-k",), "kib", "in KiB, as it is anyway"),
)
_DIR, _REG, _LNK = 0o040000, 0o100000, 0o120000


class _Counter:
    def __init__(self, run: Run, json: JsonList | None) -> None:
        args = run.args
        self.run, self.json = run, json
        self.apparent = bool(args.apparent or args.nbytes)
        self.depth = 0 if args.summarize else args.depth
        self.links = Links()
        self.progress = run.progress("du")

    def size(self, inode: Inode) -> int:
        """Bytes that an inode counts for."""
        if not self.apparent:
            return inode.nblocks * inode.geo.block_bytes
        return inode.size if inode.kind in (_REG, _LNK) else 0

    def counted(self, inode: Inode) -> int | None:
        """Its bytes; None where another name of it was counted."""
        several = inode.nlink > 1 and not inode.is_dir and not self.run.args.links
        if several and self.links.meet(inode.ino, inode.nlink, b"") is not None:
            return None
        return self.size(inode)

    def show(self, path: bytes, nbytes: int) -> None:
        """One line."""
        run = self.run
        if self.json is not None:
            self.json.add({**named("path", path), "bytes": nbytes})
            return
        if run.args.nbytes:
            text = str(nbytes)
        else:
            text = human(nbytes) if run.args.human else str(-(-nbytes >> 10))
        run.out.write(text.encode() + b"\t" + run.name(path) + b"\n")

    def tree(self, fs: FileSystem, top: Inode, path: bytes) -> int:
        """All of a tree; its bytes."""
        run, read = self.run, fs.trusted_inode
        show_files, deepest = run.args.all, self.depth
        prefix = path if path.endswith(b"/") else path + b"/"
        sums = [self.size(top)]
        self.progress.expect(fs, top)
        walk = Walk(fs, top.ino, prefix, run.fail)
        for event, name, ino, _ in walk:
            if event == ENTRY:
                self.progress.tick()
                try:
                    inode = read(ino)
                    if inode.mode & 0o170000 == _DIR:
                        walk.descend(name, ino)
                        sums.append(self.size(inode))
                        continue
                    nbytes = self.counted(inode)
                except OSError as error:
                    run.fail(walk.prefix + name, error)
                    continue
                if nbytes is not None:
                    sums[-1] += nbytes
                    if show_files and (deepest is None or walk.depth <= deepest):
                        self.show(walk.prefix + name, nbytes)
            else:
                nbytes = sums.pop()
                if sums:
                    sums[-1] += nbytes
                    if deepest is None or walk.depth - 1 <= deepest:
                        self.show(walk.prefix[:-1], nbytes)
                else:
                    self.show(path, nbytes)
                    return nbytes
        return 0


def run(run: Run) -> None:
    """Each operand, and the sum if asked."""
    json = None
    if run.args.json:
        from .common.jsonout import JsonList

        json = JsonList(run, "entries")
    counter = _Counter(run, json)
    total = 0
    image = None
    try:
        for target, fs, inode in run.each(follow=False):
            if image != target.image:
                counter.links.close()
                counter.links = Links()
                image = target.image
            path = target.path.rstrip(b"/") or b"/"
            run.done += 1
            if inode.is_dir:
                total += counter.tree(fs, inode, path)
            else:
                nbytes = counter.counted(inode)
                if nbytes is not None:
                    counter.show(path, nbytes)
                    total += nbytes
    finally:
        counter.links.close()
    if json is not None:
        json.end(total_bytes=total)
    elif run.args.total:
        counter.show(b"total", total)
