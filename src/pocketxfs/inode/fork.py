"""Forks: where the blocks of a file, directory or attribute tree are (kernel: xfs_inode_fork.c, xfs_bmap.c).

A fork of extents is decoded once and kept with its inode (at most 115 records).  A fork with a B+tree is never
loaded whole, unlike the kernel's: its leaves are read through the buffer cache as they are needed, so that a file of
a million extents fits in the machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..btree import bmbt_extents
from ..errors import Corrupt
from ..format import inode as fmt
from ..format.inode import Extent
from .incore import Inode
from .mount import Mount

DATA_FORK, ATTR_FORK = 0, 1


def extents_from(mount: Mount, inode: Inode, first: int = 0, which: int = DATA_FORK) -> Iterator[Extent]:
    """The extents of a fork that end after file block `first`, in order.  Raises `Corrupt`."""
    if which == DATA_FORK:
        form = inode.format
        if form == fmt.FMT_EXTENTS:
            for extent in data_extents(inode):
                if extent[0] + extent[2] > first:
                    yield extent
            return
        root = inode.data_fork
        realtime = inode.is_realtime
    else:
        form = inode.aformat
        root = inode.attr_fork
        realtime = False
        if form == fmt.FMT_EXTENTS:
            extents = fmt.decode_extents(root[: inode.anextents << 4])
            fmt.check_extents(extents, mount.geo, False, f"attribute fork of inode {inode.ino}")
            for extent in extents:
                if extent[0] + extent[2] > first:
                    yield extent
            return
    if form == fmt.FMT_BTREE:
        yield from bmbt_extents(mount.cache, root, inode.ino, first, realtime=realtime, attr_fork=which == ATTR_FORK)
    elif form != fmt.FMT_DEV:
        raise Corrupt("inode", f"inode {inode.ino}", "fork format", "extents or btree", form)


def data_extents(inode: Inode) -> list[Extent]:
    """The decoded and judged records of a data fork in extents format; kept with the inode."""
    extents = inode.data_extents
    if extents is None:
        extents = fmt.decode_extents(inode.literal[: inode.nextents << 4])
        fmt.check_extents(extents, inode.geo, inode.is_realtime, f"data fork of inode {inode.ino}")
        inode.data_extents = extents
    return extents


def block_pieces(mount: Mount, inode: Inode, first: int, nblocks: int, which: int = DATA_FORK) -> list[tuple[int, int]]:
    """(daddr, bytes) of each run of disk that holds `nblocks` of metadata from file block `first`.

    Raises `Corrupt` where part of it is a hole or unwritten: metadata has neither.
    """
    geo = mount.geo
    pieces: list[tuple[int, int]] = []
    at, end = first, first + nblocks
    for offset, start, count, unwritten in extents_from(mount, inode, first, which):
        if offset > at or unwritten:
            break
        skip = at - offset
        take = min(count - skip, end - at)
        daddr = geo.fsb_to_daddr(start + skip)
        nbytes = take << geo.block_log
        if pieces and pieces[-1][0] + (pieces[-1][1] >> 9) == daddr:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + nbytes)
        else:
            pieces.append((daddr, nbytes))
        at += take
        if at == end:
            return pieces
    fork = "attribute" if which == ATTR_FORK else "data"
    raise Corrupt(f"{fork} fork", f"inode {inode.ino}", "mapping", f"{nblocks} blocks at {first}", f"a hole at {at}")
