"""The confusion matrix of answers that are not finite."""

import csv
import math
from pathlib import Path

import pytest
import torch

from effnet.data import Batch
from effnet.inference.by_class import write_per_class
from effnet.training.confusion import NOT_FINITE, ConfusionMatrix

NAMES = ["cat", "dog"]


def matrix(*rows: tuple[int, list[float]]) -> ConfusionMatrix:
    made = ConfusionMatrix(NAMES, torch.device("cpu"))
    targets = torch.tensor([target for target, _ in rows])
    made(Batch(torch.zeros(len(rows), 3, 1, 1), targets), torch.tensor([logits for _, logits in rows]))
    return made


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_not_finite_is_wrong_and_has_a_column(tmp_path: Path, value: float) -> None:
    counted = matrix(
        (0, [2.0, 1.0]), (0, [value, 1.0]), (0, [2.0, value]), (1, [value, value]), (1, [1.0, 2.0])
    )
    assert counted.counts.tolist() == [[1, 0], [0, 1]]
    write_per_class(tmp_path / "classes.csv", {key: {"images": 0.0} for key in NAMES}, counted)
    counted.write(tmp_path / "matrix.csv")
    per_class, table = (list(csv.reader((tmp_path / name).open())) for name in ("classes.csv", "matrix.csv"))
    assert per_class[1:] == [["cat", "3", "1", "33.33", NOT_FINITE], ["dog", "2", "1", "50.00", NOT_FINITE]]
    assert table[0][1:] == [*NAMES, NOT_FINITE]
    assert [row[1:] for row in table[1:]] == [["1", "0", "2"], ["0", "1", "1"]]


def test_finite_answers_have_no_such_column(tmp_path: Path) -> None:
    counted = matrix((0, [2.0, 1.0]), (1, [2.0, 1.0]))
    counted.write(tmp_path / "matrix.csv")
    assert list(csv.reader((tmp_path / "matrix.csv").open())) == [
        ["true \\ predicted", "cat", "dog"], ["cat", "1", "0"], ["dog", "1", "0"],
    ]  # fmt: skip
