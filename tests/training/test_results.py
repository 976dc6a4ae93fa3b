"""Precision, recall, F1, balanced accuracy, average precision, AUROC and calibration beside scikit-learn's."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from effnet.runtime.processes import Processes, joined_processes
from effnet.training.answers import Answers, Sums
from effnet.training.metrics import metrics_of
from effnet.training.ranking import Scores, best_threshold
from effnet.training.results import Results
from tests.training.processes import in_processes

C = 5
ALONE = Processes.alone(torch.device("cpu"))

Data = tuple[Tensor, Tensor]


def random(images: int = 60) -> Data:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(images, C, generator=generator), torch.randint(C, (images,), generator=generator)


def absent_class() -> Data:
    """A class without images, for some of which it is predicted, and one that is neither there nor predicted."""
    logits, targets = random()
    logits[:, 4] = -50
    return logits, targets.clamp(max=2)


def one_class() -> Data:
    logits, targets = random()
    return logits, torch.full_like(targets, 3)


def ties() -> Data:
    logits, targets = random()
    return logits.sign(), targets


def certain() -> Data:
    logits, targets = random()
    return 100 * logits, targets


def one_image() -> Data:
    return random(1)


SINGLE = [random, absent_class, one_class, ties, certain, one_image]


def several(data: Data) -> Data:
    """The same logits, with labels of which an image has none, one or several."""
    labels = torch.rand(data[0].shape, generator=torch.Generator().manual_seed(5)) < 0.35
    return data[0], labels.float()


def without_a_label() -> Data:
    logits, labels = several(random())
    labels[:, 1] = 0
    labels[:, 2] = 1
    return logits, labels


MULTI = [lambda: several(random()), lambda: several(ties()), without_a_label]
THRESHOLDS = torch.tensor([0.5, 0.3, 0.9, 0.5, 0.0])


def measured(data: Data, thresholds: Tensor | None, processes: Processes = ALONE, batch: int = 7) -> Results:
    logits, targets = (part[processes.rank :: processes.world_size] for part in data)
    sums = Sums(torch.device("cpu"), C, Scores(C, chooses=thresholds is not None))
    for first in range(0, len(targets), batch):
        part = slice(first, first + batch)
        sums.add(Answers(logits[part], targets[part], 2, thresholds))
    return sums.results(processes, thresholds)


def in_a_process(cases: list[tuple[Data, Tensor | None]]) -> list[dict[str, Any]]:
    with joined_processes("cpu") as processes:
        every = [measured(data, thresholds, processes) for data, thresholds in cases]
    return [{**metrics_of(each, 2), "chosen": chosen(each)} for each in every]


def chosen(results: Results) -> list[float] | None:
    return None if results.chosen_thresholds is None else results.chosen_thresholds.tolist()


def averages(true: Any, predicted: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for suffix, average in (("", "macro"), ("_weighted", "weighted")):
        values = sk.precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        names = (f"precision{suffix}", f"recall{suffix}", f"f1{suffix}")
        found |= dict(zip(names, values[:3], strict=True))
    return found


def over_classes(metric: Any, labels: np.ndarray, scores: np.ndarray, *, needs_both: bool) -> float:
    values = [
        metric(own, score)
        for own, score in zip(labels.T, scores.T, strict=True)
        if own.any() and not (needs_both and own.all())
    ]
    return float(np.mean(values)) if values else math.nan


def ranked(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    return {
        "average_precision": over_classes(sk.average_precision_score, labels, scores, needs_both=False),
        "auroc": over_classes(sk.roc_auc_score, labels, scores, needs_both=True),
    }


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("make", SINGLE)
def test_one_label(make: Any) -> None:
    logits, targets = make()
    predicted, p = logits.argmax(1), logits.softmax(1)
    expected = {
        **averages(targets, predicted),
        **ranked(torch.nn.functional.one_hot(targets, C).bool().numpy(), p.numpy()),
        "balanced_accuracy": sk.balanced_accuracy_score(targets, predicted),
        "ece": multiclass_calibration_error(p, targets, C, n_bins=15).item(),
    }
    found = metrics_of(measured((logits, targets), None), 2)
    assert {name: found[name] for name in expected} == pytest.approx(
        expected, rel=1e-5, abs=1e-6, nan_ok=True
    )


@pytest.mark.parametrize("make", MULTI)
def test_several_labels(make: Any) -> None:
    logits, labels = make()
    p = logits.sigmoid()
    own, predicted = labels.numpy().astype(int), (p >= THRESHOLDS).numpy().astype(int)
    expected = {
        **averages(own, predicted),
        **ranked(own.astype(bool), p.numpy()),
        "ece": binary_calibration_error(p.flatten(), labels.flatten().long(), n_bins=15).item(),
        "loss": torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).item(),
    }
    results = measured((logits, labels), THRESHOLDS)
    found = metrics_of(results, 2)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    per_class = sk.f1_score(own, predicted, average=None, zero_division=0)
    assert [results.by_class(i)["f1"] for i in range(C)] == pytest.approx(per_class.tolist())


@pytest.mark.slow
def test_three_processes_are_one() -> None:
    cases = [(make(), None) for make in SINGLE] + [(make(), THRESHOLDS) for make in MULTI]
    for of_process in in_processes(3, in_a_process, cases):
        for found, (data, thresholds) in zip(of_process, cases, strict=True):
            results = measured(data, thresholds)
            expected = metrics_of(results, 2)
            assert found.pop("chosen") == chosen(results)
            # Losses and probabilities are computed in single precision, batch by batch.
            assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)


def f1(p: Tensor, own: Tensor, threshold: float) -> float:
    predicted = p >= torch.tensor(threshold)
    return 2 * float((predicted & own).sum() / (predicted.sum() + own.sum()))


@pytest.mark.parametrize("make", MULTI)
def test_a_threshold_has_the_best_f1_score(make: Any) -> None:
    logits, labels = make()
    p, own = logits.sigmoid(), labels > 0
    for column in range(C):
        found = best_threshold(p[:, column], own[:, column])
        if not own[:, column].any():
            assert found == 0.5
            continue
        candidates = [0.0, *p[:, column].tolist()]
        best = max(f1(p[:, column], own[:, column], each) for each in candidates)
        assert f1(p[:, column], own[:, column], found) == pytest.approx(best)
        assert best > 0


def test_a_threshold_lies_between_probabilities() -> None:
    p, own = torch.tensor([0.9, 0.6, 0.2, 0.1]), torch.tensor([True, True, False, False])
    assert best_threshold(p, own) == pytest.approx(0.4)
    # Neighbours among the floats, of which the lower one must not be predicted.
    low = torch.tensor(0.6)
    high = torch.nextafter(low, torch.tensor(1.0))
    assert torch.tensor(best_threshold(torch.stack([low, high]), torch.tensor([False, True]))) == high
