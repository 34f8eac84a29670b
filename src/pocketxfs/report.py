"""What `statvfs`, `info` and `memory_report` say; all JSON-able but the first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .btree import read_agf
from .errors import Error
from .format import features as f
from .format import superblock
from .format.geometry import Geometry
from .format.superblock import features2

if TYPE_CHECKING:
    from .filesystem import FileSystem
    from .inode import Mount

#: Blocks an AG that Linux never gives to files (xfs_alloc_set_aside).
SET_ASIDE_BLOCKS = 8
MAX_INODES = (1 << 56) - 1


def statvfs(mount: Mount) -> os.statvfs_result:
    """What Linux's statfs says of a read-only mount (kernel: xfs_fs_statfs).  Reads every AGF."""
    geo = mount.geo
    sb = geo.sb
    log_blocks = sb.sb_logblocks if sb.sb_logstart else 0
    free = max(0, sb.sb_fdblocks - geo.ag_count * SET_ASIDE_BLOCKS - _allocbt_blocks(mount))
    files = min(sb.sb_icount + (free << geo.inopblog), MAX_INODES)
    if sb.sb_imax_pct:
        chunk_blocks = max(1, 64 >> geo.inopblog)
        most = sb.sb_dblocks * sb.sb_imax_pct // 100 // chunk_blocks * chunk_blocks << geo.inopblog
        files = min(files, most)
    files = max(files, sb.sb_icount)
    free_files = max(0, files - (sb.sb_icount - sb.sb_ifree))
    blocks = sb.sb_dblocks - log_blocks
    flags = getattr(os, "ST_RDONLY", 1)
    return os.statvfs_result(
        (geo.block_bytes, geo.block_bytes, blocks, free, free, files, free_files, free_files, flags, 255, 0)
    )


def _allocbt_blocks(mount: Mount) -> int:
    """Blocks of the bnobt and cntbt below their roots: counted as free on disk, and never given to files."""
    blocks = 0
    for agno in range(mount.geo.ag_count):
        agf = read_agf(mount.cache, agno)
        rmap_blocks = agf.agf_rmap_blocks - 1 if mount.geo.has_rmapbt else 0
        blocks += max(0, agf.agf_btreeblks - rmap_blocks)
    return blocks


def feature_names(geo: Geometry) -> list[str]:
    """Every feature bit that is set, by name."""
    sb = geo.sb
    found = f.names(sb.sb_versionnum & ~f.VERSION_MASK, f.VERSION_BITS)
    found += f.names(features2(sb), f.FEATURES2_BITS)
    if geo.has_crc:
        found += f.names(sb.sb_features_compat, f.COMPAT_BITS)
        found += f.names(sb.sb_features_ro_compat, f.RO_COMPAT_BITS)
        found += f.names(sb.sb_features_incompat, f.INCOMPAT_BITS)
        found += f.names(sb.sb_features_log_incompat, f.LOG_INCOMPAT_BITS)
    return list(dict.fromkeys(found))


def secondary_superblocks(mount: Mount) -> list[str]:
    """What is wrong with the copies of the superblock that every AG but the first begins with; usually nothing."""
    geo = mount.geo
    wrong = []
    for agno in range(1, geo.ag_count):
        where = f"AG {agno}"
        try:
            raw = mount.device.pread(geo.agb_to_daddr(agno, 0) << 9, geo.sector_bytes)
            copy = superblock.verify(raw, where, force=True, secondary=True)
        except Error as error:
            wrong.append(str(error))
            continue
        for name in ("sb_blocksize", "sb_agblocks", "sb_agcount", "sb_inodesize", "sb_sectsize", "sb_logstart"):
            if getattr(copy, name) != getattr(geo.sb, name):
                wrong.append(f"superblock at {where}: {name} is {getattr(copy, name)}, not {getattr(geo.sb, name)}")
    return wrong


def info(fs: FileSystem) -> dict[str, Any]:
    """Geometry, features, counts, log."""
    geo, sb = fs.geo, fs.geo.sb
    state = fs.log_state
    if state is None:
        log_word = "not examined"
    else:
        log_word = "clean" if state.clean else "dirty"
    return {
        "device": os.fsdecode(fs.mount.device.name),
        "device_bytes": fs.mount.device.size_bytes,
        "version": geo.version,
        "label": sb.sb_fname.rstrip(b"\0").decode("utf-8", "backslashreplace"),
        "uuid": str(UUID(bytes=sb.sb_uuid)),
        "meta_uuid": str(UUID(bytes=geo.meta_uuid)),
        "block_bytes": geo.block_bytes,
        "sector_bytes": geo.sector_bytes,
        "inode_bytes": geo.inode_bytes,
        "directory_block_bytes": geo.dir_block_bytes,
        "data_blocks": sb.sb_dblocks,
        "ag_count": geo.ag_count,
        "ag_blocks": geo.ag_blocks,
        "stripe_unit_blocks": sb.sb_unit,
        "stripe_width_blocks": sb.sb_width,
        "inode_max_percent": sb.sb_imax_pct,
        "inodes": sb.sb_icount,
        "free_inodes": sb.sb_ifree,
        "free_blocks": sb.sb_fdblocks,
        "root_inode": sb.sb_rootino,
        "features": feature_names(geo),
        "log": {
            "state": log_word,
            "reason": state.reason if state is not None else "",
            "internal": bool(sb.sb_logstart),
            "blocks": sb.sb_logblocks,
            "start_block": sb.sb_logstart,
            "version": 2 if sb.sb_versionnum & f.LOGV2 else 1,
            "sector_bytes": geo.log_sector_bytes,
            "stripe_unit_bytes": sb.sb_logsunit,
            "recovered": fs.recovered.as_dict() if fs.recovered is not None else None,
        },
        "realtime": {
            "blocks": sb.sb_rblocks,
            "extent_blocks": sb.sb_rextsize,
            "extents": sb.sb_rextents,
            "groups": sb.sb_rgcount if geo.has_rtgroups else 0,
            "device_given": fs.mount.rtdev is not None,
        },
        "secondary_superblocks_wrong": secondary_superblocks(fs.mount),
        "truncated": fs.mount.device.size_bytes < sb.sb_dblocks << geo.block_log,
    }


def memory_report(fs: FileSystem) -> dict[str, Any]:
    """The machine's report, the cache's by kind, the devices' counters."""
    mount = fs.mount
    report = dict(mount.machine.report())
    report["buffers"] = mount.cache.report()
    devices = {"data": mount.device}
    if mount.rtdev is not None:
        devices["realtime"] = mount.rtdev
    report["devices"] = {
        role: {"reads": device.reads, "read_bytes": device.read_bytes, "segments": device.segments}
        for role, device in devices.items()
    }
    return report
