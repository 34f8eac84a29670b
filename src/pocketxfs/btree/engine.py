"""One engine for all B+trees: ordered iteration from any key, at any depth (kernel: xfs_btree.c).

A walk goes down from the root and then from leaf to leaf, in key order, through the interior blocks; sibling pointers
are not followed but checked against the way taken.  At most one block a level is held.  Since each level lies one below
its parent's, and each block's keys lie past those of the block before it, no block is met twice: every walk ends.

Limit: reading.  A walk sees the tree as it was when each block was read; changing trees comes with its own cursor.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import Corrupt
from ..format.block import Block, BytesBlock
from ..format.btree import (
    IROOT,
    LONG4,
    LONG5,
    NULL_FSBLOCK,
    SHORT4,
    Key,
    Place,
    Raw,
    Tree,
    judge_keys,
    judge_records,
)
from ..format.geometry import NULL_AGBLOCK

if TYPE_CHECKING:
    from ..buffer import Buffer, BufferCache, BufferOps


class Node:
    """A block of the way: where its parts lie, and which entry the walk is at."""

    __slots__ = ("base", "block", "buf", "index", "left", "level", "number", "numrecs", "ptrs", "right")

    def __init__(
        self, block: Block, buf: Buffer | None, number: int, level: int, numrecs: int, base: int, ptrs: int,
        left: int, right: int,
    ) -> None:  # fmt: skip
        self.block, self.buf, self.number = block, buf, number
        self.level, self.numrecs, self.base, self.ptrs = level, numrecs, base, ptrs
        self.left, self.right = left, right
        self.index = 0


class Btree:
    """Base: a tree whose root stands somewhere.  `ops` verifies its blocks."""

    __slots__ = ("cache", "geo", "none", "ops", "tree")

    def __init__(self, cache: BufferCache, tree: Tree, ops: BufferOps) -> None:
        self.cache, self.geo, self.tree, self.ops = cache, cache.geo, tree, ops
        self.none = NULL_FSBLOCK if tree.is_long else NULL_AGBLOCK

    # -- what a subclass knows ---------------------------------------------------------------------------------

    def root(self) -> Node:
        """The root, held where it is a block."""
        raise AssertionError("a tree has a root")

    def child(self, number: int, level: int, where: Node | None) -> Node:
        """The block that a pointer of `where` names, read, held, and at the level that it must have."""
        raise AssertionError("a tree has blocks")

    def at(self, number: int) -> str:
        """A block in words, for errors."""
        raise AssertionError("a tree has blocks")

    # -- reading -----------------------------------------------------------------------------------------------

    def records(self, start: Key = None) -> Iterator[Raw]:
        """Decoded records in key order, all, or from the last one whose key is not above `start`.

        (So a record that begins before `start` and reaches over it comes first; who does not want it skips it.)
        """
        tree, geo = self.tree, self.geo
        size = tree.rec_bytes
        decode = tree.decode
        for node in self.leaves(start):
            yield from decode(node.block.view(node.base + node.index * size, (node.numrecs - node.index) * size), geo)

    def lookup_le(self, key: Key) -> Raw | None:
        """The last record whose key is at most `key`, decoded, or None."""
        walk = self.leaves(key)
        try:
            node = next(walk)
            if not node.numrecs or self._key(node, node.index) > key:
                return None
            return self._record(node)
        finally:
            walk.close()

    def lookup_ge(self, key: Key) -> Raw | None:
        """The first record whose key is at least `key`, decoded, or None."""
        walk = self.leaves(key)
        try:
            for node in walk:
                while node.index < node.numrecs:
                    if self._key(node, node.index) >= key:
                        return self._record(node)
                    node.index += 1
            return None
        finally:
            walk.close()

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(level, block number) of every block of the tree but a root in an inode; parents before their children."""
        for node, fresh in self._walk(None):
            for above in fresh:
                if above.buf is not None:
                    yield above.level, above.number
            if node.buf is not None:
                yield 0, node.number

    def leaves(self, start: Key = None) -> Generator[Node, None, None]:
        """The leaves in order, each held until the next is asked for, `index` at the record to begin with."""
        walk = self._walk(start)
        try:
            for node, _ in walk:
                yield node
        finally:
            walk.close()

    # -- the walk ----------------------------------------------------------------------------------------------

    def _walk(self, start: Key) -> Generator[tuple[Node, list[Node]], None, None]:
        """Each leaf, with the interior blocks that were entered since the last."""
        way: list[Node] = []
        # by level: the block passed last, its right sibling, its last key or record
        passed: dict[int, tuple[int, int, Any]] = {}
        node = self.root()
        try:
            if node.buf is not None:
                self._judge_edges(node)
            # the root alone may be empty, and only as a leaf: the verifiers and `_descend` see to the rest
            seeking = start is not None
            while True:
                fresh = []
                while node.level:
                    if seeking:
                        node.index = self._search(node, start)
                    way.append(node)
                    fresh.append(node)
                    node = self._descend(way, passed)
                if seeking:
                    node.index = self._search(node, start)
                    seeking = False
                yield node, fresh
                if node.buf is not None:
                    node.buf.release()
                    node.buf = None
                while way:
                    above = way[-1]
                    above.index += 1
                    if above.index < above.numrecs:
                        break
                    way.pop()
                    if above.buf is not None:
                        above.buf.release()
                        above.buf = None
                else:
                    self._judge_ends(passed)
                    return
                node = self._descend(way, passed)
        finally:
            if node.buf is not None:
                node.buf.release()
                node.buf = None
            for above in way:
                if above.buf is not None:
                    above.buf.release()
                    above.buf = None

    def _descend(self, way: list[Node], passed: dict[int, tuple[int, int, Any]]) -> Node:
        """Read the block that the last of the way points at, and judge it by what was passed before."""
        tree = self.tree
        above = way[-1]
        number = above.block.unpack(tree.ptr, above.ptrs + above.index * tree.ptr_bytes)[0]
        node = self.child(number, above.level - 1, above)
        try:
            if node.numrecs == 0:
                raise Corrupt(tree.name, self.at(number), "numrecs", "at least 1 below the root", 0)
            floor = self._key(above, above.index)
            first = self._key(node, 0)
            if first < floor:
                raise Corrupt(tree.name, self.at(number), "first key", f"at least its parent's, {floor}", first)
            before = passed.get(node.level)
            if before is None:
                leftmost = all(step.index == 0 for step in way)
                if (node.left == self.none) is not leftmost:
                    expected = "none" if leftmost else "a block"
                    raise Corrupt(tree.name, self.at(number), "leftsib", expected, node.left)
            else:
                last_number, last_right, last = before
                if last_right != number:
                    raise Corrupt(tree.name, self.at(last_number), "rightsib", number, last_right)
                if node.left != last_number:
                    raise Corrupt(tree.name, self.at(number), "leftsib", last_number, node.left)
                self._judge_step(node, last)
            passed[node.level] = (number, node.right, self._last(node))
        except BaseException:
            if node.buf is not None:
                node.buf.release()
            raise
        return node

    def _judge_step(self, node: Node, last: Any) -> None:
        """The first entry of a block against the last of the block before it."""
        tree = self.tree
        if node.level == 0:
            ok = tree.follows(last, node.block.unpack(tree.rec, node.base))
        else:
            first = self._key(node, 0)
            ok = last <= first if tree.repeats else last < first
        if not ok:
            raise Corrupt(tree.name, self.at(node.number), "first key", "past the block before it", self._key(node, 0))

    def _last(self, node: Node) -> Any:
        tree = self.tree
        if node.level == 0:
            return node.block.unpack(tree.rec, node.base + (node.numrecs - 1) * tree.rec_bytes)
        return self._key(node, node.numrecs - 1)

    def _judge_edges(self, root: Node) -> None:
        for field, sibling in (("leftsib", root.left), ("rightsib", root.right)):
            if sibling != self.none:
                raise Corrupt(self.tree.name, self.at(root.number), field, "none at the root", sibling)

    def _judge_ends(self, passed: dict[int, tuple[int, int, Any]]) -> None:
        for number, right, _ in passed.values():
            if right != self.none:
                raise Corrupt(self.tree.name, self.at(number), "rightsib", "none at the end", right)

    def _key(self, node: Node, index: int) -> Key:
        tree = self.tree
        if node.level:
            return tree.node_key(node.block.unpack(tree.key, node.base + index * tree.node_key_bytes))
        return tree.rec_key(node.block.unpack(tree.rec, node.base + index * tree.rec_bytes))

    def _record(self, node: Node) -> Raw:
        tree = self.tree
        data = node.block.view(node.base + node.index * tree.rec_bytes, tree.rec_bytes)
        found: Iterable[Raw] = tree.decode(data, self.geo)
        return next(iter(found))

    def _search(self, node: Node, start: Key) -> int:
        """Index of the last entry whose key is at most `start`; 0 where none is."""
        tree = self.tree
        low, high = 0, node.numrecs
        if node.level:
            unpack, step, key_of = tree.key.unpack_from, tree.node_key_bytes, tree.node_key
        else:
            unpack, step, key_of = tree.rec.unpack_from, tree.rec_bytes, tree.rec_key
        data: memoryview | bytes | None = node.block.data
        base = node.base
        if data is None:
            data, base = node.block.view(base, high * step), 0
        while low < high:
            middle = (low + high) >> 1
            if key_of(unpack(data, base + middle * step)) <= start:
                low = middle + 1
            else:
                high = middle
        return max(low - 1, 0)


class AgBtree(Btree):
    """A tree rooted in an AG header: 32-bit pointers within the AG."""

    __slots__ = ("agno", "length", "levels", "root_block")

    def __init__(self, cache: BufferCache, tree: Tree, ops: BufferOps, agno: int, root_block: int, levels: int) -> None:
        super().__init__(cache, tree, ops)
        self.agno, self.root_block, self.levels = agno, root_block, levels
        self.length = self.geo.ag_size_blocks(agno)

    def at(self, number: int) -> str:
        return f"AG {self.agno} block {number}"

    def root(self) -> Node:
        return self.child(self.root_block, self.levels - 1, None)

    def child(self, number: int, level: int, where: Node | None) -> Node:
        geo, tree = self.geo, self.tree
        if not geo.ag_header_blocks <= number < self.length:
            holder = f"AG {self.agno} header" if where is None else self.at(where.number)
            raise Corrupt(tree.name, holder, "pointer", f"a block below {self.length}", number)
        buf = self.cache.read(geo.agb_to_daddr(self.agno, number), geo.block_bytes, self.ops)
        _, found, numrecs, left, right = buf.unpack(SHORT4, 0)
        if found != level:
            buf.release()
            raise Corrupt(tree.name, self.at(number), "level", level, found)
        base = tree.header_bytes(geo)
        ptrs = base + tree.maxrecs(geo.block_bytes - base, level) * tree.node_key_bytes if level else 0
        return Node(buf, buf, number, level, numrecs, base, ptrs, left, right)


class InodeBtree(Btree):
    """A tree rooted in a fork of an inode, given as the fork's bytes: 64-bit pointers.

    The root has no header but level and count, and no siblings; the realtime trees may have their records in it.
    """

    __slots__ = ("ino", "iroot")

    def __init__(self, cache: BufferCache, tree: Tree, ops: BufferOps, ino: int, fork: bytes | memoryview) -> None:
        super().__init__(cache, tree, ops)
        self.ino = ino
        self.iroot = fork

    def at(self, number: int) -> str:
        agno, agb = self.geo.split_fsb(number)
        return f"AG {agno} block {agb}, inode {self.ino}"

    def root(self) -> Node:
        tree, fork = self.tree, self.iroot
        where = f"inode {self.ino}"
        name = f"{tree.kind} root"
        if len(fork) < IROOT.size:
            raise Corrupt(name, where, "length", f"at least {IROOT.size}", len(fork))
        level, numrecs = IROOT.unpack_from(fork)
        lowest = 1 if tree.kind == "bmbt" else 0
        if not lowest <= level < tree.max_levels:
            raise Corrupt(name, where, "level", f"{lowest} to {tree.max_levels - 1}", level)
        most = tree.maxrecs(len(fork) - IROOT.size, level)
        if numrecs > most or (level and not numrecs):
            raise Corrupt(name, where, "numrecs", f"{1 if level else 0} to {most}", numrecs)
        block = BytesBlock(fork)
        place = Place(tree, where, 0, 0, self.geo.rgroup_blocks, self.geo)
        if level:
            judge_keys(place, block.view(IROOT.size, numrecs * tree.node_key_bytes))
        else:
            judge_records(place, block.view(IROOT.size, numrecs * tree.rec_bytes))
        ptrs = IROOT.size + most * tree.node_key_bytes
        return Node(block, None, -1, level, numrecs, IROOT.size, ptrs, self.none, self.none)

    def child(self, number: int, level: int, where: Node | None) -> Node:
        geo, tree = self.geo, self.tree
        if not geo.fsb_valid(number):
            holder = f"inode {self.ino}" if where is None or where.buf is None else self.at(where.number)
            raise Corrupt(tree.name, holder, "pointer", "a block of the filesystem", number)
        buf = self.cache.read(geo.fsb_to_daddr(number), geo.block_bytes, self.ops)
        if geo.has_crc:
            _, found, numrecs, left, right, _, _, _, owner, _ = buf.unpack(LONG5, 0)
        else:
            _, found, numrecs, left, right = buf.unpack(LONG4, 0)
            owner = self.ino
        if found != level or owner != self.ino:
            buf.release()
            if owner != self.ino:
                raise Corrupt(tree.name, self.at(number), "owner", self.ino, owner)
            raise Corrupt(tree.name, self.at(number), "level", level, found)
        base = tree.header_bytes(geo)
        ptrs = base + tree.maxrecs(geo.block_bytes - base, level) * tree.node_key_bytes if level else 0
        return Node(buf, buf, number, level, numrecs, base, ptrs, left, right)
