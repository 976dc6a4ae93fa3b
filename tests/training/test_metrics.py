"""The metrics of validation beside NumPy, and the best epoch by each of them."""

import math

import numpy as np
import pytest
import torch

from effnet.runtime.processes import Processes
from effnet.training.answers import Answers, Sums
from effnet.training.best import Best
from effnet.training.metrics import METRICS, metrics_of
from effnet.training.ranking import Scores

CPU = torch.device("cpu")
ALONE = Processes(rank=0, local_rank=0, world_size=1, local_world_size=1, device=CPU)
IMAGES, CLASSES = 23, 7


def expected(logits: np.ndarray, targets: np.ndarray, k: int) -> dict[str, float]:
    """By hand, in float64."""
    ranked = np.argsort(-logits, axis=1)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {
        "loss": -np.log(shares[np.arange(len(targets)), targets]).mean(),
        "top1": 100 * np.mean(ranked[:, 0] == targets),
        f"top{k}": 100 * np.mean([target in row[:k] for row, target in zip(ranked, targets, strict=True)]),
        "images": len(targets),
    }


@pytest.mark.parametrize("k", [3, CLASSES + 2])
@pytest.mark.parametrize("batch_size", [IMAGES, 5])
def test_metrics_of_random_answers(k: int, batch_size: int) -> None:
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(IMAGES, CLASSES)), random.integers(CLASSES, size=IMAGES)
    sums = Sums(CPU, CLASSES)
    for start in range(0, IMAGES, batch_size):
        part = slice(start, start + batch_size)
        sums.add(Answers(torch.from_numpy(logits[part]).float(), torch.from_numpy(targets[part]), k))
    measured = metrics_of(sums.results(ALONE), k)
    by_hand = expected(logits, targets, k)
    assert {name: measured[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-6)
    assert 0 < measured["top1"] < measured[f"top{k}"] <= 100


def test_top_1_is_measured_once_with_a_k_of_1() -> None:
    sums = Sums(CPU, 4)
    sums.add(Answers(torch.eye(4), torch.tensor([0, 1, 0, 0]), 1))
    measured = metrics_of(sums.results(ALONE), 1)
    unranked = [metric for metric in METRICS.values() if not metric.ranks]
    # The number of images, and "topk" under the name "top1".
    assert len(measured) == len(unranked)
    assert measured["top1"] == 50.0


@pytest.mark.parametrize("name", METRICS)
def test_better_is_higher_or_lower_and_never_nan(name: str) -> None:
    metric = METRICS[name]
    worse, better = (1.0, 2.0) if metric.higher_is_better else (2.0, 1.0)
    assert metric.is_better(better, worse)
    assert not metric.is_better(worse, better)
    assert not metric.is_better(worse, worse)
    for nothing in (None, math.nan):
        assert metric.is_better(worse, nothing)
        assert not metric.is_better(math.nan, nothing)
    assert not metric.is_better(math.nan, worse)


@pytest.mark.parametrize(
    ("name", "metrics", "found"),
    [
        ("top1", {"val.top1": 60.0, "val_ema.top1": 50.0, "val.loss": 1.0}, (60.0, False)),
        ("top1", {"val.top1": 60.0, "val_ema.top1": 60.0}, (60.0, True)),
        ("top1", {"val.top1": 60.0}, (60.0, False)),
        ("top1", {"train.loss": 1.0}, None),
        ("topk", {"val.top1": 60.0, "val.top5": 90.0, "val_ema.top5": 91.0}, (91.0, True)),
        ("loss", {"val.loss": 1.0, "val_ema.loss": 2.0, "val_ema.top1": 99.0}, (1.0, False)),
        ("loss", {"val.loss": 2.0, "val_ema.loss": 1.0}, (1.0, True)),
        ("loss", {"val.loss": 2.0, "val_ema.loss": math.nan}, (2.0, False)),
    ],
)
def test_the_better_of_the_weights_and_their_average(
    name: str, metrics: dict[str, float], found: tuple[float, bool] | None
) -> None:
    assert Best.of(name, 5).find(metrics) == found


def test_progress_of_a_checkpoint_without_the_metric() -> None:
    old = {"epoch": 3, "best_top1": 70.0, "stale_epochs": 2}
    assert Best.of("top1", 5).resumed(old) == old | {"best_metric": "top1", "best_value": 70.0}
    untouched = {"epoch": 0, "best_top1": -1.0}
    assert Best.of("top1", 5).resumed(untouched)["best_value"] is None


def test_progress_of_another_metric_begins_again() -> None:
    saved = {"best_top1": 70.0, "best_metric": "top1", "best_value": 70.0, "stale_epochs": 2}
    changed = {"best_metric": "loss", "best_value": None, "stale_epochs": 0}
    assert Best.of("loss", 5).resumed(saved) == saved | changed
    assert Best.of("top1", 5).resumed(saved) == saved


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(slice(None), slice(None)), (slice(None), 0), (slice(None), 1)])
def test_logits_that_are_not_finite_are_wrong_answers(value: float, place: tuple[slice, int]) -> None:
    """Wherever they are; every third image has them, and all images are of the first class."""
    logits = torch.tensor([[5.0, 1.0, 0.0]]).repeat(6, 1)
    logits[::3][place] = value
    sums = Sums(CPU, 3, Scores(3, chooses=False))
    sums.add(Answers(logits, torch.zeros(6, dtype=torch.int64), 2))
    measured = metrics_of(sums.results(ALONE), 2)
    assert measured["top1"] == measured["top2"] == pytest.approx(100 * 4 / 6)
    assert measured["recall"] == pytest.approx(4 / 6)
    for name in ("loss", "ece", "average_precision", "auroc"):
        assert math.isnan(measured[name])


@pytest.mark.parametrize("name", METRICS)
def test_infinity_is_never_better(name: str) -> None:
    for value in (math.inf, -math.inf):
        for than in (None, 1.0, math.nan):
            assert not METRICS[name].is_better(value, than)
        assert METRICS[name].is_better(1.0, value)
