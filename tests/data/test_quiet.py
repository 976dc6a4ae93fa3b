"""Silence in threads whose blocks overlap."""

import os
import threading
import warnings

import pytest

from effnet.data.quiet import quiet


def test_filters_are_restored_where_blocks_overlap() -> None:
    before = list(warnings.filters)
    first_inside, second_inside, first_left = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with quiet():
            first_inside.set()
            assert second_inside.wait(10)
        first_left.set()

    thread = threading.Thread(target=first)
    thread.start()
    assert first_inside.wait(10)
    with quiet():
        second_inside.set()
        assert first_left.wait(10)
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn("of a block that goes on", stacklevel=1)
        assert not caught
    thread.join()
    assert list(warnings.filters) == before
    with pytest.warns(UserWarning, match="after them"):
        warnings.warn("after them", stacklevel=1)


def test_errors_leave_it() -> None:
    before = list(warnings.filters)
    with pytest.raises(ValueError, match="broken"), quiet():
        raise ValueError("broken")
    assert list(warnings.filters) == before


def test_a_fork_within_a_block_of_another_thread_has_its_own() -> None:
    entered, leave = threading.Event(), threading.Event()

    def inside() -> None:
        with quiet():
            entered.set()
            leave.wait(10)

    before = list(warnings.filters)
    thread = threading.Thread(target=inside)
    thread.start()
    assert entered.wait(10)
    child = os.fork()
    if not child:
        restored = list(warnings.filters) == before
        with quiet():
            silent = list(warnings.filters) != before
        os._exit(0 if restored and silent and list(warnings.filters) == before else 1)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
