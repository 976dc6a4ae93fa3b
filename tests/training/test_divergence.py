"""The rule by which a training has diverged: what is forgiven and what is not."""

import math
from typing import Any

import pytest
import torch

from effnet.runtime.log import RunLog
from effnet.runtime.processes import Processes
from effnet.training.divergence import DivergedError, Divergence, check_validation, check_weights, is_sound

pytestmark = pytest.mark.usefixtures("small_networks")

ALONE = Processes.alone(torch.device("cpu"))
UNIFORM = math.log(10)


def watch(losses: list[float], *, factor: float = 10.0, classes: int = 10, score: float = 0.0) -> float:
    return Divergence(RunLog(None), math.log(classes), factor).watch(losses, score, epoch=0, last=len(losses))


@pytest.mark.parametrize(
    "losses",
    [
        [UNIFORM] * 500,
        [2.3, 100.0, 20.0, 2.0] * 100,  # single batches at a high rate
        [40.0] * 50 + [2.0] * 50,  # a bad start
        [1e30, 1e30, 2.0, 2.0, 2.0],
        [math.nan] * 50,  # for --max-bad-steps
        [0.0] * 50,
    ],
)
def test_forgiven(losses: list[float]) -> None:
    watch(losses)


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([2.3, 2.3, *[1e15] * 10], 5),
        ([5 * 10 * UNIFORM] * 40, 22),
        ([1e15, math.nan, 1e15, math.inf, 1e15], 5),
    ],
)
def test_diverged(losses: list[float], step: int) -> None:
    with pytest.raises(DivergedError, match=f"epoch 1 step {step}: the training has diverged"):
        watch(losses)


def test_the_score_goes_on_over_reports() -> None:
    score = 0.0
    for _ in range(2):
        score = watch([1e15], score=score)
    assert score == 10.0
    with pytest.raises(DivergedError):
        watch([1e15], score=score)
    assert watch([2.0] * 20, score=score) == 0.0


def test_a_single_class_and_no_limit() -> None:
    watch([9.0] * 100, classes=1)
    with pytest.raises(DivergedError):
        watch([1e6] * 10, classes=1)
    assert watch([1e15] * 100, factor=0.0) == 0.0


def validated(*losses: float, before: int = 0) -> int:
    rule = Divergence(RunLog(None), math.log(10), 10.0)
    for epoch, loss in enumerate(losses):
        before = rule.validated({"val.loss": loss}, before, epoch=epoch)
    return before


def test_validation_that_is_not_finite_ends_the_run_at_the_third_time_in_a_row() -> None:
    assert validated(math.nan, math.inf) == 2
    assert validated(math.nan, math.nan, 1.0, math.nan) == 1
    with pytest.raises(DivergedError, match="epoch 3: the validation loss was not finite in 3 epochs"):
        validated(math.nan, math.nan, math.nan)


def test_a_training_does_not_end_well_without_a_validation_loss() -> None:
    check_validation(0)
    with pytest.raises(DivergedError, match="of the last epoch is not finite"):
        check_validation(1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_end_the_run(value: float) -> None:
    tensors = [torch.zeros(3), torch.full((2, 2), 1e38)]
    check_weights(tensors, ALONE, 0)
    tensors[0][1] = value
    with pytest.raises(DivergedError, match="epoch 1: .* weights are not finite"):
        check_weights(tensors, ALONE, 0)


@pytest.mark.parametrize(
    ("metrics", "score", "sound"),
    [
        ({"train.loss": 1.0, "val.loss": 2.0, "val_ema.loss": 2.0, "val.top1": math.nan}, 0.0, True),
        ({"train.loss": math.nan, "val.loss": 2.0}, 0.0, False),
        ({"train.loss": 1.0, "val.loss": math.inf}, 0.0, False),
        ({"train.loss": 1.0, "val.loss": 2.0, "val_ema.loss": math.nan}, 0.0, False),
        ({"train.loss": 1e15, "val.loss": 2.0}, 10.0, False),
    ],
)
def test_the_epoch_that_may_be_the_best(metrics: dict[str, Any], score: float, sound: bool) -> None:
    assert is_sound(metrics, score) == sound
