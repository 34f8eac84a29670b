"""The superblock: layout, and what makes one believable (format document: "Superblocks"; kernel: struct xfs_dsb).

`decode` gives the raw record under the kernel's names; `verify` raises `Corrupt`, `Unsupported` or `NotXfs`.
`geometry.Geometry` is what everybody else works with.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Corrupt, NotXfs, Unsupported
from . import features as f
from .block import checksum
from .layout import U8, U16, U32, U64, Bytes12, Crc, Layout, Uuid, stored_crc

XFS_SB_MAGIC = 0x58465342  # "XFSB"
#: Bytes that hold every field of the superblock; it is padded to a sector.
SB_BYTES = 304


class Superblock(NamedTuple):
    """struct xfs_dsb.  Lengths in filesystem blocks unless the name says otherwise."""

    sb_magicnum: U32
    sb_blocksize: U32
    sb_dblocks: U64
    sb_rblocks: U64
    sb_rextents: U64
    sb_uuid: Uuid
    sb_logstart: U64
    sb_rootino: U64
    sb_rbmino: U64
    sb_rsumino: U64
    sb_rextsize: U32
    sb_agblocks: U32
    sb_agcount: U32
    sb_rbmblocks: U32
    sb_logblocks: U32
    sb_versionnum: U16
    sb_sectsize: U16
    sb_inodesize: U16
    sb_inopblock: U16
    sb_fname: Bytes12
    sb_blocklog: U8
    sb_sectlog: U8
    sb_inodelog: U8
    sb_inopblog: U8
    sb_agblklog: U8
    sb_rextslog: U8
    sb_inprogress: U8
    sb_imax_pct: U8
    sb_icount: U64
    sb_ifree: U64
    sb_fdblocks: U64
    sb_frextents: U64
    sb_uquotino: U64
    sb_gquotino: U64
    sb_qflags: U16
    sb_flags: U8
    sb_shared_vn: U8
    sb_inoalignmt: U32
    sb_unit: U32
    sb_width: U32
    sb_dirblklog: U8
    sb_logsectlog: U8
    sb_logsectsize: U16
    sb_logsunit: U32
    sb_features2: U32
    sb_bad_features2: U32
    sb_features_compat: U32
    sb_features_ro_compat: U32
    sb_features_incompat: U32
    sb_features_log_incompat: U32
    sb_crc: Crc
    sb_spino_align: U32
    sb_pquotino: U64
    sb_lsn: U64
    sb_meta_uuid: Uuid
    sb_metadirino: U64
    sb_rgcount: U32
    sb_rgextents: U32
    sb_rgblklog: U8
    sb_pad1: U8
    sb_pad2: U16
    sb_pad3: U32
    sb_rtstart: U64
    sb_rtreserved: U64


SB = Layout(
    Superblock,
    size=SB_BYTES,
    at={
        "sb_logstart": 48,
        "sb_versionnum": 100,
        "sb_fname": 108,
        "sb_icount": 128,
        "sb_features2": 200,
        "sb_crc": 224,
        "sb_meta_uuid": 248,
        "sb_metadirino": 264,
        "sb_rtstart": 288,
    },
)
SB_CRC_OFFSET = SB.offsets["sb_crc"]


def decode(data: bytes | memoryview) -> Superblock:
    """The raw superblock from the first `SB_BYTES` of a device or AG; no judgement."""
    return SB.decode_bytes(data)


def is_v5(sb: Superblock) -> bool:
    """Whether the version number says 5: CRCs, self-describing metadata."""
    return sb.sb_versionnum & f.VERSION_MASK == 5


def features2(sb: Superblock) -> int:
    """`sb_features2`, or the misplaced copy that some old V4 filesystems have."""
    return sb.sb_features2 | sb.sb_bad_features2 if sb.sb_versionnum & f.MOREBITS else 0


def verify(
    data: bytes | memoryview, where: str = "AG 0", *, force: bool = False, secondary: bool = False
) -> Superblock:
    """Judge a superblock sector (at least `sb_sectsize` bytes of it, or as many as there are).

    Raises `NotXfs` without the magic, `Unsupported` for a version or incompat bit that is not known (and for
    NEEDSREPAIR unless `force`), `Corrupt` for anything that contradicts itself.  A `secondary` one may say that
    mkfs is still in progress: only the primary's flag is ever cleared.
    """
    if len(data) < SB_BYTES or bytes(data[:4]) != b"XFSB":
        raise NotXfs(f"no XFS superblock at {where} (found {bytes(data[:4])!r})")
    sb = decode(data)
    version = sb.sb_versionnum & f.VERSION_MASK
    if version not in (4, 5):
        raise Unsupported(f"XFS version {version} ({where}): only 4 and 5 can be read")
    _check_sizes(sb, where)
    if version == 5:
        sector = data[: sb.sb_sectsize]
        if len(sector) == sb.sb_sectsize:
            want, found = stored_crc(sb.sb_crc), checksum(sector, SB_CRC_OFFSET)
            if want != found:
                raise Corrupt("superblock", where, "sb_crc", want, found)
        unknown = sb.sb_features_incompat & ~f.INCOMPAT_READABLE
        if unknown:
            named = ", ".join(f.names(unknown, f.INCOMPAT_BITS))
            raise Unsupported(f"incompatible feature {named} ({where}): this version cannot read it")
        if sb.sb_features_incompat & f.IN_NEEDSREPAIR and not force:
            raise Unsupported(f"NEEDSREPAIR is set ({where}): run xfs_repair, or read it all the same with --force")
    else:
        if not sb.sb_versionnum & f.DIRV2:
            raise Unsupported(f"version 1 directories ({where}): made before 2000, no Linux reads them any more")
        if not sb.sb_versionnum & f.NLINK and sb.sb_versionnum & f.SHARED:
            raise Unsupported(f"shared read-only V4 filesystem ({where})")
    _check_shape(sb, where, secondary)
    return sb


def _check_sizes(sb: Superblock, where: str) -> None:
    def need(ok: bool, field: str, expected: object, found: object) -> None:
        if not ok:
            raise Corrupt("superblock", where, field, expected, found)

    need(9 <= sb.sb_blocklog <= 16, "sb_blocklog", "9 to 16", sb.sb_blocklog)
    need(sb.sb_blocksize == 1 << sb.sb_blocklog, "sb_blocksize", 1 << sb.sb_blocklog, sb.sb_blocksize)
    need(9 <= sb.sb_sectlog <= 15, "sb_sectlog", "9 to 15", sb.sb_sectlog)
    need(sb.sb_sectsize == 1 << sb.sb_sectlog, "sb_sectsize", 1 << sb.sb_sectlog, sb.sb_sectsize)
    need(8 <= sb.sb_inodelog <= 11, "sb_inodelog", "8 to 11", sb.sb_inodelog)
    need(sb.sb_inodesize == 1 << sb.sb_inodelog, "sb_inodesize", 1 << sb.sb_inodelog, sb.sb_inodesize)
    if is_v5(sb):
        need(sb.sb_inodelog >= 9, "sb_inodesize", "at least 512 on V5", sb.sb_inodesize)
        need(sb.sb_blocklog >= 10, "sb_blocksize", "at least 1024 on V5", sb.sb_blocksize)
    need(
        sb.sb_inopblog == sb.sb_blocklog - sb.sb_inodelog,
        "sb_inopblog",
        sb.sb_blocklog - sb.sb_inodelog,
        sb.sb_inopblog,
    )
    need(sb.sb_inopblock == 1 << sb.sb_inopblog, "sb_inopblock", 1 << sb.sb_inopblog, sb.sb_inopblock)
    need(
        sb.sb_dirblklog + sb.sb_blocklog <= 16,
        "sb_dirblklog",
        f"at most {16 - sb.sb_blocklog}",
        sb.sb_dirblklog,
    )


def _check_shape(sb: Superblock, where: str, secondary: bool) -> None:
    def need(ok: bool, field: str, expected: object, found: object) -> None:
        if not ok:
            raise Corrupt("superblock", where, field, expected, found)

    need(sb.sb_inprogress == 0 or secondary, "sb_inprogress", 0, sb.sb_inprogress)
    need(sb.sb_agcount > 0, "sb_agcount", "at least 1", 0)
    need(
        64 <= sb.sb_agblocks <= (1 << 40) >> sb.sb_blocklog,
        "sb_agblocks",
        "64 blocks to 1 TiB",
        sb.sb_agblocks,
    )
    log = (sb.sb_agblocks - 1).bit_length()
    need(sb.sb_agblklog == log, "sb_agblklog", log, sb.sb_agblklog)
    most = sb.sb_agcount * sb.sb_agblocks
    least = (sb.sb_agcount - 1) * sb.sb_agblocks + 64
    need(least <= sb.sb_dblocks <= most, "sb_dblocks", f"{least} to {most}", sb.sb_dblocks)
    need(sb.sb_rextsize > 0 or sb.sb_rblocks == 0, "sb_rextsize", "at least 1", sb.sb_rextsize)
    if sb.sb_features_incompat & f.IN_METADIR and is_v5(sb) and sb.sb_rblocks:
        need(sb.sb_rgblklog <= 32, "sb_rgblklog", "at most 32", sb.sb_rgblklog)
        need(sb.sb_rgextents > 0, "sb_rgextents", "at least 1", sb.sb_rgextents)
