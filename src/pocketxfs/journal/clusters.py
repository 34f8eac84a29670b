"""Inode changes kept back until many of a cluster have come together, then laid over it at once.

A log touches inodes here and there: by the time that it comes back to a cluster, sixteen megabytes hold it no more.
What is to be laid over an inode is smaller than the blocks that it would drag in and push out, so that waits instead,
by windows of the disk: each window is read and written once for all that came for it, in the order of the disk.

What waits is laid down before anybody else sees its window (`BufferStore.before_read`), and within a window in the
order that it came: only between windows does the order differ from the log's.

`UsualInodes.take` does what nearly all inode items of a log need, straight from the records that they lie in, and
leaves the rest to `InodeReplay.inode`, errors too; tests compare the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from struct import Struct

from ..errors import Corrupt
from ..format import log_items as li
from ..format.geometry import Geometry
from ..format.inode import (
    DIFLAG2_NREXT64,
    FMT_EXTENTS,
    FMT_LOCAL,
    LSN_OFFSET,
    NEXT_UNLINKED_OFFSET,
    S_IFDIR,
    S_IFMT,
)
from ..format.log import OP, OP_BYTES
from .apply import Applier
from .buffers import NULL_LSN, seal
from .fetch import Fetcher
from .scan import BLOCK_SHIFT, CROSSES, OFFSET_MASK, OFFSET_SHIFT

_LEAST_WINDOW_BYTES, _MOST_WINDOW_BYTES = 4096, 16384
#: What a change takes beside the bytes that it brings: a tuple, two objects of bytes and four numbers.
CHANGE_BYTES = 320
#: What a window with changes takes beside them.
WAITING_BYTES = 300
_NULL_LSN = NULL_LSN.to_bytes(8, "big")
_DATA, _ATTR = li.ILOG_DDATA | li.ILOG_DEXT, li.ILOG_ADATA | li.ILOG_AEXT
_FORKS = _DATA | _ATTR
_KIND = li.LI_INODE & 0xFF
_OP = OP.unpack_from
#: di_magic, di_version, di_next_unlinked, di_lsn
_ON_DISK = Struct(">2s2xB91x4s12x8s").unpack_from
_PUT_UNLINKED, _PUT_LSN = Struct("4s").pack_into, Struct("8s").pack_into

#: One that waits: where in the window its inode begins; its number, counted as they come; its place in the log; the LSN
#: as it is on the disk; what is laid over the inode from its start; what else, and from where in the inode on.
#: Or new free inodes: where they begin, number, how many bytes, nothing, None, generation, number of the first inode.
Change = tuple[int, int, int, bytes, bytes | None, bytes, int]
Slow = Callable[[int, int], None]


def window_bytes(geo: Geometry) -> int:
    """An inode cluster, or a part of a large one, and a block at least; the overlay's blocks are best the same."""
    return max(geo.block_bytes, min(max(_LEAST_WINDOW_BYTES, geo.cluster_bytes), _MOST_WINDOW_BYTES))


class UsualInodes:
    """Takes inode items as nearly all are, and creations of inode chunks; lays them down when `limit_bytes` are full.

    `slow(place, lsn)` replays an item that turns out not to be usual when it is its turn.
    Errors are those of the item that comes first in the log, see `first_error`.
    """

    __slots__ = (
        "_applier", "_block_mask", "_count", "_failed", "_fetcher", "_limit", "_raw", "_room", "_slow", "_view",
        "_waiting", "_window_log",
    )  # fmt: skip

    def __init__(self, applier: Applier, fetcher: Fetcher, limit_bytes: int, slow: Slow) -> None:
        geo = applier.geo
        self._applier, self._fetcher, self._slow = applier, fetcher, slow
        window = window_bytes(geo)
        self._window_log = window.bit_length() - 1
        self._block_mask = geo.block_bytes - 1
        self._raw = bytearray(window)
        self._view = memoryview(self._raw)
        self._limit = self._room = max(0, limit_bytes - window)
        #: number of a window -> what waits for it; no buffer that is held lies in one of these
        self._waiting: dict[int, list[Change]] = {}
        self._count = 0
        self._failed: tuple[int, Corrupt] | None = None
        applier.store.before_read = self.settle
        applier.create = self.create

    # -- coming in -----------------------------------------------------------------------------------------------

    def take(self, places: Iterator[int], place: int, lsn: bytes) -> int:
        """Take inode items from `place` on as long as they are as nearly all are; the first place left, or 0.

        Those are: from a 64-bit kernel, whole and in one record, with forks that lie in the inode.  Nothing is done for
        the item whose place is returned.  The LSN comes as it is on the disk, and compares as such.
        Very hot: a full log holds a million.
        """
        applier, record_of = self._applier, self._fetcher.record
        geo, number = applier.geo, applier.number
        cancels, any_cancels = applier.held_cancels, applier.any_cancels
        misplaced, literal_bytes, literal_at = geo.inode_bytes - 1, geo.literal_bytes, geo.inode_core_bytes
        nrext64 = geo.has_nrext64
        to_marks, op = li.USUAL_MARKS.translate, _OP
        inside, window_log = (1 << self._window_log) - 1, self._window_log
        waiting_for, usable = self._waiting.get, applier.store.usable
        count, room = self._count, self._room
        block = at_daddr = at_nblocks = -1
        start = most_offset = 0
        while place:
            if place & 0xFF != _KIND or place >= CROSSES:
                break
            if place >> BLOCK_SHIFT != block:
                record = record_of(place)
                block = place >> BLOCK_SHIFT
                unpack, marks, cores = self._fetcher.order.usual_inode
            at = place >> OFFSET_SHIFT & OFFSET_MASK
            body = at + li.USUAL_INODE_BYTES
            item = record[at:body]
            if len(item) < li.USUAL_INODE_BYTES or to_marks(item) != marks:
                break
            (
                tid, regions, fields, daddr, nblocks, offset, again, mode, data_format,
                more, blocks, nextents, anextents, forkoff, flags2,
            ) = unpack(item)  # fmt: skip
            if flags2 & DIFLAG2_NREXT64:
                nextents, anextents, more = more, nextents, anextents
                if not nrext64:
                    break
            split = forkoff << 3
            if (
                again != tid
                or fields & li.ILOG_UNUSUAL
                or more
                or nextents + anextents > blocks
                or split >= literal_bytes
                or (data_format != FMT_EXTENTS and (mode & S_IFMT != S_IFDIR or data_format != FMT_LOCAL))
            ):
                break
            if daddr != at_daddr or nblocks != at_nblocks:
                if any_cancels and (cancels is None or cancels.get((daddr, nblocks), 0) >= number):
                    break
                if not usable(daddr, nblocks):
                    break
                at_daddr, at_nblocks = daddr, nblocks
                start, most_offset = daddr << 9, (nblocks << 9) - misplaced
            if offset & misplaced or not 0 <= offset < most_offset:
                break
            whole = cores[flags2 >> 3 & 1].translate(item)
            attr = b""
            forks = fields & _FORKS
            if forks:
                data_fork, attr_fork = fields & _DATA, fields & _ATTR
                if regions != 2 + (data_fork != 0) + (attr_fork != 0) or data_fork == _DATA or attr_fork == _ATTR:
                    break
                wanted = item[:4]
                if data_fork:
                    if record[body : body + 4] != wanted:
                        break
                    nbytes = op(record, body)[1]
                    if not nbytes or nbytes > (split or literal_bytes):
                        break
                    body += OP_BYTES
                    whole += record[body : body + nbytes]
                    body += nbytes
                if attr_fork:
                    if record[body : body + 4] != wanted:
                        break
                    nbytes = op(record, body)[1]
                    if not nbytes or not split or split + nbytes > literal_bytes:
                        break
                    body += OP_BYTES
                    attr = record[body : body + nbytes]
            elif regions != 2:
                break
            count += 1
            offset += start
            waiting = waiting_for(offset >> window_log)
            if waiting is None:
                waiting = self._open(offset >> window_log)
                room -= WAITING_BYTES
            waiting.append((offset & inside, count, place, lsn, whole, attr, literal_at + split))
            room -= CHANGE_BYTES + len(whole) + len(attr)
            if room < 0:
                self._count = count
                self.settle_all()
                room = self._room
            place = next(places, 0)
        self._count, self._room = count, room
        return place

    def create(self, start_bytes: int, nbytes: int, ino: int, gen: int) -> None:
        """New free inodes, from `ino` on, in whole blocks."""
        size = 1 << self._window_log
        generation = gen.to_bytes(4, "big")
        self._count += 1
        while nbytes:
            inside = start_bytes & (size - 1)
            some = min(nbytes, size - inside)
            window = start_bytes >> self._window_log
            waiting = self._waiting.get(window)
            if waiting is None:
                waiting = self._open(window)
                self._room -= WAITING_BYTES
            waiting.append((inside, self._count, some, b"", None, generation, ino))
            self._room -= CHANGE_BYTES
            start_bytes += some
            nbytes -= some
            ino += some >> self._applier.geo.inode_log
        if self._room < 0:
            self.settle_all()

    def _open(self, window: int) -> list[Change]:
        """A window that something will wait for: nobody holds a buffer of it any more."""
        self._applier.store.let_go(window << self._window_log, 1 << self._window_log)
        waiting = self._waiting[window] = []
        return waiting

    # -- being laid down -----------------------------------------------------------------------------------------

    def settle(self, start_bytes: int, nbytes: int) -> None:
        """Lay down what waits for a range that somebody is about to see."""
        log = self._window_log
        waiting = self._waiting
        for window in range(start_bytes >> log, ((start_bytes + nbytes - 1) >> log) + 1):
            if window in waiting:
                self._settle(window)
                if self._failed is not None:
                    self.settle_all()

    def settle_all(self) -> None:
        """Lay down all that waits."""
        for window in sorted(self._waiting):
            self._settle(window)
        self._room = self._limit
        if self._failed is not None:
            raise self._failed[1]

    def first_error(self, error: Corrupt) -> Corrupt:
        """Of `error` and those of items before it that have waited, the first."""
        if self._failed is None:
            with contextlib.suppress(Corrupt):
                self.settle_all()
        return error if self._failed is None else self._failed[1]

    def _settle(self, window: int) -> None:
        changes = self._waiting.pop(window, None)
        while changes:
            changes = self._lay(window << self._window_log, changes)

    def _lay(self, base: int, changes: list[Change]) -> list[Change] | None:
        """Lay changes over their window, up to one that is not usual, which is replayed; those after it are left."""
        applier, raw, view = self._applier, self._raw, self._view
        store, inode_log = applier.store, applier.geo.inode_log
        low, nbytes = 0, len(raw)
        if changes[0][4] is not None or changes[0][2] != nbytes:
            low = min(changes)[0] & ~self._block_mask
            nbytes = (max(map(_last_byte, changes)) | self._block_mask) + 1 - low
            store.device.pread_into(base + low, (view[:nbytes],))
        inode_on_disk, put_unlinked, put_lsn = _ON_DISK, _PUT_UNLINKED, _PUT_LSN
        marks = done = newer = 0
        unusual: Change | None = None
        for change in changes:
            offset, _, place, lsn, whole, attr, attr_at = change
            offset -= low
            if whole is None:
                many = place >> inode_log
                view[offset : offset + place] = applier.free_inodes(attr_at, many, int.from_bytes(attr, "big"))
                marks |= ((1 << many) - 1) << (offset >> inode_log)
                done += 1
                newer += 1
                continue
            magic, version, unlinked, on_disk = inode_on_disk(raw, offset)
            if magic != b"IN" or version < 3:
                unusual = change
                break
            done += 1
            marks |= 1 << (offset >> inode_log)
            if on_disk > lsn and on_disk != _NULL_LSN:
                applier.counts.inodes_newer += 1
                newer += 1
                continue
            # Into a view: what is assigned to a part of a bytearray is copied twice.
            view[offset : offset + len(whole)] = whole
            put_unlinked(raw, offset + NEXT_UNLINKED_OFFSET, unlinked)
            put_lsn(raw, offset + LSN_OFFSET, lsn)
            if attr:
                offset += attr_at
                view[offset : offset + len(attr)] = attr
        applier.counts.inodes += done - newer
        seal(raw, view, applier.geo.inode_bytes, marks)
        if marks:
            store.device.pwrite(base + low, view[:nbytes])
        if unusual is None:
            return None
        try:
            self._slow(unusual[2], int.from_bytes(unusual[3], "big"))
        except Corrupt as error:
            if self._failed is None or (unusual[1] < self._failed[0] and error is not self._failed[1]):
                self._failed = unusual[1], error
            return None
        store.let_go(base, len(raw))
        return changes[done + 1 :]


def _last_byte(change: Change) -> int:
    """Of what a change reaches, in its window; of an inode, its first is enough."""
    return change[0] if change[4] is not None else change[0] + change[2] - 1
