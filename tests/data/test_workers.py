import os

import pytest

from effnet.data.workers import worker_count


@pytest.mark.parametrize(("cores", "processes", "expected"), [(2, 1, 2), (64, 1, 16), (64, 8, 8), (8, 16, 1)])
def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert worker_count(None, processes) == expected
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert worker_count(None, 1000) == expected


def test_a_number_asked_for_is_taken() -> None:
    assert worker_count(0) == 0
    assert worker_count(40, 8) == 40
