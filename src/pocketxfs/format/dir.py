"""Directories on disk: short form, data and leaf blocks, the name hash (format document: "Directories").

Data blocks hold the entries; leaf and node blocks (with `da.py`) an index by hash.  Everything is decoded from bytes
and judged before use; iteration over a block is bulk: one `bytes` of the block, two `unpack_from` an entry at most.
"""

from __future__ import annotations

from struct import Struct

from ..errors import Corrupt
from .block import Block
from .geometry import Geometry

XFS_DIR2_BLOCK_MAGIC = 0x58443242  # XD2B
XFS_DIR2_DATA_MAGIC = 0x58443244  # XD2D
XFS_DIR2_FREE_MAGIC = 0x58443246  # XD2F
XFS_DIR3_BLOCK_MAGIC = 0x58444233  # XDB3
XFS_DIR3_DATA_MAGIC = 0x58444433  # XDD3
XFS_DIR3_FREE_MAGIC = 0x58444633  # XDF3
FREE_TAG = 0xFFFF

#: magic crc blkno lsn uuid owner
HDR3 = Struct(">I4sQQ16sQ")
DATA_HDR2_BYTES, DATA_HDR3_BYTES = 16, 64
HDR3_CRC_OFFSET = 4
U32 = Struct(">I")
ENTRY_HEAD = Struct(">QB")
FREE_HEAD = Struct(">HH")
TAIL = Struct(">II")
#: One leaf entry: hash, address (8-byte units of directory space).
LEAF_ENTRY = Struct(">II")
FREE_HDR = Struct(">III")

DIR_MAX_SHORT = 0x7FFFFFFF

#: DT_* of each on-disk ftype: unknown reg dir chr blk fifo sock symlink whiteout
DT_OF_FTYPE = (0, 8, 4, 2, 6, 1, 12, 10, 14)

#: (name, inode, DT_*, address in 8-byte units)
Entry = tuple[bytes, int, int, int]


def hash_name(name: bytes) -> int:
    """xfs_da_hashname: the 32-bit hash that indexes names of directories and attributes."""
    value = 0
    end = len(name) & ~3
    for i in range(0, end, 4):
        value = (
            name[i] << 21 ^ name[i + 1] << 14 ^ name[i + 2] << 7 ^ name[i + 3]
            ^ ((value << 28 | value >> 4) & 0xFFFFFFFF)
        )  # fmt: skip
    rest = name[end:]
    if len(rest) == 3:
        return rest[0] << 14 ^ rest[1] << 7 ^ rest[2] ^ ((value << 21 | value >> 11) & 0xFFFFFFFF)
    if len(rest) == 2:
        return rest[0] << 7 ^ rest[1] ^ ((value << 14 | value >> 18) & 0xFFFFFFFF)
    if len(rest) == 1:
        return rest[0] ^ ((value << 7 | value >> 25) & 0xFFFFFFFF)
    return value


#: How an ascii-ci directory folds names: A to Z, and Latin-1's capitals (kernel: xfs_ascii_ci_xfrm).
_FOLD = bytes(c + 32 if 0x41 <= c <= 0x5A or 0xC0 <= c <= 0xD6 or 0xD8 <= c <= 0xDE else c for c in range(256))


def fold(name: bytes) -> bytes:
    """A name as an ascii-ci directory hashes and compares it."""
    return name.translate(_FOLD)


def dir_hash(name: bytes, geo: Geometry) -> int:
    """The hash of a directory name; in an ascii-ci filesystem a byte at a time, folded."""
    if not geo.ascii_ci:
        return hash_name(name)
    value = 0
    for byte in fold(name):
        value = byte ^ ((value << 7 | value >> 25) & 0xFFFFFFFF)
    return value


# -- short form ------------------------------------------------------------------------------------------------


def decode_shortform(data: bytes, geo: Geometry, where: str) -> tuple[int, list[Entry]]:
    """(parent inode, entries) of a directory that lies in its inode.  Raises `Corrupt`."""
    size = len(data)
    if size < 6:
        raise Corrupt("short-form directory", where, "size", "at least 6 bytes", size)
    count, i8count = data[0], data[1]
    width = 8 if i8count else 4
    at = 2 + width
    if size < at:
        raise Corrupt("short-form directory", where, "size", f"at least {at} bytes", size)
    parent = int.from_bytes(data[2:at], "big")
    ftype_bytes = 1 if geo.has_ftype else 0
    entries: list[Entry] = []
    wide = 0 if parent <= 0xFFFFFFFF else 1
    last = 0
    for _ in range(count):
        if at + 3 > size:
            raise Corrupt("short-form directory", where, "entry", f"within {size} bytes", at)
        namelen = data[at]
        end = at + 3 + namelen + ftype_bytes + width
        if namelen == 0 or end > size:
            raise Corrupt("short-form directory", where, "namelen", f"1 to {size - at - 3}", namelen)
        offset = data[at + 1] << 8 | data[at + 2]
        if offset < last:
            raise Corrupt("short-form directory", where, "offset", f"at least {last}", offset)
        name = data[at + 3 : at + 3 + namelen]
        dtype = _dtype(data[at + 3 + namelen], where) if ftype_bytes else 0
        ino = int.from_bytes(data[end - width : end], "big")
        if not geo.ino_valid(ino):
            raise Corrupt("short-form directory", where, "inode number", "one within the filesystem", ino)
        wide += ino > 0xFFFFFFFF
        entries.append((name, ino, dtype, offset >> 3))
        last = offset + entry_bytes(namelen, ftype_bytes)
        at = end
    if at != size:
        raise Corrupt("short-form directory", where, "size", at, size)
    if i8count and wide != i8count:
        raise Corrupt("short-form directory", where, "i8count", wide, i8count)
    if not geo.ino_valid(parent):
        raise Corrupt("short-form directory", where, "parent", "an inode within the filesystem", parent)
    check_names(entries, where)
    return parent, entries


def entry_bytes(namelen: int, ftype_bytes: int) -> int:
    """Bytes that a data entry takes: number, length, name, type, tag, rounded up to 8."""
    return (8 + 1 + namelen + ftype_bytes + 2 + 7) & ~7


#: `entry_bytes` of every length, without ftype and with it.
_ENTRY_BYTES = tuple(tuple(entry_bytes(namelen, ftype_bytes) for namelen in range(256)) for ftype_bytes in (0, 1))
#: What begins with FREE_TAG is free space, no inode number.
_FREE_INO = FREE_TAG << 48


def _dtype(ftype: int, where: str) -> int:
    if ftype >= len(DT_OF_FTYPE):
        raise Corrupt("directory entry", where, "ftype", f"below {len(DT_OF_FTYPE)}", ftype)
    return DT_OF_FTYPE[ftype]


# -- data and block-form blocks --------------------------------------------------------------------------------


def verify_data(block: Block, geo: Geometry) -> None:
    """A data block, or a single block with its own leaf (either form): magic, CRC, UUID, address."""
    (magic,) = block.unpack(U32, 0)
    where = f"daddr {block.daddr:#x}"
    if geo.has_crc:
        if magic not in (XFS_DIR3_BLOCK_MAGIC, XFS_DIR3_DATA_MAGIC):
            raise Corrupt("directory data block", where, "magic", "XDB3 or XDD3", magic)
        verify_hdr3(block, geo, "directory data block")
    elif magic not in (XFS_DIR2_BLOCK_MAGIC, XFS_DIR2_DATA_MAGIC):
        raise Corrupt("directory data block", where, "magic", "XD2B or XD2D", magic)


def verify_free(block: Block, geo: Geometry) -> None:
    """A free-index block."""
    (magic,) = block.unpack(U32, 0)
    where = f"daddr {block.daddr:#x}"
    expected = XFS_DIR3_FREE_MAGIC if geo.has_crc else XFS_DIR2_FREE_MAGIC
    if magic != expected:
        raise Corrupt("directory free block", where, "magic", expected, magic)
    if geo.has_crc:
        verify_hdr3(block, geo, "directory free block")
    header = 64 if geo.has_crc else 16
    _first, nvalid, nused = block.unpack(FREE_HDR, 48 if geo.has_crc else 4)
    most = (block.nbytes - header) >> 1
    if nvalid > most or nused > nvalid:
        raise Corrupt("directory free block", where, "nvalid", f"at most {most}", nvalid)


def verify_hdr3(block: Block, geo: Geometry, structure: str) -> None:
    """The V5 header that data and free blocks share: CRC, own address, UUID."""
    _magic, crc, blkno, _lsn, uuid, _owner = block.unpack(HDR3, 0)
    where = f"daddr {block.daddr:#x}"
    stored = int.from_bytes(crc, "little")
    found = block.checksum(HDR3_CRC_OFFSET)
    if stored != found:
        raise Corrupt(structure, where, "crc", stored, found)
    if blkno != block.daddr:
        raise Corrupt(structure, where, "blkno", block.daddr, blkno)
    if uuid != geo.meta_uuid:
        raise Corrupt(structure, where, "uuid", geo.meta_uuid.hex(), uuid.hex())


def owner_of(block: Block) -> int:
    """The inode that a V5 data or free block says it belongs to."""
    return int(block.unpack(HDR3, 0)[5])


def is_block_form(block: Block) -> bool:
    """Whether this is the single block of a block-form directory (leaf entries at its end)."""
    return block.unpack(U32, 0)[0] in (XFS_DIR2_BLOCK_MAGIC, XFS_DIR3_BLOCK_MAGIC)


def block_form_leaf(block: Block, where: str) -> tuple[int, int]:
    """(offset of the first leaf entry, number of entries) in a block-form directory's block."""
    count, stale = block.unpack(TAIL, block.nbytes - 8)
    start = block.nbytes - 8 - count * 8
    if count < 2 or stale > count or start < 16:
        raise Corrupt("directory block", where, "leaf count", f"2 to {(block.nbytes - 24) >> 3}", count)
    return start, count


def data_entries(block: Block, geo: Geometry, base: int, where: str, first: int = 0) -> list[Entry]:
    """The entries of a data or block-form block in order, from address `first` (8-byte units) on.

    `base` is the block's place in directory space in bytes.  Free space is skipped, and judged.  A list: a block
    holds at most a few thousand.
    """
    end = block_form_leaf(block, where)[0] if is_block_form(block) else block.nbytes
    at = DATA_HDR3_BYTES if geo.has_crc else DATA_HDR2_BYTES
    view = block.view(0, end)
    data = view if isinstance(view, bytes) else bytes(view)
    head = ENTRY_HEAD.unpack_from
    low = max(0, (first << 3) - base)
    types, sizes = DT_OF_FTYPE, _ENTRY_BYTES[geo.has_ftype]
    has_ftype = geo.has_ftype
    units = base >> 3
    last_ag_ino, mask, min_agino, end_agino = geo.last_ag_ino, geo.agino_mask, geo.min_agino, geo.end_agino
    found: list[Entry] = []
    add = found.append
    last = end - 16
    while at <= last:
        ino, namelen = head(data, at)
        if ino >= _FREE_INO:
            length = ino >> 32 & 0xFFFF
            if length == 0 or length & 7 or at + length > end:
                raise Corrupt("directory data block", where, "free length", f"8 to {end - at}", length)
            at += length
            continue
        following = at + sizes[namelen]
        if namelen == 0 or following > end:
            raise Corrupt("directory data block", where, "namelen", f"1 to {end - at - 9}", namelen)
        if at >= low:
            if data[following - 2] << 8 | data[following - 1] != at:
                tag = data[following - 2] << 8 | data[following - 1]
                raise Corrupt("directory data block", where, "tag", at, tag)
            # the usual inode number is in range at a glance; geo.ino_valid has the last word
            if (ino >= last_ag_ino or not min_agino <= ino & mask < end_agino) and not geo.ino_valid(ino):
                raise Corrupt("directory data block", where, "inode number", "one within the filesystem", ino)
            after = at + 9 + namelen
            ftype = data[after] if has_ftype else 0
            if ftype > 8:
                raise Corrupt("directory data block", where, "ftype", "below 9", ftype)
            add((data[at + 9 : after], ino, types[ftype], units + (at >> 3)))
        at = following
    # what is left is too small for anything but free space
    if at < end and (data[at : at + 4] != b"\xff\xff\0\x08" or at + 8 != end):
        raise Corrupt("directory data block", where, "entry", f"within {end} bytes", at)
    check_names(found, where)
    return found


def check_names(entries: list[Entry], where: str) -> None:
    """No name has a slash or a NUL in it: none could be asked for, and some would lead elsewhere."""
    every = b"".join([entry[0] for entry in entries])
    if b"/" in every or b"\0" in every:
        bad = next(entry[0] for entry in entries if b"/" in entry[0] or b"\0" in entry[0])
        raise Corrupt("directory entry", where, "name", "no slash and no NUL", repr(bad))


def entry_at(block: Block, geo: Geometry, offset: int, where: str) -> Entry:
    """The one entry at a byte offset of a data block; what a leaf entry points at."""
    start = DATA_HDR3_BYTES if geo.has_crc else DATA_HDR2_BYTES
    if offset < start or offset + 16 > block.nbytes:
        raise Corrupt("directory leaf entry", where, "address", f"{start} to {block.nbytes - 16}", offset)
    ino, namelen = block.unpack(ENTRY_HEAD, offset)
    ftype_bytes = 1 if geo.has_ftype else 0
    if ino >> 48 == FREE_TAG or namelen == 0 or offset + entry_bytes(namelen, ftype_bytes) > block.nbytes:
        raise Corrupt("directory data block", where, "entry", "one that is in use", f"free space at {offset}")
    if not geo.ino_valid(ino):
        raise Corrupt("directory data block", where, "inode number", "one within the filesystem", ino)
    name = bytes(block.view(offset + 9, namelen + ftype_bytes))
    dtype = _dtype(name[-1], where) if ftype_bytes else 0
    return name[:namelen], ino, dtype, offset >> 3
