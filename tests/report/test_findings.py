"""Answers of a run's best weights, beside those of a classifier and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest

import effnet
from effnet.report.runs import read_runs
from effnet.report.validation import validated
from effnet.runtime.errors import UserError
from tests.runs import CLASSES


@pytest.mark.parametrize("place", [0, 1], ids=["weights", "average"])
def test_findings_are_those_of_the_best_weights(place: int, trained: list[Path], images: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="extra sample")
    (run,) = read_runs([trained[place]])
    findings = validated(run, images, device="cpu")
    classifier = effnet.load(trained[place], device="cpu")
    files = sorted(images.glob("val/*/*.jpg"))
    truth = np.array([CLASSES.index(file.parent.name) for file in files])
    probabilities = classifier.probabilities([str(file) for file in files])
    chosen = probabilities.argmax(1)

    found = np.zeros((3, 3), dtype=int)
    for true, predicted, count in findings.cells:
        found[true, predicted] = count
    assert (found == metrics.confusion_matrix(truth, chosen, labels=range(3))).all()
    scores = metrics.precision_recall_fscore_support(truth, chosen, labels=range(3), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "images"), scores, strict=True):
        assert [findings.by_class[label][name] for label in CLASSES] == pytest.approx(list(values))

    wrong = sorted(np.flatnonzero(truth != chosen), key=lambda index: -probabilities[index].max())
    assert len(findings.mistakes) == len(wrong)
    told = [mistake.answers[0].probability for mistake in findings.mistakes]
    assert told == pytest.approx([probabilities[index].max() for index in wrong], abs=1e-4)
    assert {mistake.file for mistake in findings.mistakes} == {str(files[index]) for index in wrong}
    for mistake in findings.mistakes:
        assert mistake.label == Path(mistake.file).parent.name != mistake.answers[0].label
        assert mistake.pixels.shape == (32, 32, 3)
        assert mistake.heat_map is not None
        assert mistake.heat_map.shape == mistake.pixels.shape
        assert (mistake.heat_map != mistake.pixels).any()
    assert findings.reliability
    for rows in findings.reliability.values():
        assert sum(row[2] for row in rows) == len(files)


def test_a_run_without_a_checkpoint(trained: list[Path], images: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes((trained[0] / "report.json").read_bytes())
    (run,) = read_runs([tmp_path])
    with pytest.raises(UserError, match="holds no model_best"):
        validated(run, images, device="cpu")
