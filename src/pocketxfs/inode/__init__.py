"""In-core inodes, forks and extent maps, file data."""

from __future__ import annotations

from .data import DATA, HOLE, STATE_NAMES, UNWRITTEN, Mapping, copy_to_fd, mappings, read_bytes, read_into, seek
from .fork import ATTR_FORK, DATA_FORK, block_pieces, data_extents, extents_from
from .incore import INODE_CHARGE_BYTES, Inode, InodeCache
from .mount import Mount

__all__ = [
    "ATTR_FORK",
    "DATA",
    "DATA_FORK",
    "HOLE",
    "INODE_CHARGE_BYTES",
    "STATE_NAMES",
    "UNWRITTEN",
    "Inode",
    "InodeCache",
    "Mapping",
    "Mount",
    "block_pieces",
    "copy_to_fd",
    "data_extents",
    "extents_from",
    "mappings",
    "read_bytes",
    "read_into",
    "seek",
]
