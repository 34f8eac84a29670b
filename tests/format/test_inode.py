"""Inode fields: times and extents, against arithmetic done another way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pocketxfs.format import inode as fmt

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 999_999_999))
def test_classic_time(seconds, nanoseconds):
    raw = int.from_bytes(seconds.to_bytes(4, "big", signed=True) + nanoseconds.to_bytes(4, "big"), "big")
    assert fmt.time_ns(raw, False) == seconds * 10**9 + nanoseconds


def test_bigtime_bounds():
    assert fmt.time_ns(0, True) == -(2**31) * 10**9
    first = EPOCH + timedelta(seconds=fmt.time_ns(0, True) // 10**9)
    last = EPOCH + timedelta(seconds=fmt.time_ns((1 << 64) - 1, True) // 10**9)
    assert (first.year, last.year) == (1901, 2486)


@given(st.integers(0, 2**54 - 1), st.integers(0, 2**52 - 1), st.integers(0, 2**21 - 1), st.booleans())
def test_extent_record(offset, start, count, unwritten):
    """128 bits: 1 flag, 54 offset, 52 start, 21 count."""
    bits = f"{unwritten:d}{offset:054b}{start:052b}{count:021b}"
    assert fmt.decode_extents(int(bits, 2).to_bytes(16, "big")) == [(offset, start, count, unwritten)]
