"""Sizes and offsets of layouts, and that a superblock that contradicts itself is refused by name."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c

from pocketxfs.errors import Corrupt, NotXfs, Unsupported
from pocketxfs.format import attr, da, features, inode, superblock, symlink
from pocketxfs.format import dir as directory
from pocketxfs.format.geometry import Geometry
from pocketxfs.format.layout import Layout


def good_superblock(**changes: int | bytes) -> bytes:
    """A V5 superblock of four AGs of 65536 blocks of 4 KiB."""
    fields = dict.fromkeys(superblock.Superblock._fields, 0)
    fields.update(
        sb_magicnum=superblock.XFS_SB_MAGIC, sb_blocksize=4096, sb_dblocks=4 * 65536, sb_uuid=b"u" * 16,
        sb_logstart=(2 << 16) + 6, sb_rootino=128, sb_rextsize=1, sb_agblocks=65536, sb_agcount=4, sb_logblocks=2560,
        sb_versionnum=5 | features.NLINK | features.DIRV2 | features.ALIGN | features.EXTFLG | features.MOREBITS,
        sb_sectsize=512, sb_inodesize=512, sb_inopblock=8, sb_fname=b"label" + bytes(7), sb_blocklog=12, sb_sectlog=9,
        sb_inodelog=9, sb_inopblog=3, sb_agblklog=16, sb_inoalignmt=8, sb_features_incompat=features.IN_FTYPE,
        sb_crc=bytes(4), sb_meta_uuid=bytes(16),
    )  # fmt: skip
    fields.update(changes)
    raw = bytearray(superblock.SB.struct.pack(*fields.values()).ljust(512, b"\0"))
    raw[224:228] = struct.pack("<I", crc32c(bytes(raw)))
    return bytes(raw)


def test_good_superblock_passes():
    geo = Geometry(superblock.verify(good_superblock()))
    assert (geo.block_bytes, geo.ag_count, geo.cluster_bytes, geo.ag_header_blocks) == (4096, 4, 16384, 1)
    assert geo.inode_place(128 + 33) == ((128 + 32) // 8 * 8, 512)
    assert geo.fsb_to_daddr((1 << 16) + 5) == (65536 + 5) * 8
    assert not geo.ino_valid(0)
    assert geo.ino_valid(128)
    assert not geo.ino_valid(4 << 19)


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"sb_magicnum": 1}, NotXfs, "superblock"),
        ({"sb_blocklog": 40}, Corrupt, "sb_blocklog"),
        ({"sb_blocksize": 8192}, Corrupt, "sb_blocksize"),
        ({"sb_sectsize": 513}, Corrupt, "sb_sectsize"),
        ({"sb_inopblog": 9}, Corrupt, "sb_inopblog"),
        ({"sb_agblklog": 60}, Corrupt, "sb_agblklog"),
        ({"sb_agcount": 0}, Corrupt, "sb_agcount"),
        ({"sb_dblocks": 1 << 60}, Corrupt, "sb_dblocks"),
        ({"sb_dirblklog": 9}, Corrupt, "sb_dirblklog"),
        ({"sb_inprogress": 1}, Corrupt, "sb_inprogress"),
        ({"sb_features_incompat": 1 << 9}, Unsupported, "zoned"),
        ({"sb_features_incompat": 1 << 30}, Unsupported, "unknown-bit-30"),
        ({"sb_features_incompat": 1 << 4}, Unsupported, "NEEDSREPAIR"),
        ({"sb_versionnum": 3}, Unsupported, "version 3"),
        ({"sb_versionnum": 7}, Unsupported, "version 7"),
    ],
)
def test_bad_superblock_is_refused_by_name(change, error, word):
    with pytest.raises(error, match=word):
        superblock.verify(good_superblock(**change))


def test_unknown_ro_compat_is_read_and_needsrepair_can_be_forced():
    superblock.verify(good_superblock(sb_features_ro_compat=1 << 29))
    superblock.verify(good_superblock(sb_features_incompat=1 << 4), force=True)


def test_flipped_superblock_fails_its_checksum():
    raw = bytearray(good_superblock())
    raw[130] ^= 1
    with pytest.raises(Corrupt, match="sb_crc"):
        superblock.verify(bytes(raw))


def test_structs_have_the_disks_sizes():
    sizes = {
        superblock.SB.struct: 304, inode.CORE2: 100, inode.CORE3: 176, directory.HDR3: 48, da.BLKINFO: 12,
        da.BLKINFO3: 56, attr.LEAF_ENTRY: 8, attr.RMT_HDR: 56, symlink.HDR: 56, attr.ACL_ENTRY: 12,
    }  # fmt: skip
    assert {layout.format: layout.size for layout in sizes} == {layout.format: size for layout, size in sizes.items()}


def test_a_layout_that_is_declared_wrongly_does_not_load():
    with pytest.raises(AssertionError, match="declared 5"):
        Layout(superblock.Superblock, size=5)
    with pytest.raises(AssertionError, match="sb_crc"):
        Layout(superblock.Superblock, size=304, at={"sb_crc": 1})
