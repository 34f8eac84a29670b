"""Units as types (DESIGN: "Units are types").  All are plain integers at run time.

`NewType` calls cost time, so hot paths annotate and never call; conversions stand in `format.geometry.Geometry`.
"""

from __future__ import annotations

from typing import NewType

#: Index of an allocation group.
AgNumber = NewType("AgNumber", int)
#: Filesystem block within an AG (xfs_agblock_t).
AgBlock = NewType("AgBlock", int)
#: Inode number within an AG (xfs_agino_t).
AgInode = NewType("AgInode", int)
#: Filesystem block address, AG number in the high bits (xfs_fsblock_t).
FsBlock = NewType("FsBlock", int)
#: Block of the realtime device (xfs_rtblock_t).
RtBlock = NewType("RtBlock", int)
#: 512-byte unit of a device (xfs_daddr_t).
DiskAddr = NewType("DiskAddr", int)
#: Block within a file (xfs_fileoff_t).
FileBlock = NewType("FileBlock", int)
#: Absolute inode number (xfs_ino_t).
InodeNumber = NewType("InodeNumber", int)

#: Bytes in one `DiskAddr`.
BASIC_BLOCK_BYTES = 512
