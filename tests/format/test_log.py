"""Log records and items, as pure formats: any bytes give a value or `Corrupt`, and what is packed is unpacked."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketxfs.errors import Corrupt
from pocketxfs.format import log
from pocketxfs.format import log_items as li

ORDERS = {1: "<", 2: ">"}
orders = st.sampled_from(sorted(ORDERS))


@given(st.integers(1, 1200), st.integers(0, 2**32 - 1), st.integers(0, 2**32))
def test_cycles_are_put_in_and_taken_out(blocks: int, cycle: int, seed: int) -> None:
    """Over one header and over several: 64 words in each."""
    data = random.Random(seed).randbytes(blocks * log.BB)
    held = bytearray(data)
    words = log.pack_cycles(held, cycle)
    assert len(words) == 4 * blocks
    stamp = cycle.to_bytes(4, "big")
    assert all(held[at : at + 4] == stamp for at in range(0, len(held), log.BB))
    count = -(-blocks // log.CYCLE_WORDS)
    header = bytearray(count * log.BB)
    for index in range(count):
        kept = words[4 * log.CYCLE_WORDS * index : 4 * log.CYCLE_WORDS * (index + 1)]
        at = log.CYCLE_DATA_OFFSET if index == 0 else index * log.BB + 4
        header[at : at + len(kept)] = kept
    assert log.displaced_words(header, count, blocks) == words
    log.unpack_cycles(held, words)
    assert held == data


@given(st.binary(min_size=log.BB, max_size=log.BB), st.binary(max_size=4000), st.integers(0, 327), st.booleans())
def test_checksums_see_every_byte_but_their_own(header: bytes, data: bytes, at: int, i386: bool) -> None:
    one = log.record_checksum(memoryview(header), memoryview(data), i386=i386)
    assert log.record_checksum_is(one, memoryview(header), memoryview(data))
    other = bytearray(header)
    other[at] ^= 0x10
    same = log.CRC_OFFSET <= at < log.CRC_OFFSET + 4 or (i386 and at >= 324)
    assert (log.record_checksum(memoryview(other), memoryview(data), i386=i386) == one) == same
    if data:
        changed = bytes((data[0] ^ 1,)) + data[1:]
        assert log.record_checksum(memoryview(header), memoryview(changed), i386=i386) != one


@given(st.binary(min_size=log.BB, max_size=log.BB))
def test_any_header_is_decoded(data: bytes) -> None:
    record = log.Record(7, data)
    assert record.block == 7
    assert record.data_blocks == -(-record.length // log.BB)
    assert record.header_blocks >= 1
    assert log.make_lsn(log.lsn_cycle(record.lsn), log.lsn_block(record.lsn)) == record.lsn


@given(orders, st.integers(0, 65535), st.integers(0, 65535), st.integers(-(2**63), 2**63 - 1), st.data())
def test_buffer_items(fmt: int, flags: int, nblocks: int, daddr: int, data: st.DataObject) -> None:
    """The map of chunks is one number, chunk 0 lowest, in either byte order."""
    words = data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=17))
    order = ORDERS[fmt]
    region = struct.pack(f"{order}HHHHqI{len(words)}I", li.LI_BUF, 2, flags, nblocks, daddr, len(words), *words)
    found = li.abi(fmt).buf(region, "here")
    bits = sum(word << 32 * index for index, word in enumerate(words))
    assert found == li.BufFormat(flags, nblocks, daddr, bits)
    if words:
        with pytest.raises(Corrupt, match="blf_map_size"):
            li.abi(fmt).buf(region[:-1], "here")


@given(orders, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1), st.integers(0, 4095))
def test_inode_items_of_64_and_32_bit_kernels(fmt: int, fields: int, ino: int, daddr: int, offset: int) -> None:
    order = ORDERS[fmt]
    wide = struct.pack(order + "HHIHHIQI12xqii", li.LI_INODE, 3, fields, 8, 20, 0, ino, 77, daddr, 32, offset)
    narrow = struct.pack(order + "HHIHHQI12xqii", li.LI_INODE, 3, fields, 8, 20, ino, 77, daddr, 32, offset)
    expected = (3, fields, 8, 20, ino, 77, daddr, 32, offset)
    assert li.abi(fmt).inode(wide, "") == li.abi(fmt).inode(narrow, "") == expected


@given(orders, st.booleans(), st.integers(0, 2**32 - 1))
def test_usual_inode_items_are_the_plain_ones_in_one_piece(fmt: int, bigtime: bool, seed: int) -> None:
    """Values and the core as it goes to the disk, against the structs that read each region by itself."""
    abi = li.abi(fmt)
    core = random.Random(seed).randbytes(li.DINODE3_BYTES)
    ilf = struct.pack(ORDERS[fmt] + "2xHIHH4xQI12xqii", 4, 0x45, 8, 16, 131, 0, 2**40 + seed, 32, 1536)
    op = log.OP.pack(seed, len(ilf), 0x69, 0), log.OP.pack(seed, len(core), 0x69, 0)
    marked = (b"IN" if ORDERS[fmt] == ">" else b"NI") + core[2:4] + b"\3" + core[5:]
    piece = op[0] + ilf + op[1] + marked
    assert len(piece) == li.USUAL_INODE_BYTES
    usual, plain = abi.usual_inode, abi.dinodes[bigtime].whole.unpack(marked)
    assert li.USUAL_MARKS.translate(piece) == usual.marks
    assert usual.cores[bigtime].translate(piece) == li.DISK[bigtime].whole.pack(*plain)
    tid, count, fields, daddr, nblocks, offset, again, mode, form, more, blocks, *extents, forkoff, flags2 = (
        usual.values(piece)
    )
    assert tid == again
    assert (count, fields, daddr, nblocks, offset) == (4, 0x45, 2**40 + seed, 32, 1536)
    at = abi.dinodes[bigtime].size_at
    assert (mode, form, more) == (plain[1], plain[3], plain[10])
    assert (blocks, *extents, forkoff) == (plain[at + 1], *plain[at + 3 : at + 6])
    assert flags2 == int.from_bytes(marked[120:128], abi.order)
    for place in (5, 73, 80, 84):
        other = bytearray(piece)
        other[place] ^= 1
        assert li.USUAL_MARKS.translate(other) != usual.marks


@given(orders, st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), max_size=40))
def test_extents_of_64_and_32_bit_kernels(fmt: int, extents: list[tuple[int, int]]) -> None:
    order, abi = ORDERS[fmt], li.abi(fmt)
    head = struct.pack(order + "HHIQ", li.LI_EFI, 1, len(extents), 99)
    for layout in ("QI4x", "QI"):
        region = head + b"".join(struct.pack(order + layout, *extent) for extent in extents)
        assert abi.extents(region, "") == extents
        assert abi.intent_id(region, "") == 99


@pytest.mark.parametrize("fmt", ORDERS)
def test_attribute_intents(fmt: int) -> None:
    """Parent pointers have two name lengths where other operations have one of 32 bits."""
    order, abi = ORDERS[fmt], li.abi(fmt)
    plain = struct.pack(order + "HHIQQIIII", li.LI_ATTRI, 3, 0, 5, 133, 1, 70000, 12, 2)
    assert abi.attri(plain, "") == (0, 5, 133, 1, 70000, 0, 12, 2)
    parent = struct.pack(order + "HHIQQIHHII", li.LI_ATTRI, 5, 7, 5, 133, 6, 11, 22, 12, 8)
    assert abi.attri(parent, "") == (7, 5, 133, 6, 11, 22, 12, 8)


@pytest.mark.parametrize("fmt", ORDERS)
def test_exchanges(fmt: int) -> None:
    values = (9, 131, 132, 1, 2, 10, 20, 30, 0, 4096, 8192)
    region = struct.pack(ORDERS[fmt] + "HHIQQQIIQQQQQQ", li.LI_XMI, 1, 0, *values)
    assert li.abi(fmt).xmi(region, "") == values


@given(orders, st.binary(max_size=300))
def test_any_bytes_are_a_value_or_corrupt(fmt: int, region: bytes) -> None:
    abi = li.abi(fmt)
    for decode in (abi.buf, abi.inode, abi.dquot, abi.intent_id, abi.xmi, abi.attri):
        try:
            decode(region, "here")
        except Corrupt as error:
            assert error.where == "here"
    if len(region) >= 16:
        for decode in (abi.extents, abi.maps, abi.phys):
            try:
                decode(region, "here")
            except Corrupt as error:
                assert error.where == "here"


def test_every_intent_has_a_done_item_of_its_own() -> None:
    assert len(set(li.DONE_OF.values())) == len(li.DONE_OF)
    assert set(li.DONE_OF) | set(li.INTENT_OF) <= set(li.ITEM_NAMES)
    assert all(done == intent + 1 for intent, done in li.DONE_OF.items())
