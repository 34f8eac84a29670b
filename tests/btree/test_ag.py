"""AGF, AGI and AGFL: every field that says where or how many, judged; and decoded from known bytes."""

from __future__ import annotations

import random
import struct

import pytest

from pocketxfs.errors import Corrupt
from pocketxfs.format import ag
from pocketxfs.format.block import BytesBlock, checksum

from .build import AG_BLOCKS, AGNO, UUID, make_geo

VERIFY = {"agf": ag.verify_agf, "agi": ag.verify_agi, "agfl": ag.verify_agfl}
SECTOR = {"agf": ag.AGF_SECTOR, "agi": ag.AGI_SECTOR, "agfl": ag.AGFL_SECTOR}
CRC = {"agf": ag.AGF_CRC_OFFSET, "agi": ag.AGI_CRC_OFFSET, "agfl": ag.AGFL_CRC_OFFSET}


def good(kind):
    data = bytearray(512)
    if kind == "agf":
        ag.AGF.struct.pack_into(
            data, 0, ag.XFS_AGF_MAGIC, 1, AGNO, AG_BLOCKS, 5, 6, 7, 1, 2, 3, 4, 9, 6, 1000, 900, 12, UUID, 8, 3, 20, 1
        )
    elif kind == "agi":
        ag.AGI.struct.pack_into(data, 0, ag.XFS_AGI_MAGIC, 1, AGNO, AG_BLOCKS, 128, 8, 1, 7, 200, 0xFFFFFFFF)
        ag.AGI_UNLINKED.pack_into(data, ag.AGI_UNLINKED_OFFSET, 100, *[0xFFFFFFFF] * 63)
        ag.AGI_TAIL.struct.pack_into(data, ag.AGI_TAIL_OFFSET, UUID, b"", 0, 5, 9, 1, 2, 3)
    else:
        ag.AGFL.struct.pack_into(data, 0, ag.XFS_AGFL_MAGIC, AGNO, UUID, 5, b"")
        struct.pack_into(">119I", data, 36, *range(10, 120), *[0xFFFFFFFF] * 9)
    return data


def judge(kind, data, geo):
    if geo.has_crc:
        struct.pack_into("<I", data, CRC[kind], checksum(bytes(data), CRC[kind]))
    block = BytesBlock(bytes(data), ag.header_daddr(geo, AGNO, SECTOR[kind]))
    VERIFY[kind](block, geo)
    return block


@pytest.mark.parametrize("kind", VERIFY)
def test_good_ones_pass(kind):
    block = judge(kind, good(kind), make_geo())
    if kind == "agf":
        agf = ag.AGF.decode(block)
        assert (agf.agf_cnt_root, agf.agf_flcount, agf.agf_refcount_level) == (6, 6, 1)
    if kind == "agi":
        assert ag.unlinked_buckets(block)[0] == 100
    if kind == "agfl":
        slots = ag.agfl_slots(block, make_geo())
        assert len(slots) == 119
        agf = ag.AGF.decode_bytes(bytes(good("agf")))._replace(agf_flfirst=117, agf_fllast=2, agf_flcount=5)
        assert ag.agfl_active(agf, slots) == [0xFFFFFFFF, 0xFFFFFFFF, 10, 11, 12]


BAD = {
    "agf": {
        0: [0], 4: [2], 8: [0, 2], 12: [0, 63, AG_BLOCKS + 1, 0xFFFFFFFF], 16: [0, 1, AG_BLOCKS, 0xFFFFFFFF],
        20: [0, AG_BLOCKS], 24: [0, AG_BLOCKS], 28: [0, 10, 1 << 31], 32: [0, 10], 36: [0, 10], 40: [119, 0xFFFFFFFF],
        44: [119], 48: [120], 52: [AG_BLOCKS + 1, 899], 56: [1001], 60: [AG_BLOCKS + 1], 64: [7], 80: [AG_BLOCKS + 1],
        84: [AG_BLOCKS + 1], 88: [0, AG_BLOCKS], 92: [0, 10],
    },
    "agi": {
        0: [0], 4: [0], 8: [0], 12: [63, AG_BLOCKS + 1], 16: [6, AG_BLOCKS * 2 + 1], 20: [0, AG_BLOCKS], 24: [0, 10],
        28: [129],
        40: [0, AG_BLOCKS * 2], 292: [1], 296: [5], 328: [0, AG_BLOCKS], 332: [0, 10], 336: [AG_BLOCKS + 1],
        340: [AG_BLOCKS + 1],
    },
    "agfl": {0: [0], 4: [0], 8: [1], 36: [AG_BLOCKS], 508: [AG_BLOCKS]},
}  # fmt: skip


@pytest.mark.parametrize("kind, offset", [(kind, offset) for kind, fields in BAD.items() for offset in fields])
def test_every_field_is_judged(kind, offset):
    for value in BAD[kind][offset]:
        data = good(kind)
        struct.pack_into(">I", data, offset, value)
        with pytest.raises(Corrupt) as caught:
            judge(kind, data, make_geo())
        assert caught.value.structure == kind.upper() and caught.value.where == f"AG {AGNO}"


@pytest.mark.parametrize("kind", VERIFY)
def test_checksum_and_any_bytes(kind):
    geo = make_geo()
    data = good(kind)
    judge(kind, data, geo)
    data[400] ^= 1
    with pytest.raises(Corrupt, match="crc"):
        VERIFY[kind](BytesBlock(bytes(data), ag.header_daddr(geo, AGNO, SECTOR[kind])), geo)
    rng = random.Random(3)
    for _ in range(300):
        data = good(kind)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(512)] = rng.randrange(256)
        try:
            judge(kind, data, geo)
        except Corrupt:
            pass


def test_version_4_has_no_checksums():
    geo = make_geo(v5=False)
    for kind in ("agf", "agi"):
        judge(kind, good(kind), geo)
    VERIFY["agfl"](BytesBlock(random.Random(1).randbytes(512), ag.header_daddr(geo, AGNO, 3)), geo)
    assert ag.agfl_size(geo) == 128
