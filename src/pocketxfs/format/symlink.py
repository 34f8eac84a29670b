"""Remote symlink targets (format document: "Symbolic Links"; kernel: struct xfs_dsymlink_hdr)."""

from __future__ import annotations

from struct import Struct

from ..errors import Corrupt
from .block import Block
from .geometry import Geometry

XFS_SYMLINK_MAGIC = 0x58534C4D  # XSLM
MAX_TARGET_BYTES = 1024
#: magic offset bytes crc uuid owner blkno lsn
HDR = Struct(">III4s16sQQQ")
CRC_OFFSET = 12


def verify(block: Block, geo: Geometry) -> None:
    """One extent of a remote target; V4 blocks have no header to judge."""
    if not geo.has_crc:
        return
    magic, _offset, nbytes, crc, uuid, _owner, blkno, _lsn = block.unpack(HDR, 0)
    where = f"daddr {block.daddr:#x}"
    if magic != XFS_SYMLINK_MAGIC:
        raise Corrupt("symlink block", where, "magic", "XSLM", f"{magic:#x}")
    stored, found = int.from_bytes(crc, "little"), block.checksum(CRC_OFFSET)
    if stored != found:
        raise Corrupt("symlink block", where, "crc", stored, found)
    if blkno != block.daddr:
        raise Corrupt("symlink block", where, "blkno", block.daddr, blkno)
    if uuid != geo.meta_uuid:
        raise Corrupt("symlink block", where, "uuid", geo.meta_uuid.hex(), uuid.hex())
    if nbytes > MAX_TARGET_BYTES or nbytes + HDR.size > block.nbytes:
        raise Corrupt("symlink block", where, "bytes", f"at most {block.nbytes - HDR.size}", nbytes)


def piece(block: Block, ino: int, offset: int, geo: Geometry) -> bytes:
    """The part of the target in this block, which must begin at `offset` of it."""
    if not geo.has_crc:
        return bytes(block.view(0, block.nbytes))
    _magic, start, nbytes, _crc, _uuid, owner, _blkno, _lsn = block.unpack(HDR, 0)
    where = f"daddr {block.daddr:#x}"
    if owner != ino:
        raise Corrupt("symlink block", where, "owner", ino, owner)
    if start != offset:
        raise Corrupt("symlink block", where, "offset", offset, start)
    return bytes(block.view(HDR.size, nbytes))
