"""Lists and tables that go on in a file: against a list and a dict, and in bounded memory."""

from __future__ import annotations

import tracemalloc
from array import array

from hypothesis import given
from hypothesis import strategies as st

from pocketxfs.journal.spool import LastSeen, Spool

numbers = st.integers(0, 2**64 - 1)


@given(st.lists(st.lists(numbers, max_size=30), max_size=20), st.integers(8, 400), st.data())
def test_a_spool_is_a_list(parts: list[list[int]], limit: int, data: st.DataObject) -> None:
    spool, expected = Spool(limit), []
    for part in parts:
        if len(part) == 1:
            spool.append(part[0])
        else:
            spool.extend(array("Q", part))
        expected += part
    assert spool.length == len(expected)
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    assert spool.slice(start, stop).tolist() == expected[start:stop]
    assert list(spool.run(start, stop)) == expected[start:stop]
    spool.close()


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9), st.integers(1, 1000)), max_size=400))
def test_a_table_is_a_dict(steps: list[tuple[int, int, int]]) -> None:
    """64 entries, the fewest it keeps in memory, are passed at once or not at all."""
    table, expected = LastSeen(0), {}
    assert not table
    for first, second, value in steps:
        table.put(first, second, value)
        expected[first, second] = value
    assert bool(table) == bool(expected)
    assert (table.held is None) == (len(expected) > 64)
    for first in range(42):
        for second in range(10):
            assert table.get(first, second) == expected.get((first, second), 0)
    table.close()


def test_memory_is_bounded() -> None:
    table, spool = LastSeen(64 << 10), Spool(64 << 10)
    tracemalloc.start()
    try:
        for number in range(6_000):
            table.put(number * 7, 8, number + 1)
            spool.append(number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 512 << 10
    assert table.get(7 * 5_999, 8) == 6_000
    assert list(spool.run(5_990, 6_000)) == list(range(5_990, 6_000))
    table.close()
    spool.close()
