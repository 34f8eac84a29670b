"""What a log item changes, in words: structures before and after its replay, compared field by field.

Known structures are decoded (superblock, AG headers, leaves of B+trees, directories, attributes, inodes and their
forks); what cannot be decoded, or is not known, is told by the ranges of bytes that differ.  Nothing here changes
anything.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import Corrupt
from ..format import ag, attr, btree, da, dir, inode, superblock
from ..format.block import BytesBlock
from ..format.geometry import Geometry
from ..format.layout import Layout

#: Changes of one kind listed one by one; more are counted.
LISTED = 24
_NOT_SHOWN = frozenset((
    "sb_crc", "sb_lsn", "agf_crc", "agf_lsn", "agi_crc", "agi_lsn", "agfl_crc", "agfl_lsn", "crc", "lsn",
))  # fmt: skip
_CORE_NAMES = (
    "magic", "mode", "version", "format", "onlink", "uid", "gid", "nlink", "projid_lo", "projid_hi", "big_nextents",
    "atime", "mtime", "ctime", "size", "nblocks", "extsize", "nextents", "anextents", "forkoff", "aformat",
    "dmevmask", "dmstate", "flags", "gen", "next_unlinked", "crc", "changecount", "lsn", "flags2", "cowextsize",
    "crtime", "ino", "uuid",
)  # fmt: skip
_TIMES = frozenset(("atime", "mtime", "ctime", "crtime"))
_HEX = frozenset(("flags", "flags2", "magic", "uuid", "agf_uuid", "agi_uuid", "agfl_uuid"))
#: What says nothing about an inode that was free before.
_NEW_NOT_SHOWN = frozenset(("mode", "format", "aformat", "forkoff", "flags2", "gen", *_TIMES))
_KINDS = {
    inode.S_IFREG: "regular file", inode.S_IFDIR: "directory", inode.S_IFLNK: "symbolic link",
    inode.S_IFCHR: "character device", inode.S_IFBLK: "block device", inode.S_IFIFO: "fifo",
    inode.S_IFSOCK: "socket",
}  # fmt: skip
_FLAG2_BIGTIME = 8
_NULL = (1 << 64) - 1
_LEAF_FIELDS = {
    "bnobt": ("block", "blocks"), "cntbt": ("block", "blocks"), "inobt": ("inodes from", "holes", "count", "free",
    "mask"), "finobt": ("inodes from", "holes", "count", "free", "mask"), "rmapbt": ("block", "blocks", "owner",
    "offset", "flags"), "refcountbt": ("block", "blocks", "references", "staging"), "bmbt": ("file block", "block",
    "blocks", "unwritten"),
}  # fmt: skip


class Change(NamedTuple):
    """One difference: a field with its values, or something added (`before` None) or gone (`after` None)."""

    what: str
    before: Any
    after: Any

    def words(self) -> str:
        """On one line."""
        if self.before is None:
            return f"+ {self.what} {self.after}".rstrip()
        if self.after is None:
            return f"- {self.what} {self.before}".rstrip()
        return f"{self.what} {self.before} -> {self.after}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"what": self.what, "from": _plain(self.before), "to": _plain(self.after)}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, str, bool)) else str(value)


def name(raw: bytes) -> str:
    """A name from the disk that is safe to show."""
    text = raw.decode("utf-8", "backslashreplace")
    return repr(text)


# -- what and where --------------------------------------------------------------------------------------------------


def place(geo: Geometry, daddr: int) -> str:
    """A disk address in words."""
    agno, agb = divmod(daddr >> geo.block_sectors_log, geo.ag_blocks)
    within = daddr & ((1 << geo.block_sectors_log) - 1)
    if within or agb == 0:
        return f"AG {agno} sector {(agb << geo.block_sectors_log) + within}"
    return f"AG {agno} block {agb}"


_BY_MAGIC = {
    b"XFSB": "superblock", b"XAGF": "AGF", b"XAGI": "AGI", b"XAFL": "AGFL", b"XSLM": "symlink target",
    b"XDB3": "directory block", b"XD2B": "directory block", b"XDD3": "directory data", b"XD2D": "directory data",
    b"XDF3": "directory free index", b"XD2F": "directory free index", b"XARM": "attribute value",
}  # fmt: skip
_BY_DA_MAGIC = {
    b"\x3d\xf1": "directory leaf", b"\xd2\xf1": "directory leaf", b"\x3d\xff": "directory leafn",
    b"\xd2\xff": "directory leafn", b"\x3e\xbe": "hash tree node", b"\xfe\xbe": "hash tree node",
    b"\x3b\xee": "attribute leaf", b"\xfb\xee": "attribute leaf",
}  # fmt: skip


def structure(data: bytes, geo: Geometry) -> str:
    """What a block holds, by its magic number; "" where it has none."""
    found = _BY_MAGIC.get(data[:4])
    if found is not None:
        return found
    tree = _tree(data)
    if tree is not None:
        level = int.from_bytes(data[4:6], "big")
        return f"{tree.kind} {'leaf' if level == 0 else f'node, level {level}'}"
    if data[:2] == b"IN":
        return "inodes"
    if data[:2] == b"DQ":
        return "dquots"
    return _BY_DA_MAGIC.get(data[8:10], "")


def _tree(data: bytes) -> btree.Tree | None:
    magic = int.from_bytes(data[:4], "big")
    for tree in btree.TREES:
        if magic in (tree.magic4, tree.magic5):
            return tree
    return None


# -- buffers ---------------------------------------------------------------------------------------------------------


def buffer_changes(before: bytes, after: bytes, geo: Geometry) -> list[Change]:
    """What differs between two states of a buffer."""
    if before == after:
        return []
    changes: list[Change] = []
    kinds = structure(before, geo), structure(after, geo)
    if kinds[0] != kinds[1]:
        changes.append(Change("content", kinds[0] or "other", kinds[1] or "other"))
        before = bytes(len(before))
    try:
        changes += _known(before, after, geo)
    except (Corrupt, struct.error, IndexError):
        changes += ranges(before, after)
    return changes


def _known(before: bytes, after: bytes, geo: Geometry) -> list[Change]:
    magic = after[:4]
    if magic == b"XFSB":
        return _fields(superblock.SB, before, after)
    if magic == b"XAGF":
        return _fields(ag.AGF, before, after)
    if magic == b"XAGI":
        return _agi(before, after)
    if magic == b"XAFL":
        return _agfl(before, after)
    tree = _tree(after)
    if tree is not None:
        return _tree_block(tree, before, after, geo)
    if magic in (b"XDB3", b"XD2B", b"XDD3", b"XD2D"):
        return _difference("entry", _entries(before, geo), _entries(after, geo))
    kind = _BY_DA_MAGIC.get(after[8:10])
    if kind == "attribute leaf":
        return _difference("attribute", _attributes(before, geo), _attributes(after, geo))
    if kind is not None:
        old = da.header(BytesBlock(before), geo).nentries if structure(before, geo) == kind else 0
        new = da.header(BytesBlock(after), geo).nentries
        found = ranges(before, after)
        return [Change("entries", old, new), *found] if old != new else found
    if magic == b"XSLM":
        return [Change("target", None, name(after[56 : 56 + int.from_bytes(after[8:12], "big")]))]
    if after[:2] == b"IN":
        return _cluster(before, after, geo)
    return ranges(before, after)


def ranges(before: bytes, after: bytes) -> list[Change]:
    """Where bytes differ, in runs of 8."""
    spans: list[tuple[int, int]] = []
    for at in range(0, len(after), 8):
        if before[at : at + 8] != after[at : at + 8]:
            if spans and spans[-1][1] == at:
                spans[-1] = (spans[-1][0], at + 8)
            else:
                spans.append((at, at + 8))
    words = [f"{start}-{end - 1}" for start, end in spans[:LISTED]]
    if len(spans) > LISTED:
        words.append(f"and {len(spans) - LISTED} ranges more")
    return [Change("bytes", None, ", ".join(words))] if words else []


def _fields(layout: Layout[Any], before: bytes, after: bytes) -> list[Change]:
    old, new = layout.decode_bytes(before), layout.decode_bytes(after)
    return [
        Change(field, _value(field, one), _value(field, other))
        for field, one, other in zip(old._fields, old, new, strict=True)
        if one != other and field not in _NOT_SHOWN
    ]


def _value(field: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex() if field in _HEX or len(value) == 16 else name(value.rstrip(b"\0"))
    if value == _NULL or (value == 0xFFFFFFFF and field in ("agi_newino", "agi_dirino")):
        return "none"
    return hex(value) if field in _HEX else value


def _agi(before: bytes, after: bytes) -> list[Change]:
    changes = _fields(ag.AGI, before, after)
    old = ag.AGI_UNLINKED.unpack_from(before, ag.AGI_UNLINKED_OFFSET)
    new = ag.AGI_UNLINKED.unpack_from(after, ag.AGI_UNLINKED_OFFSET)
    for bucket, (one, other) in enumerate(zip(old, new, strict=True)):
        if one != other:
            changes.append(Change(f"agi_unlinked[{bucket}]", _agino(one), _agino(other)))
    tail = ag.AGI_TAIL_OFFSET
    return changes + _fields(ag.AGI_TAIL, before[tail:], after[tail:])


def _agino(value: int) -> Any:
    return "none" if value == 0xFFFFFFFF else value


def _agfl(before: bytes, after: bytes) -> list[Change]:
    header = ag.AGFL.size
    changes = []
    for at in range(header, len(after) - 3, 4):
        one, other = int.from_bytes(before[at : at + 4], "big"), int.from_bytes(after[at : at + 4], "big")
        if one != other:
            changes.append(Change(f"agfl_bno[{(at - header) // 4}]", _agino(one), _agino(other)))
    return changes


def _tree_block(tree: btree.Tree, before: bytes, after: bytes, geo: Geometry) -> list[Change]:
    changes: list[Change] = []
    names = ("level", "numrecs", "leftsib", "rightsib")
    head = struct.Struct(">HHQQ" if tree.is_long else ">HHII")
    fresh = _tree(before) is not tree
    old, new = head.unpack_from(before, 4), head.unpack_from(after, 4)
    if not fresh:
        none = (1 << 64) - 1 if tree.is_long else 0xFFFFFFFF
        for field, one, other in zip(names, old, new, strict=True):
            if one != other:
                changes.append(Change(field, "none" if one == none else one, "none" if other == none else other))
    if new[0] or (not fresh and old[0]):
        return changes + ([] if changes else ranges(before, after))
    old_records = [] if fresh else _records(tree, before, old[1], geo)
    return changes + _difference("record", old_records, _records(tree, after, new[1], geo))


def _records(tree: btree.Tree, data: bytes, count: int, geo: Geometry) -> list[str]:
    head = tree.header_bytes(geo)
    count = min(count, (len(data) - head) // tree.rec_bytes)
    fields = _LEAF_FIELDS.get(tree.kind)
    found = []
    for record in tree.decode(data[head : head + count * tree.rec_bytes], geo):
        if fields is None:
            found.append(str(tuple(record)))
        else:
            found.append(
                ", ".join(
                    f"{field} {_record_value(field, value, geo)}" for field, value in zip(fields, record, strict=False)
                )
            )
    return found


def _record_value(field: str, value: Any, geo: Geometry) -> Any:
    if field in ("mask", "holes", "flags"):
        return hex(value)
    if field == "owner":
        return btree.RMAP_OWNERS.get(value) or f"inode {value}"
    if field in ("unwritten", "staging"):
        return "yes" if value else "no"
    return value


def _entries(data: bytes, geo: Geometry) -> list[str]:
    if structure(data, geo) not in ("directory block", "directory data"):
        return []
    return [f"{name(raw)} inode {ino}" for raw, ino, _, _ in dir.data_entries(BytesBlock(data), geo, 0, "")]


def _attributes(data: bytes, geo: Geometry) -> list[str]:
    if structure(data, geo) != "attribute leaf":
        return []
    return [_attribute(entry) for entry in attr.leaf_entries(BytesBlock(data), geo, "")]


_SPACES = {0: b"user.", attr.ROOT: b"trusted.", attr.SECURE: b"security."}


def _attribute(entry: attr.AttrEntry) -> str:
    space = entry.flags & attr.NAMESPACE_MASK
    if space == attr.PARENT and entry.value is not None and len(entry.value) >= attr.PARENT_REC.size:
        return f"parent inode {attr.PARENT_REC.unpack_from(entry.value)[0]}, which names it {name(entry.name)}"
    remote = "" if entry.value is not None else ", remote"
    half = ", not complete" if entry.flags & attr.INCOMPLETE else ""
    return f"{name(_SPACES.get(space, b'') + entry.name)} of {entry.value_bytes} bytes{remote}{half}"


def _difference(what: str, before: Iterable[str], after: Iterable[str]) -> list[Change]:
    """What is gone and what has come, as multisets."""
    old, new = Counter(before), Counter(after)
    gone, come = list((old - new).elements()), list((new - old).elements())
    changes = [Change(what, text, None) for text in gone[:LISTED]]
    if len(gone) > LISTED:
        changes.append(Change(what + "s", f"{len(gone) - LISTED} more", None))
    changes += [Change(what, None, text) for text in come[:LISTED]]
    if len(come) > LISTED:
        changes.append(Change(what + "s", None, f"{len(come) - LISTED} more"))
    return changes


def _cluster(before: bytes, after: bytes, geo: Geometry) -> list[Change]:
    """An inode buffer: how many inodes are new, whose unlinked pointers changed, or everything that did."""
    changes = []
    new = sum(
        before[at : at + 2] != b"IN" and after[at : at + 2] == b"IN" for at in range(0, len(after), geo.inode_bytes)
    )
    if new:
        changes.append(Change("inodes", None, f"{new} new and free"))
    for at in range(0, len(after), geo.inode_bytes):
        one, other = before[at : at + geo.inode_bytes], after[at : at + geo.inode_bytes]
        if one == other or one[:2] != b"IN":
            continue
        index = at // geo.inode_bytes
        old, new = int.from_bytes(one[96:100], "big"), int.from_bytes(other[96:100], "big")
        if old != new:
            changes.append(Change(f"next_unlinked of inode {index} in it", _agino(old), _agino(new)))
    return changes or ranges(before, after)


# -- inodes ----------------------------------------------------------------------------------------------------------


def inode_changes(before: bytes, after: bytes, geo: Geometry) -> list[Change]:
    """What differs between two states of an inode, forks too."""
    if before == after:
        return []
    old, new = _core(before, geo), _core(after, geo)
    changes = []
    fresh = old["mode"] == 0 and new["mode"] != 0
    if fresh:
        changes.append(
            Change("new", None, f"{_KINDS.get(new['mode'] & inode.S_IFMT, 'inode')}, mode {new['mode'] & 0o7777:04o}")
        )
    old_big, new_big = bool(old["flags2"] & _FLAG2_BIGTIME), bool(new["flags2"] & _FLAG2_BIGTIME)
    for field in _CORE_NAMES:
        one, other = old[field], new[field]
        if one == other or field in ("crc", "lsn", "changecount") or (fresh and field in _NEW_NOT_SHOWN):
            continue
        if field in _TIMES:
            one, other = _time(one, old_big), _time(other, new_big)
        elif field == "mode":
            one, other = f"{one:06o}", f"{other:06o}"
        elif field == "format" or field == "aformat":
            one, other = _format(one), _format(other)
        elif field in _HEX:
            one, other = (hex(value) if isinstance(value, int) else value.hex() for value in (one, other))
        elif field == "next_unlinked":
            one, other = _agino(one), _agino(other)
        changes.append(Change(field, one, other))
    for fork in ("data", "attribute"):
        try:
            changes += _difference(*_fork(old, before, new, after, geo, fork))
        except (Corrupt, struct.error, IndexError):
            changes.append(Change(f"{fork} fork", None, "changed"))
    return changes


def _core(raw: bytes, geo: Geometry) -> dict[str, Any]:
    layout = inode.CORE3 if geo.has_crc else inode.CORE2
    values = layout.unpack_from(raw)
    found: dict[str, Any] = dict.fromkeys(_CORE_NAMES, 0)
    found.update(zip(_CORE_NAMES, values, strict=False))
    return found


def _time(raw: int, bigtime: bool) -> str:
    nanoseconds = inode.time_ns(raw, bigtime)
    import time

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        shown = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        shown = str(seconds)
    return f"{shown}.{rest:09}"


def _format(value: int) -> str:
    return inode.FMT_NAMES[value] if value < len(inode.FMT_NAMES) else str(value)


def _fork(
    old: dict[str, Any], before: bytes, new: dict[str, Any], after: bytes, geo: Geometry, fork: str
) -> tuple[str, list[str], list[str]]:
    one, other = _fork_words(old, before, geo, fork), _fork_words(new, after, geo, fork)
    return (other[0] or one[0]), one[1], other[1]


def _fork_words(core: dict[str, Any], raw: bytes, geo: Geometry, fork: str) -> tuple[str, list[str]]:
    """(what a fork consists of, its parts in words)."""
    start = geo.inode_core_bytes
    forkoff = core["forkoff"] << 3
    big = core["flags2"] & inode.DIFLAG2_NREXT64
    if core["mode"] == 0:
        return "", []
    if fork == "data":
        data = raw[start : start + forkoff] if forkoff else raw[start : geo.inode_bytes]
        kind, count = core["format"], core["big_nextents"] if big else core["nextents"]
    else:
        if not forkoff:
            return "", []
        data = raw[start + forkoff : geo.inode_bytes]
        kind, count = core["aformat"], core["nextents"] if big else core["anextents"]
    if kind == inode.FMT_EXTENTS:
        return "extent", [
            f"file block {offset}, block {block}, blocks {blocks}{', unwritten' if unwritten else ''}"
            for offset, block, blocks, unwritten in inode.decode_extents(data[: count * inode.EXTENT_BYTES])
        ]
    if kind == inode.FMT_BTREE:
        level, numrecs = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        most = (len(data) - 4) // 16
        places = [4 + most * 8 + index * 8 for index in range(min(numrecs, most))]
        return f"{fork} fork root of level {level}, block", [
            str(int.from_bytes(data[at : at + 8], "big")) for at in places
        ]
    if kind == inode.FMT_LOCAL and fork == "attribute":
        return "attribute", [_attribute(entry) for entry in attr.decode_shortform(data, "")]
    if kind == inode.FMT_LOCAL and core["mode"] & inode.S_IFMT == inode.S_IFDIR:
        parent, entries = dir.decode_shortform(data[: core["size"]], geo, "")
        return "entry", [f"'..' inode {parent}", *(f"{name(one)} inode {ino}" for one, ino, _, _ in entries)]
    if kind == inode.FMT_LOCAL:
        return "target", [name(data[: core["size"]])]
    if kind == inode.FMT_DEV:
        return "device", [data[:4].hex()]
    return "", []
