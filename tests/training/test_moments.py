"""Checkpoints come after the steps or minutes that were asked for, and a signal once."""

import pytest
import torch

from effnet.runtime.errors import UserError
from effnet.runtime.processes import Processes
from effnet.runtime.signals import Signals
from effnet.training import moments as module
from effnet.training.generators import StepGenerators
from effnet.training.moments import Due, Interval, Moments

ALONE = Processes.alone(torch.device("cpu"))


def test_intervals() -> None:
    assert Interval.parse("500") == Interval(steps=500)
    assert Interval.parse("10m") == Interval(seconds=600.0)
    assert Interval.parse("0.5m") == Interval(seconds=30.0)


@pytest.mark.parametrize(
    "text", ["", "m", "0", "-3", "0m", "-1m", "nanm", "infm", "1.5", "10 s", "10h", "nan"]
)
def test_no_intervals(text: str) -> None:
    with pytest.raises(UserError, match="--checkpoint-every .*: give steps"):
        Interval.parse(text)


def test_by_steps() -> None:
    moments = Moments(ALONE, Signals(), Interval(steps=3))
    due = []
    for step in range(1, 11):
        # Looks of a validation, in which no step is made, do not write the same state again.
        if moments.look(step).checkpoint:
            due.append(step)
            moments.written(step)
        assert not moments.look(step).checkpoint
    assert due == [3, 6, 9]


def test_by_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    moments = Moments(ALONE, Signals(), Interval(seconds=60))
    due = []
    for step in range(1, 10):
        now += 25
        if moments.look(step).checkpoint:
            due.append(now)
            moments.written(step)
    assert due == [75, 150, 225]


def test_a_signal_is_passed_on() -> None:
    signals = Signals()
    moments = Moments(ALONE, signals, None)
    assert moments.look(1) == Due(False)
    signals.received = 10
    assert moments.look(2) == Due(True, 10)


def test_a_step_s_random_numbers_are_its_own() -> None:
    def drawn(rank: int, epoch: int, number: int, seed: int = 0) -> list[float]:
        StepGenerators(torch.device("cpu"), seed, rank).seed(epoch, number)
        values: list[float] = torch.rand(4).tolist()
        return values

    first = drawn(0, 1, 2)
    assert drawn(0, 1, 2) == first
    others = [drawn(1, 1, 2), drawn(0, 2, 2), drawn(0, 1, 3), drawn(0, 1, 2, seed=1)]
    assert all(other != first for other in others)
    assert len({tuple(other) for other in others}) == 4
