"""Allocation scopes."""

from __future__ import annotations

from pocketxfs.memory import NOFS, NOIO, NORMAL, current_scope, nofs, noio


def test_they_nest_and_the_strictest_is_in_force() -> None:
    assert current_scope() == NORMAL
    with nofs():
        assert current_scope() == NOFS
        with nofs():
            with noio():
                assert current_scope() == NOIO
                with nofs():
                    assert current_scope() == NOIO
            assert current_scope() == NOFS
        assert current_scope() == NOFS
    assert current_scope() == NORMAL
    assert NORMAL < NOFS < NOIO


def test_they_end_with_an_error() -> None:
    try:
        with noio():
            raise KeyError
    except KeyError:
        pass
    assert current_scope() == NORMAL


def test_left_in_another_order() -> None:
    first, second = nofs(), noio()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current_scope() == NOIO
    second.__exit__(None, None, None)
    assert current_scope() == NORMAL
