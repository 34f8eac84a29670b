"""Directories: lookup by hash and readdir, in all their forms (kernel: xfs_dir2_*.c; format/dir.py has the layouts).

Cookies are the kernel's: the entry's address in directory space in 8-byte units, so they outlive a restart.  A
damaged data block does not hide the others: the rest is listed, and its error raised at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import ENOENT

from ..buffer import Buffer, BufferOps
from ..errors import Corrupt, posix
from ..format import da
from ..format import dir as fmt
from ..format.inode import FMT_LOCAL
from ..inode import Inode, Mount, block_pieces, extents_from

DATA_OPS = BufferOps("directory data block", "dir", 2, fmt.verify_data)
DA_OPS = BufferOps("directory index block", "dir", 2, da.verify_dir_da)
FREE_OPS = BufferOps("directory free block", "dir", 2, fmt.verify_free)

DT_DIR = 4
#: (name, inode number, DT_*, cookie of what follows)
DirItem = tuple[bytes, int, int, int]


def readdir(mount: Mount, inode: Inode, cookie: int = 0) -> Iterator[DirItem]:
    """The entries from `cookie` on, "." and ".." among them.  Raises `Corrupt` after all that could be read."""
    for batch in batches(mount, inode, cookie):
        for name, ino, dtype, address in batch:
            yield name, ino, dtype, address + 1


def batches(mount: Mount, inode: Inode, cookie: int = 0) -> Iterator[list[fmt.Entry]]:
    """The same, a directory block's entries at a time; the last of an entry is its own address."""
    geo = mount.geo
    if inode.format == FMT_LOCAL:
        yield _shortform_entries(mount, inode, cookie)
        return
    failed: Corrupt | None = None
    where = f"directory inode {inode.ino}"
    shift = geo.dir_block_log
    for db, pieces in _data_blocks(mount, inode, (cookie << 3) >> shift):
        try:
            with _read(mount, pieces, DATA_OPS) as block:
                _check_owner(mount, block, inode)
                found = fmt.data_entries(block, geo, db << shift, where, cookie)
        except Corrupt as error:
            failed = failed or error
        else:
            yield found
    if failed is not None:
        raise failed


def _shortform_entries(mount: Mount, inode: Inode, cookie: int) -> list[fmt.Entry]:
    geo = mount.geo
    parent, entries = fmt.decode_shortform(inode.data_fork[: inode.size], geo, f"directory inode {inode.ino}")
    dot = (fmt.DATA_HDR3_BYTES if geo.has_crc else fmt.DATA_HDR2_BYTES) >> 3
    dotdot = dot + (fmt.entry_bytes(1, geo.has_ftype) >> 3)
    both = [(b".", inode.ino, DT_DIR, dot), (b"..", parent, DT_DIR, dotdot)]
    return [entry for entry in both + entries if entry[3] >= cookie]


def _data_blocks(mount: Mount, inode: Inode, first_db: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """(directory block number, its pieces) of every data block from `first_db` on."""
    geo = mount.geo
    per = geo.dir_block_fsbs
    log = geo.block_log
    pieces: list[tuple[int, int]] = []
    filled = 0
    wanted = first_db * per
    for offset, start, count, _ in extents_from(mount, inode, wanted):
        if offset >= geo.dir_leaf_fsb:
            break
        if offset < wanted:
            start += wanted - offset
            count -= wanted - offset
            offset = wanted
        if filled and offset != wanted:
            raise Corrupt("directory", f"inode {inode.ino}", "mapping", f"block {wanted}", f"a hole up to {offset}")
        if count > 1:
            mount.device.readahead(geo.fsb_to_daddr(start) << 9, min(count << log, 1 << 19))
        if offset + count > geo.dir_leaf_fsb:
            raise Corrupt("directory", f"inode {inode.ino}", "mapping", f"up to {geo.dir_leaf_fsb}", offset + count)
        while count:
            take = min(count, per - filled)
            pieces.append((geo.fsb_to_daddr(start), take << log))
            filled += take
            offset += take
            start += take
            count -= take
            if filled == per:
                yield offset // per - 1, pieces
                pieces, filled = [], 0
        wanted = offset
    if filled:
        raise Corrupt("directory", f"inode {inode.ino}", "mapping", f"{per} blocks", f"{filled} of them")


def _read(mount: Mount, pieces: list[tuple[int, int]], ops: BufferOps) -> Buffer:
    if len(pieces) == 1:
        daddr, nbytes = pieces[0]
        return mount.cache.read(daddr, nbytes, ops)
    return mount.cache.read_map(tuple(pieces), ops)


def _check_owner(mount: Mount, block: Buffer, inode: Inode) -> None:
    if mount.geo.has_crc:
        owner = fmt.owner_of(block)
        if owner != inode.ino:
            raise Corrupt("directory data block", f"daddr {block.daddr:#x}", "owner", inode.ino, owner)


def read_block(mount: Mount, inode: Inode, fsb: int, ops: BufferOps) -> Buffer:
    """The directory block at file block `fsb`, held."""
    return _read(mount, block_pieces(mount, inode, fsb, mount.geo.dir_block_fsbs), ops)


# -- lookup ----------------------------------------------------------------------------------------------------


def lookup(mount: Mount, inode: Inode, name: bytes) -> int:
    """The inode number that `name` has in a directory; `FileNotFoundError` where there is none."""
    found = lookup_entry(mount, inode, name)
    if found is None:
        raise posix(ENOENT, name)
    return found[1]


def lookup_entry(mount: Mount, inode: Inode, name: bytes) -> fmt.Entry | None:
    """The whole entry, or None.  Reads one path of the index and the data blocks that its hash names, no more."""
    geo = mount.geo
    if inode.format == FMT_LOCAL:
        return _lookup_shortform(mount, inode, name)
    wanted = fmt.dir_hash(name, geo)
    if inode.size == geo.dir_block_bytes:
        with read_block(mount, inode, 0, DATA_OPS) as block:
            _check_owner(mount, block, inode)
            if fmt.is_block_form(block):
                return _lookup_block(mount, inode, block, name, wanted)
    return _lookup_tree(mount, inode, name, wanted)


def _same(geo_ci: bool, name: bytes, other: bytes) -> bool:
    return name == other or (geo_ci and fmt.fold(name) == fmt.fold(other))


def _lookup_shortform(mount: Mount, inode: Inode, name: bytes) -> fmt.Entry | None:
    geo = mount.geo
    parent, entries = fmt.decode_shortform(inode.data_fork[: inode.size], geo, f"directory inode {inode.ino}")
    if name == b".":
        return name, inode.ino, DT_DIR, 0
    if name == b"..":
        return name, parent, DT_DIR, 0
    near = None
    for entry in entries:
        if entry[0] == name:
            return entry
        if geo.ascii_ci and near is None and fmt.fold(entry[0]) == fmt.fold(name):
            near = entry
    return near


def _lookup_block(mount: Mount, inode: Inode, block: Buffer, name: bytes, wanted: int) -> fmt.Entry | None:
    where = f"directory inode {inode.ino}"
    start, count = fmt.block_form_leaf(block, where)
    near = None
    for index in range(da.lower_bound(block, start, count, wanted), count):
        hashval, address = da.pair(block, start, index)
        if hashval != wanted:
            break
        if address:
            entry = fmt.entry_at(block, mount.geo, address << 3, where)
            if entry[0] == name:
                return entry
            if near is None and _same(mount.geo.ascii_ci, name, entry[0]):
                near = entry
    return near


def _lookup_tree(mount: Mount, inode: Inode, name: bytes, wanted: int) -> fmt.Entry | None:
    geo = mount.geo
    where = f"directory inode {inode.ino}"
    shift = geo.dir_block_log
    near = None
    for address in _addresses(mount, inode, wanted):
        offset = address << 3
        db = offset >> shift
        if db * geo.dir_block_fsbs >= geo.dir_leaf_fsb:
            raise Corrupt("directory leaf entry", where, "address", "one in data space", address)
        with read_block(mount, inode, db * geo.dir_block_fsbs, DATA_OPS) as block:
            _check_owner(mount, block, inode)
            entry = fmt.entry_at(block, geo, offset & (geo.dir_block_bytes - 1), where)
        if entry[0] == name:
            return entry
        if near is None and _same(geo.ascii_ci, name, entry[0]):
            near = entry
    return near


def _addresses(mount: Mount, inode: Inode, wanted: int) -> Iterator[int]:
    """The data addresses that the index keeps under a hash."""
    geo = mount.geo
    where = f"directory inode {inode.ino}"
    fsb = geo.dir_leaf_fsb
    level: int | None = None
    for _ in range(da.MAX_DEPTH + 1):
        with read_block(mount, inode, fsb, DA_OPS) as block:
            head = da.header(block, geo)
            check_da_owner(head, inode.ino, block)
            if head.magic not in da.NODE_MAGICS:
                if level is not None and level != 1:
                    raise Corrupt("directory node", where, "level", 1, level)
                break
            if level is not None and head.second != level - 1:
                raise Corrupt("directory node", where, "level", level - 1, head.second)
            level = head.second
            index = da.lower_bound(block, head.first_entry, head.nentries, wanted)
            if index == head.nentries:
                return
            fsb = da.pair(block, head.first_entry, index)[1]
            if not geo.dir_leaf_fsb <= fsb < geo.dir_free_fsb:
                raise Corrupt("directory node", where, "before", "a block of leaf space", fsb)
    else:
        raise Corrupt("directory node", where, "depth", f"at most {da.MAX_DEPTH}", "more")
    steps = 0
    while fsb:
        with read_block(mount, inode, fsb, DA_OPS) as block:
            head = da.header(block, geo)
            check_da_owner(head, inode.ino, block)
            if head.magic not in da.DIR_LEAF_MAGICS:
                raise Corrupt("directory leaf", where, "magic", "a leaf", f"{head.magic:#x}")
            first, count = head.first_entry, head.nentries
            found = []
            index = da.lower_bound(block, first, count, wanted)
            while index < count:
                hashval, address = da.pair(block, first, index)
                if hashval != wanted:
                    break
                if address:
                    found.append(address)
                index += 1
        yield from found
        if index < count or level is None:
            return
        steps += 1
        if steps > min(inode.nblocks, geo.dblocks):
            raise Corrupt("directory leaf", where, "forw", "an end of the chain", "a loop")
        fsb = head.forw


def check_da_owner(head: da.DaHeader, ino: int, block: Buffer) -> None:
    """A V5 dabtree block must say that it belongs to this inode."""
    if head.owner is not None and head.owner != ino:
        raise Corrupt("dabtree block", f"daddr {block.daddr:#x}", "owner", ino, head.owner)
