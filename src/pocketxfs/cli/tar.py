"""`tar`: a tree as a PAX archive that streams, with all that GNU tar can put back.

    pocketxfs tar IMAGE:/srv | tar -x --xattrs --xattrs-include='*' --acls

Members are named as tar names them: the path without its leading slash, `./` for the root's.  Sockets are left out
with a note, as tar does.  A file that turns out unreadable half way is filled up with zeros, and named.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from ..errors import posix
from .common import attributes, pax
from .common.args import Option, UsageError
from .common.links import Links
from .common.output import Writer
from .common.text import device_numbers, is_terminal
from .common.walk import ENTRY, Walk
from .run import Run

if TYPE_CHECKING:
    from ..filesystem import FileSystem
    from ..inode import Inode

USAGE = "[-v] [-o FILE] IMAGE[:PATH] ..."
ABOUT = """The archive goes to standard output unless -o names a file."""
OPTIONS = (
    Option(("-o", "-f", "--output"), "output", "where the archive goes", "FILE"),
    Option(("-v", "--verbose"), "verbose", "name each member on standard error"),
)
_IFMT, _DIR, _REG, _LNK = 0o170000, 0o040000, 0o100000, 0o120000
_CHR, _BLK, _FIFO, _SOCK = 0o020000, 0o060000, 0o010000, 0o140000
_KINDS = {
    _REG: pax.REGULAR, _LNK: pax.SYMLINK, _CHR: pax.CHAR, _BLK: pax.BLOCK_DEVICE, _FIFO: pax.FIFO,
    _DIR: pax.DIRECTORY,
}  # fmt: skip
_DATA = 1
_ACL_KEYS = {attributes.ACL_ACCESS: b"SCHILY.acl.access", attributes.ACL_DEFAULT: b"SCHILY.acl.default"}


def run(run: Run) -> None:
    """Write the archive."""
    output = run.args.output
    if output in (None, "-"):
        if run.args.json:
            raise UsageError("tar: --json needs -o FILE, standard output is the archive")
        if is_terminal(sys.stdout):
            raise UsageError("tar: an archive does not go to a terminal (-o FILE)")
        _archive(run, run.out)
        return
    targets = run.targets()
    if os.path.exists(output) and any(
        os.path.exists(target.image) and os.path.samefile(output, target.image) for target in targets
    ):
        raise UsageError(f"tar: {output} is the image itself")
    complete = False
    with open(output, "wb", buffering=0) as file:
        try:
            _archive(run, file)
            complete = True
        finally:
            if not complete and os.path.isfile(output):
                os.unlink(output)
    if run.args.json:
        from .common.jsonout import document

        document(run, archive=output, members=run.done, failed=run.failed)


def _archive(run: Run, out: BinaryIO) -> None:
    with Writer(out) as writer:
        tape = _Tape(run, writer)
        image = None
        try:
            for target, fs, inode in run.each(follow=False):
                if image != target.image:
                    image = target.image
                    tape.links.close()
                    tape.links = Links()
                path = target.path.rstrip(b"/")
                tape.tree(fs, inode, path or b"/", path[1:] if path else b".")
        finally:
            tape.links.close()
        writer.zeros(2 * pax.BLOCK)
        writer.zeros(-writer.written % pax.RECORD)


class _Tape:
    def __init__(self, run: Run, writer: Writer) -> None:
        self.run, self.writer = run, writer
        self.links = Links()
        self.progress = run.progress("tar")

    def tree(self, fs: FileSystem, top: Inode, source: bytes, name: bytes) -> None:
        """Something, and all below it."""
        if not self.add(fs, top, source, name) or not top.is_dir:
            return
        prefix = source if source.endswith(b"/") else source + b"/"
        start, below = len(prefix), name + b"/"
        read, tick = fs.trusted_inode, self.progress.tick
        self.progress.expect(fs, top)
        walk = Walk(fs, top.ino, prefix, self.run.fail)
        for event, entry, ino, _ in walk:
            if event != ENTRY:
                continue
            tick()
            path = walk.prefix + entry
            try:
                if b"/" in entry or b"\0" in entry or not entry:
                    raise posix(errno.EINVAL, entry)
                inode = read(ino)
                folder = inode.mode & _IFMT == _DIR
                if folder:
                    walk.check(ino)
            except OSError as error:
                self.run.fail(path, error)
                continue
            if self.add(fs, inode, path, below + path[start:]) and folder:
                try:
                    walk.descend(entry, ino)
                except OSError as error:
                    self.run.fail(path, error)

    def add(self, fs: FileSystem, inode: Inode, source: bytes, name: bytes) -> bool:
        """One member; False where it could not be added."""
        writer, run = self.writer, self.run
        begun = writer.written
        try:
            self._add(fs, inode, source, name)
        except OSError as error:
            if writer.broken:
                raise
            run.fail(source, error)
            if writer.written == begun:
                self.links.forget(inode.ino)
                return False
            return True
        if run.args.verbose:
            run.note(name, "added")
        run.done += 1
        return True

    def _add(self, fs: FileSystem, inode: Inode, source: bytes, name: bytes) -> None:
        kind = inode.mode & _IFMT
        if kind == _SOCK:
            self.run.note(source, "a socket, left out")
            return
        member = pax.Member(name + b"/" if kind == _DIR else name, _KINDS[kind])
        member.mode, member.uid, member.gid = inode.mode, inode.uid, inode.gid
        member.mtime_ns, member.atime_ns, member.ctime_ns = inode.mtime_ns, inode.atime_ns, inode.ctime_ns
        if inode.nlink > 1 and kind != _DIR:
            first = self.links.meet(inode.ino, inode.nlink, name)
            if first is not None:
                member.kind, member.linkname = pax.LINK, first
                self.writer.write(pax.headers(member))
                return
        if kind == _LNK:
            member.linkname = fs.readlink_inode(inode)
        elif kind in (_CHR, _BLK):
            member.major, member.minor = device_numbers(inode.rdev)
        for attribute, value in attributes.of(fs, inode):
            key = _ACL_KEYS.get(attribute)
            if key is not None:
                member.records.append((key, attributes.acl_text(value, f"inode {inode.ino}").encode()))
            else:
                member.records.append((b"SCHILY.xattr." + attribute.replace(b"%", b"%25").replace(b"=", b"%3D"), value))
        if kind == _REG:
            self._regular(fs, inode, source, member)
        else:
            self.writer.write(pax.headers(member))

    def _regular(self, fs: FileSystem, inode: Inode, source: bytes, member: pax.Member) -> None:
        writer, size = self.writer, inode.size
        if not self._has_holes(fs, inode):
            member.size = size
            writer.write(pax.headers(member))
            self._data(fs, inode, source, ((0, size),), size)
            return
        sparse = pax.SparseMap(_runs(fs, inode))
        name = member.name
        head, slash, tail = name.rpartition(b"/")
        member.name = head + slash + b"GNUSparseFile.0/" + tail
        member.records += [
            (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % size),
        ]  # fmt: skip
        member.size = sparse.member_bytes
        writer.write(pax.headers(member))
        sparse.write(_runs(fs, inode), writer)
        self._data(fs, inode, source, _runs(fs, inode), sparse.data_bytes)

    @staticmethod
    def _has_holes(fs: FileSystem, inode: Inode) -> bool:
        return any(piece.state != _DATA for piece in fs.map(inode, 0, inode.size))

    def _data(
        self, fs: FileSystem, inode: Inode, source: bytes, runs: Iterator[tuple[int, int]] | tuple[tuple[int, int]],
        promised: int,
    ) -> None:  # fmt: skip
        """So many bytes as the header has promised, whatever happens, and the padding."""
        writer = self.writer
        left = promised
        try:
            for offset, nbytes in runs:
                end = offset + nbytes
                while offset < end:
                    count = writer.fill(fs, inode, offset, end - offset)
                    offset += count
                    left -= count
        except OSError as error:
            if writer.broken:
                raise
            self.run.fail(source, error)
            self.run.note(source, f"{left} bytes in the archive are zeros in place of what could not be read")
        writer.zeros(left + pax.padding(promised))


def _runs(fs: FileSystem, inode: Inode) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of the data of a file; an empty run at the end where it ends in a hole, as GNU tar wants."""
    end = begin = 0
    for piece in fs.map(inode, 0, inode.size):
        if piece.state != _DATA:
            continue
        if piece.file_offset != end:
            if end > begin:
                yield begin, end - begin
            begin = piece.file_offset
        end = piece.file_offset + piece.nbytes
    if end > begin:
        yield begin, end - begin
    if end != inode.size:
        yield inode.size, 0
