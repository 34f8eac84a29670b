"""What the superblock means: sizes, features by readable name, and every conversion between units.

The one place where the disk's names (`sb_blocklog`) become ours (`block_log`).  Immutable by convention.
"""

from __future__ import annotations

from . import features as f
from .superblock import Superblock, features2, is_v5

#: Where a directory's leaf and free-index blocks begin, in bytes of its address space.
DIR_LEAF_OFFSET = 32 << 30
DIR_FREE_OFFSET = 64 << 30
NULL_AGBLOCK = 0xFFFFFFFF
NULL_AGINO = 0xFFFFFFFF
NULL_INO = (1 << 64) - 1


class Geometry:
    """Sizes, features and unit conversions of one filesystem."""

    __slots__ = (
        "cluster_bytes",
        "end_ino",
        "last_ag_ino",
        "end_agino",
        "min_agino",
        "last_ag_blocks",
        "ag_header_blocks",
        "stat_blksize",
        "ag_block_log", "ag_block_mask", "ag_blocks", "ag_count", "agino_log", "agino_mask", "ascii_ci", "attr2",
        "block_bytes", "block_log", "block_sectors_log", "cluster_blocks", "dblocks", "dir_block_bytes",
        "dir_block_fsbs", "dir_block_log", "dir_free_fsb", "dir_leaf_fsb", "has_align", "has_bigtime", "has_crc",
        "has_finobt", "has_ftype", "has_inobtcnt", "has_metadir", "has_nrext64", "has_parent", "has_projid32",
        "has_reflink", "has_rmapbt", "has_rtgroups", "has_sparse", "inode_bytes", "inode_core_bytes", "inode_log",
        "inopblock", "inopblog", "inoalign_mask", "lazy_count", "literal_bytes", "log_blocks", "log_sector_bytes",
        "log_start", "meta_uuid", "rext_blocks", "rgblk_log", "rgroup_blocks", "root_ino", "rt_blocks", "sb",
        "sector_bytes", "uuid", "version",
    )  # fmt: skip

    def __init__(self, sb: Superblock) -> None:
        v5 = is_v5(sb)
        more = features2(sb)
        incompat = sb.sb_features_incompat if v5 else 0
        ro_compat = sb.sb_features_ro_compat if v5 else 0
        self.sb = sb
        self.version = sb.sb_versionnum & f.VERSION_MASK
        self.has_crc = v5
        self.uuid = sb.sb_uuid
        self.meta_uuid = sb.sb_meta_uuid if incompat & f.IN_META_UUID else sb.sb_uuid
        self.block_bytes, self.block_log = sb.sb_blocksize, sb.sb_blocklog
        self.block_sectors_log = sb.sb_blocklog - 9
        self.sector_bytes = sb.sb_sectsize
        self.inode_bytes, self.inode_log = sb.sb_inodesize, sb.sb_inodelog
        self.inode_core_bytes = 176 if v5 else 100
        self.literal_bytes = self.inode_bytes - self.inode_core_bytes
        self.inopblock, self.inopblog = sb.sb_inopblock, sb.sb_inopblog
        self.ag_count, self.ag_blocks = sb.sb_agcount, sb.sb_agblocks
        self.ag_block_log = sb.sb_agblklog
        self.ag_block_mask = (1 << sb.sb_agblklog) - 1
        self.agino_log = sb.sb_agblklog + sb.sb_inopblog
        self.agino_mask = (1 << self.agino_log) - 1
        self.dblocks = sb.sb_dblocks
        self.dir_block_log = sb.sb_blocklog + sb.sb_dirblklog
        self.dir_block_bytes = 1 << self.dir_block_log
        self.dir_block_fsbs = 1 << sb.sb_dirblklog
        self.dir_leaf_fsb = DIR_LEAF_OFFSET >> sb.sb_blocklog
        self.dir_free_fsb = DIR_FREE_OFFSET >> sb.sb_blocklog
        self.log_start, self.log_blocks = sb.sb_logstart, sb.sb_logblocks
        self.log_sector_bytes = sb.sb_logsectsize or 512
        self.root_ino = sb.sb_rootino
        self.rt_blocks, self.rext_blocks = sb.sb_rblocks, sb.sb_rextsize
        self.has_ftype = bool(incompat & f.IN_FTYPE) if v5 else bool(more & f.FTYPE2)
        self.has_sparse = bool(incompat & f.IN_SPINODES)
        self.has_bigtime = bool(incompat & f.IN_BIGTIME)
        self.has_nrext64 = bool(incompat & f.IN_NREXT64)
        self.has_parent = bool(incompat & f.IN_PARENT)
        self.has_metadir = bool(incompat & f.IN_METADIR)
        self.has_finobt = bool(ro_compat & f.RO_FINOBT)
        self.has_rmapbt = bool(ro_compat & f.RO_RMAPBT)
        self.has_reflink = bool(ro_compat & f.RO_REFLINK)
        self.has_inobtcnt = bool(ro_compat & f.RO_INOBTCNT)
        self.has_rtgroups = self.has_metadir
        self.has_projid32 = v5 or bool(more & f.PROJID32)
        self.has_align = bool(sb.sb_versionnum & f.ALIGN)
        self.lazy_count = v5 or bool(more & f.LAZYSBCOUNT)
        self.attr2 = v5 or bool(more & f.ATTR2)
        self.ascii_ci = bool(sb.sb_versionnum & f.BORG)
        self.rgblk_log = sb.sb_rgblklog if self.has_rtgroups else 0
        self.rgroup_blocks = sb.sb_rgextents * sb.sb_rextsize if self.has_rtgroups else 0
        self.stat_blksize = max(4096, self.block_bytes)
        #: Blocks at the start of each AG that its four header sectors take.
        self.ag_header_blocks = (3 * self.sector_bytes >> self.block_log) + 1
        last = self.ag_count - 1
        self.last_ag_blocks = self.dblocks - last * self.ag_blocks
        self.min_agino = self.ag_header_blocks << self.inopblog
        self.end_agino = self.ag_blocks << self.inopblog
        self.last_ag_ino = last << self.agino_log
        self.end_ino = self.last_ag_ino + (self.last_ag_blocks << self.inopblog)
        self._set_clusters(sb)

    def _set_clusters(self, sb: Superblock) -> None:
        """Inode clusters as the kernel sizes them: 8 KiB, in proportion to the inode on V5 where aligned so.

        Where inodes are not aligned to their clusters (old V4), one block at a time is read.
        """
        cluster_bytes = 8192
        if self.has_crc:
            scaled = 8192 * self.inode_bytes // 256
            if sb.sb_inoalignmt >= scaled >> self.block_log:
                cluster_bytes = scaled
        blocks = max(1, cluster_bytes >> self.block_log)
        aligned = self.has_align and sb.sb_inoalignmt >= blocks
        if aligned and sb.sb_inoalignmt & (sb.sb_inoalignmt - 1) == 0:
            self.inoalign_mask = sb.sb_inoalignmt - 1
            self.cluster_blocks = blocks
        else:
            self.inoalign_mask = 0
            self.cluster_blocks = 1
        #: Length of an inode cluster buffer.
        self.cluster_bytes = self.cluster_blocks << self.block_log

    # -- places ------------------------------------------------------------------------------------------------

    def fsb_to_daddr(self, fsb: int) -> int:
        """512-byte address of a filesystem block number."""
        return ((fsb >> self.ag_block_log) * self.ag_blocks + (fsb & self.ag_block_mask)) << self.block_sectors_log

    def agb_to_daddr(self, agno: int, agb: int) -> int:
        """512-byte address of a block of an AG."""
        return (agno * self.ag_blocks + agb) << self.block_sectors_log

    def daddr_to_fsb(self, daddr: int) -> int:
        """The filesystem block that a 512-byte address lies in."""
        agno, agb = divmod(daddr >> self.block_sectors_log, self.ag_blocks)
        return agno << self.ag_block_log | agb

    def split_fsb(self, fsb: int) -> tuple[int, int]:
        """(AG, block in it)."""
        return fsb >> self.ag_block_log, fsb & self.ag_block_mask

    def split_ino(self, ino: int) -> tuple[int, int]:
        """(AG, inode in it)."""
        return ino >> self.agino_log, ino & self.agino_mask

    def make_ino(self, agno: int, agino: int) -> int:
        """Absolute inode number."""
        return agno << self.agino_log | agino

    def ag_size_blocks(self, agno: int) -> int:
        """Blocks in an AG: all alike but the last."""
        return self.last_ag_blocks if agno == self.ag_count - 1 else self.ag_blocks

    # -- judgement ---------------------------------------------------------------------------------------------

    def fsb_valid(self, fsb: int, nblocks: int = 1) -> bool:
        """Whether `nblocks` from `fsb` lie within one AG, past its headers."""
        agno, agb = fsb >> self.ag_block_log, fsb & self.ag_block_mask
        if agno >= self.ag_count or nblocks <= 0 or agb < self.ag_header_blocks:
            return False
        return agb + nblocks <= (self.ag_blocks if agno != self.ag_count - 1 else self.last_ag_blocks)

    def rtb_valid(self, rtb: int, nblocks: int = 1) -> bool:
        """Whether `nblocks` from a realtime block number lie on the realtime device."""
        if not self.has_rtgroups:
            return nblocks > 0 and rtb + nblocks <= self.rt_blocks
        rgno, rgb = rtb >> self.rgblk_log, rtb & ((1 << self.rgblk_log) - 1)
        linear = rgno * self.rgroup_blocks + rgb
        return nblocks > 0 and rgb + nblocks <= self.rgroup_blocks and linear + nblocks <= self.rt_blocks

    def rtb_to_daddr(self, rtb: int) -> int:
        """512-byte address on the realtime device."""
        if self.has_rtgroups:
            rgno, rgb = rtb >> self.rgblk_log, rtb & ((1 << self.rgblk_log) - 1)
            rtb = rgno * self.rgroup_blocks + rgb
        return rtb << self.block_sectors_log

    def ino_valid(self, ino: int) -> bool:
        """Whether an inode number can be one: its AG exists and its block lies within it."""
        if ino < self.last_ag_ino:
            return self.min_agino <= ino & self.agino_mask < self.end_agino
        return ino < self.end_ino and ino & self.agino_mask >= self.min_agino

    def inode_place(self, ino: int) -> tuple[int, int]:
        """(512-byte address of the cluster buffer that holds an inode, byte offset of the inode in it)."""
        agno, agino = ino >> self.agino_log, ino & self.agino_mask
        agb, index = agino >> self.inopblog, agino & (self.inopblock - 1)
        if self.cluster_blocks > 1:
            inside = (agb & self.inoalign_mask) % self.cluster_blocks
            agb -= inside
            index += inside << self.inopblog
        return (agno * self.ag_blocks + agb) << self.block_sectors_log, index << self.inode_log
