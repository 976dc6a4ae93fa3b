"""The learning rate over a training."""

import itertools
import math

import pytest

from effnet.recipe import ResolvedSchedule
from effnet.training.schedule import SCHEDULES, learning_rate


def at(epoch: float, **settings: object) -> float:
    values = {"epochs": 400, "run_epochs": 400, "warmup": 16.0, "best_metric": "top1", **settings}
    return learning_rate(ResolvedSchedule(**values), 0.08, epoch)  # type: ignore[arg-type]


def test_warmup_is_linear_from_zero() -> None:
    assert at(0) == 0.0
    assert at(4) == pytest.approx(0.02)
    assert at(16) == pytest.approx(0.08)


def test_cosine_ends_at_end_lr() -> None:
    assert at(208) == pytest.approx(0.04)
    assert at(112) == pytest.approx(0.04 * (1 + math.cos(math.pi / 4)))
    assert at(400) == pytest.approx(0.0, abs=1e-12)
    assert at(400, end_lr=0.001) == pytest.approx(0.001)


def test_linear() -> None:
    assert at(208, lr_schedule="linear") == pytest.approx(0.04)
    assert at(400, lr_schedule="linear", end_lr=0.01) == pytest.approx(0.01)


def test_step_falls_to_a_tenth_three_times() -> None:
    rates = [
        at(epoch, lr_schedule="step", epochs=90, warmup=0.0) for epoch in (0, 29, 30, 59, 60, 79, 80, 89)
    ]
    assert rates == pytest.approx([0.08, 0.08, 0.008, 0.008, 0.0008, 0.0008, 0.00008, 0.00008])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("end_lr", [0.0, 0.001])
def test_every_schedule_falls_from_the_rate_to_its_end(name: str, end_lr: float) -> None:
    epochs = [16 + share * (400 - 16) / 100 for share in range(101)]
    rates = [at(epoch, lr_schedule=name, end_lr=end_lr) for epoch in epochs]
    assert rates[0] == pytest.approx(0.08)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))
    assert end_lr - 1e-12 <= rates[-1] <= max(end_lr, 0.08 / 1000) + 1e-12


def test_no_warmup_and_warmup_only() -> None:
    assert at(0, warmup=0.0) == pytest.approx(0.08)
    assert at(1, epochs=2, warmup=2.0) == pytest.approx(0.04)
    assert math.isfinite(at(2, epochs=2, warmup=2.0))
