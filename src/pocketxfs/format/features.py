"""Feature bits of the superblock, each by name (kernel: xfs_format.h; format document: "Superblocks").

A V4 filesystem keeps its features in `sb_versionnum` and `sb_features2`; a V5 one in four words of their own, whose
unknown bits mean: compat, nothing; ro_compat, read only; incompat, not at all; log_incompat, not while the log is
dirty.
"""

from __future__ import annotations

# sb_versionnum
VERSION_MASK = 0x000F
ATTR = 0x0010
NLINK = 0x0020
QUOTA = 0x0040
ALIGN = 0x0080
DALIGN = 0x0100
SHARED = 0x0200
LOGV2 = 0x0400
SECTOR = 0x0800
EXTFLG = 0x1000
DIRV2 = 0x2000
BORG = 0x4000
MOREBITS = 0x8000

VERSION_BITS = {
    ATTR: "attr",
    NLINK: "nlink",
    QUOTA: "quota",
    ALIGN: "align",
    DALIGN: "dalign",
    SHARED: "shared",
    LOGV2: "logv2",
    SECTOR: "sector",
    EXTFLG: "extflg",
    DIRV2: "dirv2",
    BORG: "ascii-ci",
    MOREBITS: "morebits",
}

# sb_features2
LAZYSBCOUNT = 0x0002
ATTR2 = 0x0008
PARENT2 = 0x0010
PROJID32 = 0x0080
CRC = 0x0100
FTYPE2 = 0x0200
FEATURES2_BITS = {
    LAZYSBCOUNT: "lazy-count",
    ATTR2: "attr2",
    PARENT2: "parent-v4",
    PROJID32: "projid32",
    CRC: "crc",
    FTYPE2: "ftype",
}

# sb_features_ro_compat
RO_FINOBT = 1 << 0
RO_RMAPBT = 1 << 1
RO_REFLINK = 1 << 2
RO_INOBTCNT = 1 << 3
RO_COMPAT_BITS = {RO_FINOBT: "finobt", RO_RMAPBT: "rmapbt", RO_REFLINK: "reflink", RO_INOBTCNT: "inobtcount"}

# sb_features_incompat
IN_FTYPE = 1 << 0
IN_SPINODES = 1 << 1
IN_META_UUID = 1 << 2
IN_BIGTIME = 1 << 3
IN_NEEDSREPAIR = 1 << 4
IN_NREXT64 = 1 << 5
IN_EXCHRANGE = 1 << 6
IN_PARENT = 1 << 7
IN_METADIR = 1 << 8
IN_ZONED = 1 << 9
IN_ZONE_GAPS = 1 << 10
INCOMPAT_BITS = {
    IN_FTYPE: "ftype",
    IN_SPINODES: "sparse-inodes",
    IN_META_UUID: "meta-uuid",
    IN_BIGTIME: "bigtime",
    IN_NEEDSREPAIR: "needsrepair",
    IN_NREXT64: "nrext64",
    IN_EXCHRANGE: "exchange",
    IN_PARENT: "parent",
    IN_METADIR: "metadir",
    IN_ZONED: "zoned",
    IN_ZONE_GAPS: "zone-gaps",
}
#: What can be read.  NEEDSREPAIR is known, and refused unless forced; the zoned pair is known, and refused.
INCOMPAT_READABLE = (
    IN_FTYPE
    | IN_SPINODES
    | IN_META_UUID
    | IN_BIGTIME
    | IN_NEEDSREPAIR
    | IN_NREXT64
    | IN_EXCHRANGE
    | IN_PARENT
    | IN_METADIR
)

LOG_XATTRS = 1 << 0
LOG_INCOMPAT_BITS = {LOG_XATTRS: "logged-xattrs"}

COMPAT_BITS: dict[int, str] = {}


def names(word: int, known: dict[int, str]) -> list[str]:
    """The names of the bits set in `word`; an unknown bit is called `unknown-bit-N`."""
    found = []
    for bit in range(word.bit_length()):
        if word >> bit & 1:
            found.append(known.get(1 << bit, f"unknown-bit-{bit}"))
    return found
