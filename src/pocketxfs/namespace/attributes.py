"""Extended attributes: list, look up by hash, remote values, ACLs in the VFS's form, parent pointers.

Kernel: xfs_attr*.c, xfs_xattr.c, xfs_parent.c.  Users see what root sees under Linux: `user.`, `trusted.`,
`security.`, and `system.posix_acl_*` made from the two SGI_ACL attributes.  Incomplete attributes and parent pointers
are hidden; the latter have `parents`.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EOPNOTSUPP

from ..buffer import Buffer, BufferOps
from ..errors import ENODATA, Corrupt, posix
from ..format import attr as fmt
from ..format import da
from ..format.inode import FMT_BTREE, FMT_EXTENTS, FMT_LOCAL
from ..inode import ATTR_FORK, Inode, Mount, block_pieces
from .directory import check_da_owner

DA_OPS = BufferOps("attribute block", "attr", 1, fmt.verify_da)
REMOTE_OPS = BufferOps("remote attribute", "attr-remote", 1, fmt.verify_remote)

_PREFIX = {0: b"user.", fmt.ROOT: b"trusted.", fmt.SECURE: b"security."}
_ACL_NAMES = {
    fmt.SGI_ACL_FILE: b"system.posix_acl_access",
    fmt.SGI_ACL_DEFAULT: b"system.posix_acl_default",
}
_ACL_SOURCES = {public: name for name, public in _ACL_NAMES.items()}


def entries(mount: Mount, inode: Inode) -> Iterator[fmt.AttrEntry]:
    """Every attribute as it is on disk, hidden ones too.  Raises `Corrupt`."""
    if not inode.forkoff:
        return
    where = f"attributes of inode {inode.ino}"
    if inode.aformat == FMT_LOCAL:
        yield from fmt.decode_shortform(inode.attr_fork, where)
        return
    if inode.aformat == FMT_EXTENTS and inode.anextents == 0:
        return
    fsb: int = _leftmost(mount, inode)
    # each leaf must name the one before it, so that no chain of damaged ones comes round again
    last = 0
    while True:
        with read_block(mount, inode, fsb) as block:
            head = da.header(block, mount.geo)
            check_da_owner(head, inode.ino, block)
            if head.magic not in da.ATTR_LEAF_MAGICS:
                raise Corrupt("attribute leaf", where, "magic", "a leaf", f"{head.magic:#x}")
            if head.back != last:
                raise Corrupt("attribute leaf", where, "back", last, head.back)
            yield from fmt.leaf_entries(block, mount.geo, where)
        last, fsb = fsb, head.forw
        if not fsb:
            return


def read_block(mount: Mount, inode: Inode, fsb: int) -> Buffer:
    """The attribute block at file block `fsb`, held."""
    pieces = block_pieces(mount, inode, fsb, 1, ATTR_FORK)
    return mount.cache.read(pieces[0][0], pieces[0][1], DA_OPS)


def _descend(mount: Mount, inode: Inode, wanted: int | None) -> int | None:
    """The file block of the leaf where a hash would be (the first leaf for None); None where it lies past the end."""
    geo = mount.geo
    where = f"attributes of inode {inode.ino}"
    fsb = 0
    level: int | None = None
    for _ in range(da.MAX_DEPTH + 1):
        with read_block(mount, inode, fsb) as block:
            head = da.header(block, geo)
            check_da_owner(head, inode.ino, block)
            if head.magic not in da.NODE_MAGICS:
                if level is not None and level != 1:
                    raise Corrupt("attribute node", where, "level", 1, level)
                return fsb
            if level is not None and head.second != level - 1:
                raise Corrupt("attribute node", where, "level", level - 1, head.second)
            level = head.second
            index = 0 if wanted is None else da.lower_bound(block, head.first_entry, head.nentries, wanted)
            if index == head.nentries:
                return None
            fsb = da.pair(block, head.first_entry, index)[1]
            if not fsb:
                raise Corrupt("attribute node", where, "before", "a block other than the root", fsb)
    raise Corrupt("attribute node", where, "depth", f"at most {da.MAX_DEPTH}", "more")


def _leftmost(mount: Mount, inode: Inode) -> int:
    return _descend(mount, inode, None) or 0


def _find(mount: Mount, inode: Inode, name: bytes, namespace: int) -> fmt.AttrEntry | None:
    """One attribute by its hash, without reading the others' values."""
    if not inode.forkoff:
        return None
    if inode.aformat not in (FMT_EXTENTS, FMT_BTREE):
        for entry in entries(mount, inode):
            if entry.name == name and entry.flags & (fmt.NAMESPACE_MASK | fmt.INCOMPLETE) == namespace:
                return entry
        return None
    if inode.aformat == FMT_EXTENTS and inode.anextents == 0:
        return None
    geo = mount.geo
    where = f"attributes of inode {inode.ino}"
    wanted = fmt_hash(name)
    fsb = _descend(mount, inode, wanted)
    steps = 0
    while fsb is not None:
        with read_block(mount, inode, fsb) as block:
            head = da.header(block, geo)
            check_da_owner(head, inode.ino, block)
            if head.magic not in da.ATTR_LEAF_MAGICS:
                raise Corrupt("attribute leaf", where, "magic", "a leaf", f"{head.magic:#x}")
            first, count = fmt.entries_offset(geo), head.nentries
            index = da.lower_bound(block, first, count, wanted)
            while index < count:
                hashval, nameidx, flags = block.unpack(fmt.LEAF_ENTRY, first + 8 * index)
                if hashval != wanted:
                    return None
                if flags & (fmt.NAMESPACE_MASK | fmt.INCOMPLETE) == namespace:
                    entry = fmt.leaf_entry(block, hashval, nameidx, flags, first + count * 8, where)
                    if entry.name == name:
                        return entry
                index += 1
        fsb = head.forw or None
        steps += 1
        if steps > min(inode.nblocks, geo.dblocks):
            raise Corrupt("attribute leaf", where, "forw", "an end of the chain", "a loop")
    return None


def _value(mount: Mount, inode: Inode, entry: fmt.AttrEntry) -> bytes:
    if entry.value is not None:
        return entry.value
    geo = mount.geo
    where = f"attributes of inode {inode.ino}"
    nblocks = fmt.remote_blocks(entry.value_bytes, geo)
    if nblocks == 0:
        return b""
    value = bytearray()
    for daddr, nbytes in block_pieces(mount, inode, entry.remote_block, nblocks, ATTR_FORK):
        with mount.cache.read(daddr, nbytes, REMOTE_OPS) as block:
            for at in range(0, nbytes, geo.block_bytes):
                value += fmt.remote_piece(block, at, inode.ino, len(value), geo)
    if len(value) < entry.value_bytes:
        raise Corrupt("remote attribute", where, "bytes", entry.value_bytes, len(value))
    return bytes(value[: entry.value_bytes])


def fmt_hash(name: bytes) -> int:
    """The hash that orders attributes (never folded, not even in an ascii-ci filesystem)."""
    from ..format.dir import hash_name

    return hash_name(name)


def _visible(entry: fmt.AttrEntry) -> bool:
    return not entry.flags & (fmt.INCOMPLETE | fmt.PARENT)


def list_names(mount: Mount, inode: Inode) -> Iterator[tuple[bytes, int]]:
    """(full name, bytes of the value) of each attribute that a user may see, in the kernel's order."""
    for entry in entries(mount, inode):
        if not _visible(entry):
            continue
        if entry.flags & fmt.ROOT and entry.name in _ACL_NAMES:
            nentries = (entry.value_bytes - fmt.ACL_COUNT.size) // fmt.ACL_ENTRY.size
            yield _ACL_NAMES[entry.name], fmt.VFS_ACL_HEAD.size + nentries * fmt.VFS_ACL_ENTRY.size
        yield _PREFIX[entry.flags & fmt.NAMESPACE_MASK] + entry.name, entry.value_bytes


def get(mount: Mount, inode: Inode, name: bytes) -> bytes:
    """The value of one attribute by its full name; `OSError(ENODATA)` where there is none."""
    public = _ACL_SOURCES.get(name)
    if public is not None:
        entry = _find(mount, inode, public, fmt.ROOT)
        if entry is None:
            raise posix(ENODATA, name)
        return fmt.acl_to_vfs(_value(mount, inode, entry), f"inode {inode.ino}")
    for namespace, prefix in _PREFIX.items():
        if name.startswith(prefix):
            entry = _find(mount, inode, name[len(prefix) :], namespace)
            if entry is None:
                raise posix(ENODATA, name)
            return _value(mount, inode, entry)
    raise posix(EOPNOTSUPP, name)


def parents(mount: Mount, inode: Inode) -> Iterator[tuple[int, int, bytes]]:
    """(parent inode, its generation, name there) of each parent pointer."""
    for entry in entries(mount, inode):
        if entry.flags & fmt.PARENT and not entry.flags & fmt.INCOMPLETE:
            if entry.value is None or len(entry.value) != fmt.PARENT_REC.size:
                where = f"inode {inode.ino}"
                raise Corrupt("parent pointer", where, "value", f"{fmt.PARENT_REC.size} bytes", entry.value_bytes)
            ino, gen = fmt.PARENT_REC.unpack(entry.value)
            yield ino, gen, entry.name
