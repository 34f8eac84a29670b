"""What a file is when it is not XFS: known magic numbers, so that a mistake is named and not only refused.

Sources: the formats' own specifications and the kernel's `magic.h`.  Limits: a guess for a message, nothing is
decided by it.
"""

from __future__ import annotations

from .base import Device

#: How much of the beginning is looked at; covers the furthest magic below.
PROBE_BYTES = 0x10048

_CONVERT = "; convert it to a raw image first (qemu-img convert -O raw)"
_UNPACK = "; decompress it first"

#: (offset, magic, what it is)
_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "a qcow2 image" + _CONVERT),
    (0, b"KDMV", "a VMDK image" + _CONVERT),
    (0, b"COWD", "a VMDK image" + _CONVERT),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor" + _CONVERT),
    (0, b"vhdxfile", "a VHDX image" + _CONVERT),
    (0, b"conectix", "a VHD image" + _CONVERT),
    (0x40, b"\x7f\x10\xda\xbe", "a VirtualBox VDI image" + _CONVERT),
    (0, b"QED\0", "a QED image" + _CONVERT),
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EWF (EnCase E01) image; export it as a raw image first"),
    (0, b"EVF2\x0d\x0a\x81\0", "an EWF2 (EnCase Ex01) image; export it as a raw image first"),
    (0, b"AFF", "an AFF image; export it as a raw image first"),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image; convert it first (simg2img)"),
    (0, b"\x1f\x8b", "a gzip file" + _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz file" + _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file" + _UNPACK),
    (0, b"BZh", "a bzip2 file" + _UNPACK),
    (0, b"\x04\x22\x4d\x18", "an lz4 file" + _UNPACK),
    (0, b"PK\x03\x04", "a zip archive" + _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive" + _UNPACK),
    (257, b"ustar", "a tar archive"),
    (0, b"xFSdump0", "an xfsdump stream, not an image; restore it with xfsrestore"),
    (0, b"XFSM", "an xfs_metadump; restore it first (xfs_mdrestore)"),
    (0, b"XMD2", "an xfs_metadump; restore it first (xfs_mdrestore)"),
    (0, b"\xfe\xed\xba\xbe", "an XFS log device; name the data device, and this one as its log"),
    (0, b"Frog", "an XFS realtime device; name the data device, and this one as its realtime device"),
    (0, b"LUKS\xba\xbe", "a LUKS encrypted volume; unlock it first"),
    (3, b"-FVE-FS-", "a BitLocker volume; unlock it first"),
    (0x218, b"LVM2 001", "an LVM2 physical volume; name the logical volume, or the offset where it begins"),
    (0x18, b"LVM2 001", "an LVM2 physical volume; name the logical volume, or the offset where it begins"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID array; name the array"),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID array; name the array"),
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 filesystem"),
    (0x10040, b"_BHRfS_M", "a btrfs filesystem"),
    (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcachefs filesystem"),
    (0x400, b"\x10\x20\xf5\xf2", "an f2fs filesystem"),
    (0x400, b"\xe2\xe1\xf5\xe0", "an EROFS filesystem"),
    (0, b"hsqs", "a squashfs filesystem"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (3, b"NTFS    ", "an NTFS filesystem"),
    (3, b"EXFAT   ", "an exFAT filesystem"),
    (0x36, b"FAT1", "a FAT filesystem"),
    (0x52, b"FAT32", "a FAT filesystem"),
    (0x400, b"H+", "an HFS+ filesystem"),
    (0x20, b"NXSB", "an APFS container"),
    (0x10034, b"ReIsEr", "a ReiserFS filesystem"),
    (0x8000, b"JFS1", "a JFS filesystem"),
    (0xFF6, b"SWAPSPACE2", "Linux swap space"),
)


def what_is(device: Device, start_bytes: int = 0) -> str | None:
    """What the bytes from `start_bytes` on look like; None where nothing is recognised."""
    nbytes = min(PROBE_BYTES, device.size_bytes - start_bytes)
    if nbytes <= 0:
        return None
    first = device.pread(start_bytes, nbytes)
    for offset, magic, what in _MAGICS:
        if first[offset : offset + len(magic)] == magic:
            return what
    if not any(first):
        return "empty (it begins with zeros only)"
    return None
