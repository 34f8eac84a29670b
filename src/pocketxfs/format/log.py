"""The log on disk: records, their headers and checksums, operation headers (format document: "Journaling Log").

The log is a ring of 512-byte blocks.  A record is a header block (with one more for each further 32 KiB of in-core log
buffer, `h_size`) and data.  In each data block the first word is replaced by the record's cycle number, so that a
half-written record shows; the words that stood there are kept in the headers.  Headers are big-endian; what the data
holds is in the byte order and padding of the machine that wrote it (`h_fmt`), see `log_items`.

Checksums cover the header as the writer's compiler padded it: 328 bytes from 64-bit kernels, 324 from i386.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from .crc import crc32c
from .layout import U32, U64, Layout, Uuid

BB = 512  # a log block, "basic block"
BB_SHIFT = 9

HEADER_MAGIC = 0xFEEDBABE
HEADER_MAGIC_BYTES = b"\xfe\xed\xba\xbe"
VERSION_1, VERSION_2 = 1, 2
VERSION_OKBITS = VERSION_1 | VERSION_2
MAX_ICLOGS = 8
#: Bytes of log data whose displaced words one header block keeps.
CYCLE_BYTES = 32 * 1024
CYCLE_WORDS = CYCLE_BYTES // BB
BIG_RECORD_BYTES = 32 * 1024  # the largest record of a version 1 log
MAX_RECORD_BYTES = 256 * 1024  # and of version 2

FMT_UNKNOWN, FMT_LINUX_LE, FMT_LINUX_BE, FMT_IRIX_BE = range(4)

# oh_clientid
CLIENT_TRANSACTION = 0x69
CLIENT_LOG = 0xAA

# oh_flags
START_TRANS = 0x01
COMMIT_TRANS = 0x02
CONTINUE_TRANS = 0x04
WAS_CONT_TRANS = 0x08
END_TRANS = 0x10
UNMOUNT_TRANS = 0x20

UNMOUNT_MAGIC = 0x556E

#: oh_tid oh_len oh_clientid oh_flags
OP = Struct(">IIBB2x")
OP_BYTES = 12
assert OP.size == OP_BYTES

_HEADER_BYTES = (328, 324)
_EXT_HEADER_BYTES = 260
CRC_OFFSET = 32
CYCLE_DATA_OFFSET = 44


class RecordHead(NamedTuple):
    """struct xlog_rec_header, up to its array of displaced words."""

    h_magicno: U32
    h_cycle: U32
    h_version: U32
    h_len: U32
    h_lsn: U64
    h_tail_lsn: U64
    h_crc: U32
    h_prev_block: U32
    h_num_logops: U32


class RecordTail(NamedTuple):
    """struct xlog_rec_header, from behind that array on."""

    h_fmt: U32
    h_fs_uuid: Uuid
    h_size: U32


RECORD_HEAD = Layout(RecordHead, size=44, at={"h_crc": CRC_OFFSET})
RECORD_TAIL = Layout(RecordTail, size=24)
RECORD_TAIL_OFFSET = CYCLE_DATA_OFFSET + 4 * CYCLE_WORDS
assert RECORD_TAIL_OFFSET == 300


class Record:
    """A record's header, decoded, and where it stands."""

    cycle: int
    version: int
    length: int
    lsn: int
    tail_lsn: int
    prev_block: int
    num_ops: int
    fmt: int
    uuid: bytes
    size: int

    __slots__ = (
        "block", "crc", "cycle", "data_blocks", "fmt", "header_blocks", "length", "lsn", "num_ops", "prev_block",
        "size", "tail_lsn", "uuid", "version",
    )  # fmt: skip

    def __init__(self, block: int, data: bytes | bytearray | memoryview) -> None:
        head = RECORD_HEAD.struct.unpack_from(data)
        (
            _, self.cycle, self.version, self.length, self.lsn, self.tail_lsn, _, self.prev_block, self.num_ops,
        ) = head  # fmt: skip
        self.crc = int.from_bytes(data[CRC_OFFSET : CRC_OFFSET + 4], "little")
        self.fmt, self.uuid, self.size = RECORD_TAIL.struct.unpack_from(data, RECORD_TAIL_OFFSET)
        self.block = block
        self.header_blocks = header_blocks(self.version, self.size)
        self.data_blocks = (self.length + BB - 1) >> BB_SHIFT

    @property
    def blocks(self) -> int:
        """Blocks of the whole record."""
        return self.header_blocks + self.data_blocks


def header_blocks(version: int, size: int) -> int:
    """Header blocks of a record from in-core log buffers of `size` bytes."""
    if version & VERSION_2 and size > CYCLE_BYTES:
        return (size + CYCLE_BYTES - 1) // CYCLE_BYTES
    return 1


def cycle_of(data: bytes | bytearray | memoryview, offset: int = 0) -> int:
    """The cycle number that a log block shows."""
    word = data[offset : offset + 4]
    if word == HEADER_MAGIC_BYTES:
        word = data[offset + 4 : offset + 8]
    return int.from_bytes(word, "big")


def lsn_cycle(lsn: int) -> int:
    """The cycle part of a log sequence number."""
    return lsn >> 32


def lsn_block(lsn: int) -> int:
    """The block part of a log sequence number."""
    return lsn & 0xFFFFFFFF


def make_lsn(cycle: int, block: int) -> int:
    """A log sequence number."""
    return cycle << 32 | block


_ZERO4 = b"\0\0\0\0"


def record_checksum(header: memoryview, data: memoryview, *, i386: bool = False) -> int:
    """A record's checksum: header, further header blocks as far as this much data needs them, data as on the disk."""
    crc = crc32c(_ZERO4, crc32c(header[:CRC_OFFSET]))
    crc = crc32c(header[CRC_OFFSET + 4 : _HEADER_BYTES[i386]], crc)
    for place in range(BB, min(len(header), -(-len(data) // CYCLE_BYTES) * BB), BB):
        crc = crc32c(header[place : place + _EXT_HEADER_BYTES], crc)
    return int(crc32c(data, crc))


def record_checksum_is(crc: int, header: memoryview, data: memoryview) -> bool:
    """Whether `crc` is the record's, by a 64-bit writer's reckoning or an i386 one's."""
    return crc == record_checksum(header, data) or crc == record_checksum(header, data, i386=True)


def displaced_words(header: bytes | bytearray | memoryview, header_count: int, blocks: int) -> bytes:
    """The first words of a record's data blocks, as they were before the cycle number took their place."""
    words = bytes(header[CYCLE_DATA_OFFSET : CYCLE_DATA_OFFSET + 4 * min(blocks, CYCLE_WORDS)])
    left = blocks - CYCLE_WORDS
    for index in range(1, header_count):
        if left <= 0:
            break
        place = index * BB + 4
        words += bytes(header[place : place + 4 * min(left, CYCLE_WORDS)])
        left -= CYCLE_WORDS
    return words


def unpack_cycles(data: bytearray, words: bytes) -> None:
    """Put the displaced words back; `data` is whole blocks, `words` one for each of the first of them."""
    end = len(words) // 4 * BB
    for lane in range(4):
        data[lane:end:BB] = words[lane::4]


def pack_cycles(data: bytearray, cycle: int) -> bytes:
    """Stamp whole blocks with a cycle number; the words that it displaced."""
    blocks = len(data) // BB
    words = bytearray(4 * blocks)
    stamp = cycle.to_bytes(4, "big")
    for lane in range(4):
        words[lane::4] = data[lane::BB]
        data[lane::BB] = stamp[lane : lane + 1] * blocks
    return bytes(words)
