"""Extended attributes on disk: short form, leaf blocks, remote values, and POSIX ACLs as XFS stores them.

Format document: "Extended Attributes"; kernel: xfs_da_format.h, xfs_acl.h.  The VFS form of an ACL is the kernel's
posix_acl_xattr.h: little-endian, version 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from ..errors import Corrupt
from .block import Block, checksum
from .da import (
    ATTR_LEAF_MAGICS,
    NODE_MAGICS,
    XFS_ATTR3_LEAF_MAGIC,
    XFS_ATTR_LEAF_MAGIC,
    header,
    verify_attr_node,
    verify_common,
)
from .geometry import Geometry

LOCAL, ROOT, SECURE, PARENT, INCOMPLETE = 1, 2, 4, 8, 0x80
NAMESPACE_MASK = ROOT | SECURE | PARENT
KNOWN_FLAGS = LOCAL | NAMESPACE_MASK | INCOMPLETE

SF_HEADER_BYTES = 4
#: hash, offset of the name, flags
LEAF_ENTRY = Struct(">IHBx")
LOCAL_HEAD = Struct(">HB")
REMOTE_HEAD = Struct(">IIB")
#: usedbytes firstused holes
LEAF_USED = Struct(">HHB")

XFS_ATTR3_RMT_MAGIC = 0x5841524D  # XARM
#: magic offset bytes crc uuid owner blkno lsn
RMT_HDR = Struct(">III4s16sQQQ")
RMT_CRC_OFFSET = 12
MAX_VALUE_BYTES = 65536

#: parent inode, its generation
PARENT_REC = Struct(">QI")

SGI_ACL_FILE = b"SGI_ACL_FILE"
SGI_ACL_DEFAULT = b"SGI_ACL_DEFAULT"
ACL_COUNT = Struct(">I")
#: tag id perm
ACL_ENTRY = Struct(">IIH2x")
VFS_ACL_HEAD = Struct("<I")
VFS_ACL_ENTRY = Struct("<HHI")
ACL_VERSION = 2
ACL_USER, ACL_GROUP = 0x02, 0x08
ACL_TAGS = (0x01, ACL_USER, 0x04, ACL_GROUP, 0x10, 0x20)
ACL_UNDEFINED_ID = 0xFFFFFFFF


class AttrEntry(NamedTuple):
    """One attribute: where its value is, or the value itself."""

    name: bytes
    flags: int
    value: bytes | None
    #: First block of a remote value in the attribute fork, and its length in bytes.
    remote_block: int
    value_bytes: int
    hashval: int


def decode_shortform(data: bytes, where: str) -> Iterator[AttrEntry]:
    """The attributes that lie in the inode."""
    if len(data) < SF_HEADER_BYTES:
        raise Corrupt("short-form attributes", where, "size", f"at least {SF_HEADER_BYTES}", len(data))
    total, count = data[0] << 8 | data[1], data[2]
    if not SF_HEADER_BYTES <= total <= len(data):
        raise Corrupt("short-form attributes", where, "totsize", f"4 to {len(data)}", total)
    at = SF_HEADER_BYTES
    for _ in range(count):
        if at + 3 > total:
            raise Corrupt("short-form attributes", where, "entry", f"within {total} bytes", at)
        namelen, valuelen, flags = data[at], data[at + 1], data[at + 2]
        end = at + 3 + namelen + valuelen
        if namelen == 0 or end > total:
            raise Corrupt("short-form attributes", where, "lengths", f"within {total} bytes", f"{namelen}+{valuelen}")
        _check_flags(flags, where)
        name = data[at + 3 : at + 3 + namelen]
        yield AttrEntry(name, flags, data[end - valuelen : end], 0, valuelen, 0)
        at = end
    if at != total:
        raise Corrupt("short-form attributes", where, "totsize", at, total)


def _check_flags(flags: int, where: str) -> None:
    if flags & ~KNOWN_FLAGS or (flags & NAMESPACE_MASK).bit_count() > 1:
        raise Corrupt("attribute", where, "flags", "at most one namespace", f"{flags:#x}")


def verify_leaf(block: Block, geo: Geometry) -> None:
    """An attribute leaf: magic, CRC, address, counts."""
    head = header(block, geo)
    where = f"daddr {block.daddr:#x}"
    expected = XFS_ATTR3_LEAF_MAGIC if geo.has_crc else XFS_ATTR_LEAF_MAGIC
    if head.magic != expected:
        raise Corrupt("attribute leaf", where, "magic", f"{expected:#x}", f"{head.magic:#x}")
    verify_common(block, geo, "attribute leaf")
    first = entries_offset(geo)
    if first + head.nentries * 8 > block.nbytes:
        raise Corrupt("attribute leaf", where, "count", f"at most {(block.nbytes - first) >> 3}", head.nentries)
    _used, firstused, _holes = block.unpack(LEAF_USED, 58 if geo.has_crc else 14)
    if firstused == 0:
        firstused = block.nbytes
    if not first + head.nentries * 8 <= firstused <= block.nbytes:
        raise Corrupt("attribute leaf", where, "firstused", f"{first + head.nentries * 8} to {block.nbytes}", firstused)


def verify_da(block: Block, geo: Geometry) -> None:
    """Any block of an attribute tree."""
    magic = header(block, geo).magic
    if magic in ATTR_LEAF_MAGICS:
        verify_leaf(block, geo)
    elif magic in NODE_MAGICS:
        verify_attr_node(block, geo)
    else:
        raise Corrupt("attribute block", f"daddr {block.daddr:#x}", "magic", "a node or leaf", f"{magic:#x}")


def entries_offset(geo: Geometry) -> int:
    """Where a leaf's entries begin."""
    return 80 if geo.has_crc else 32


def leaf_entries(block: Block, geo: Geometry, where: str) -> Iterator[AttrEntry]:
    """The attributes of a leaf block, in order of hash; incomplete ones too."""
    count = header(block, geo).nentries
    first = entries_offset(geo)
    floor = first + count * 8
    last = -1
    for index in range(count):
        hashval, nameidx, flags = block.unpack(LEAF_ENTRY, first + 8 * index)
        if hashval < last:
            raise Corrupt("attribute leaf", where, "hash order", f"at least {last:#x}", f"{hashval:#x}")
        last = hashval
        _check_flags(flags, where)
        yield leaf_entry(block, hashval, nameidx, flags, floor, where)


def leaf_entry(block: Block, hashval: int, nameidx: int, flags: int, floor: int, where: str) -> AttrEntry:
    """One attribute of a leaf, given its index entry."""
    layout = LOCAL_HEAD if flags & LOCAL else REMOTE_HEAD
    start = nameidx + layout.size
    if nameidx < floor or start > block.nbytes:
        raise Corrupt("attribute leaf", where, "nameidx", f"{floor} to {block.nbytes}", nameidx)
    if flags & LOCAL:
        valuelen, namelen = block.unpack(LOCAL_HEAD, nameidx)
        if namelen == 0 or start + namelen + valuelen > block.nbytes:
            raise Corrupt("attribute leaf", where, "lengths", "within the block", f"{namelen}+{valuelen}")
        both = bytes(block.view(start, namelen + valuelen))
        return AttrEntry(both[:namelen], flags, both[namelen:], 0, valuelen, hashval)
    valueblk, valuelen, namelen = block.unpack(REMOTE_HEAD, nameidx)
    if namelen == 0 or start + namelen > block.nbytes:
        raise Corrupt("attribute leaf", where, "namelen", f"1 to {block.nbytes - start}", namelen)
    if valuelen > MAX_VALUE_BYTES or (valueblk == 0 and not flags & INCOMPLETE):
        raise Corrupt("attribute leaf", where, "remote value", f"at most {MAX_VALUE_BYTES}", valuelen)
    return AttrEntry(bytes(block.view(start, namelen)), flags, None, valueblk, valuelen, hashval)


def remote_blocks(valuelen: int, geo: Geometry) -> int:
    """Filesystem blocks that a remote value takes: on V5 each begins with a header."""
    room = geo.block_bytes - (RMT_HDR.size if geo.has_crc else 0)
    return -(-valuelen // room)


def verify_remote(block: Block, geo: Geometry) -> None:
    """A run of remote value blocks: on V5 every filesystem block has its header and CRC."""
    if not geo.has_crc:
        return
    step = geo.block_bytes
    for at in range(0, block.nbytes, step):
        daddr = block.daddr + (at >> 9)
        where = f"daddr {daddr:#x}"
        magic, _offset, nbytes, crc, uuid, _owner, blkno, _lsn = block.unpack(RMT_HDR, at)
        if magic != XFS_ATTR3_RMT_MAGIC:
            raise Corrupt("remote attribute block", where, "magic", "XARM", f"{magic:#x}")
        stored, found = int.from_bytes(crc, "little"), checksum(block.view(at, step), RMT_CRC_OFFSET)
        if stored != found:
            raise Corrupt("remote attribute block", where, "crc", stored, found)
        if blkno != daddr:
            raise Corrupt("remote attribute block", where, "blkno", daddr, blkno)
        if uuid != geo.meta_uuid:
            raise Corrupt("remote attribute block", where, "uuid", geo.meta_uuid.hex(), uuid.hex())
        if not 0 < nbytes <= step - RMT_HDR.size:
            raise Corrupt("remote attribute block", where, "bytes", f"1 to {step - RMT_HDR.size}", nbytes)


def remote_piece(block: Block, at: int, ino: int, offset: int, geo: Geometry) -> bytes | memoryview:
    """The value bytes of the remote block at `at` of a buffer, which must hold those from `offset` on."""
    if not geo.has_crc:
        return block.view(at, geo.block_bytes)
    _magic, start, nbytes, _crc, _uuid, owner, _blkno, _lsn = block.unpack(RMT_HDR, at)
    where = f"daddr {block.daddr + (at >> 9):#x}"
    if owner != ino:
        raise Corrupt("remote attribute block", where, "owner", ino, owner)
    if start != offset:
        raise Corrupt("remote attribute block", where, "offset", offset, start)
    return block.view(at + RMT_HDR.size, nbytes)


def acl_to_vfs(value: bytes, where: str) -> bytes:
    """The `system.posix_acl_*` form of what SGI_ACL_FILE or SGI_ACL_DEFAULT holds."""
    if len(value) < ACL_COUNT.size:
        raise Corrupt("ACL", where, "size", "at least 4", len(value))
    (count,) = ACL_COUNT.unpack_from(value)
    if ACL_COUNT.size + count * ACL_ENTRY.size > len(value):
        raise Corrupt("ACL", where, "count", f"at most {(len(value) - 4) // ACL_ENTRY.size}", count)
    parts = [VFS_ACL_HEAD.pack(ACL_VERSION)]
    for index in range(count):
        tag, ident, perm = ACL_ENTRY.unpack_from(value, ACL_COUNT.size + index * ACL_ENTRY.size)
        if tag not in ACL_TAGS:
            raise Corrupt("ACL", where, "tag", "a POSIX ACL tag", f"{tag:#x}")
        parts.append(VFS_ACL_ENTRY.pack(tag, perm, ident if tag in (ACL_USER, ACL_GROUP) else ACL_UNDEFINED_ID))
    return b"".join(parts)
