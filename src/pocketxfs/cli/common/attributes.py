"""Extended attributes on their way out: which are copied, and POSIX ACLs as text."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING

from ...errors import Corrupt

if TYPE_CHECKING:
    from ...filesystem import FileSystem
    from ...inode import Inode

ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"
#: XFS shows the ACLs a second time in its own form; a copy of it would mean nothing anywhere else.
_SHOWN_TWICE = frozenset((b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"))

#: struct posix_acl_xattr_header, struct posix_acl_xattr_entry.
_HEAD = Struct("<I")
_ENTRY = Struct("<HHI")
ACL_VERSION = 2
_TAGS = {1: "user", 2: "user", 4: "group", 8: "group", 16: "mask", 32: "other"}
_NAMED = (2, 8)


def of(fs: FileSystem, inode: Inode) -> Iterator[tuple[bytes, bytes]]:
    """(name, value) of each attribute that a copy should have."""
    for name, _ in fs.xattrs(inode):
        if name not in _SHOWN_TWICE:
            yield name, fs.xattr(inode, name)


def has_acl(fs: FileSystem, inode: Inode) -> bool:
    """Whether there is an ACL beyond the mode; damaged attributes count as none (whoever reads them is told)."""
    try:
        return any(name in (ACL_ACCESS, ACL_DEFAULT) for name, _ in fs.xattrs(inode))
    except Corrupt:
        return False


def acl_text(value: bytes, where: str) -> str:
    """An ACL in the short text form of acl(5), owners as numbers, one entry a line.  Raises `Corrupt`."""
    if len(value) < _HEAD.size or (len(value) - _HEAD.size) % _ENTRY.size or _HEAD.unpack_from(value)[0] != ACL_VERSION:
        raise Corrupt("ACL", where, "form", "version 2 and whole entries", f"{len(value)} bytes")
    lines = []
    for tag, permissions, owner in _ENTRY.iter_unpack(value[_HEAD.size :]):
        if tag not in _TAGS:
            raise Corrupt("ACL", where, "tag", "a known one", tag)
        letters = "".join(letter if permissions & bit else "-" for bit, letter in ((4, "r"), (2, "w"), (1, "x")))
        lines.append(f"{_TAGS[tag]}:{owner if tag in _NAMED else ''}:{letters}\n")
    return "".join(lines)
