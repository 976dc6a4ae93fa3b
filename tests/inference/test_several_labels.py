"""Images with several labels: training, thresholds, evaluation, classification, export, and quantized weights."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

import effnet
from effnet.fitting.run import Run
from effnet.inference.evaluate import evaluate
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import read_checkpoint
from tests.runs import quick_recipe

pytestmark = pytest.mark.usefixtures("small_networks")

CLASSES = ("blue", "green", "red")
SETTINGS: dict[str, Any] = {
    **{"arch": "efficientnet-lite0", "image_size": 32, "batch_size": 8, "workers": 0, "device": "cpu"},
    **{"epochs": 3, "lr": 0.02, "bn_momentum": 0.3, "augmentation": "none", "crop_scale": (0.8, 1.0)},
    **{"label_smoothing": 0.0, "use_ema": 0.5},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of images of noise, each brighter in the colours that it is labelled with."""
    folder = tmp_path_factory.mktemp("several")
    random = np.random.default_rng(0)
    with (folder / "images.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels", "split"])
        for index in range(72):
            present = random.random(3) < 0.5
            pixels = random.integers(0, 90, (40, 40, 3), dtype=np.uint8) + 160 * present[::-1].astype(
                np.uint8
            )
            Image.fromarray(pixels).save(folder / f"{index}.png")
            labels = "|".join(name for name, has in zip(CLASSES, present, strict=True) if has)
            writer.writerow([f"{index}.png", labels, "val" if index % 3 == 0 else "train"])
    return folder / "images.csv"


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    workspace = tmp_path_factory.mktemp("run")
    return effnet.fit(table, workspace=str(workspace), label_separator="|", **SETTINGS)


def val_labels(table: Path) -> tuple[list[str], np.ndarray]:
    with table.open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    labels = np.array([[name in row["labels"].split("|") for name in CLASSES] for row in rows])
    return [str(table.parent / row["path"]) for row in rows], labels


@pytest.mark.slow
def test_thresholds_are_chosen_stored_and_used(table: Path, run: Run, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(run.checkpoint)
    thresholds = checkpoint["metadata"]["thresholds"]
    assert len(thresholds) == 3
    assert checkpoint["resolved_recipe"]["task"]["task"] == "multi"
    assert checkpoint["progress"]["best_metric"] == "average_precision"

    paths, labels = val_labels(table)
    p = run.classifier.probabilities(paths)
    predicted = p >= np.array(thresholds, np.float32)
    for image, row, answer in zip(paths, p, run.predict(paths), strict=True):
        expected = [CLASSES[i] for i in np.argsort(-row) if row[i] >= thresholds[i]]
        assert [prediction.name for prediction in answer.predictions] == expected, image
    metrics = evaluate(
        quick_recipe(tmp_path).replace(
            {
                **{"resume": str(run.checkpoint), "evaluate": True, "per_class": str(tmp_path / "by.csv")},
                **{"label_separator": "|", "num_classes": None},
            }
        ),
        table,
    )
    prefix = "val_ema" if run.averaged else "val"
    assert metrics[f"{prefix}.f1"] == pytest.approx(
        f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-6
    )
    assert metrics[f"{prefix}.average_precision"] == pytest.approx(
        average_precision_score(labels, p, average="macro"), abs=1e-5
    )
    with (tmp_path / "by.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [float(row["threshold"]) for row in rows] == pytest.approx(thresholds, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_exported_files_have_the_same_probabilities_and_thresholds(
    table: Path, run: Run, suffix: str, tmp_path: Path
) -> None:
    path = run.export(tmp_path / f"model{suffix}")
    exported = effnet.load(path)
    paths, _ = val_labels(table)
    np.testing.assert_allclose(exported.probabilities(paths), run.classifier.probabilities(paths), atol=1e-4)
    thresholds = exported.engine.metadata.thresholds
    assert thresholds == run.classifier.engine.metadata.thresholds
    if suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert json.loads(facts["thresholds"]) == list(thresholds)
    recipe = quick_recipe(tmp_path, evaluate=True, pretrained_from_file=str(path), label_separator="|")
    metrics = evaluate(recipe.replace({"image_size": None}), table)
    own = run.evaluate(label_separator="|")
    assert metrics["val.f1"] == pytest.approx(own["val_ema.f1" if run.averaged else "val.f1"], abs=1e-6)


@pytest.mark.slow
def test_quantized_weights_have_thresholds_of_their_own(table: Path, run: Run) -> None:
    quantized = run.quantize(
        target="onnxruntime", label_separator="|", batch_size=8, calib_batches=2, workers=0
    )
    thresholds = read_checkpoint(quantized.checkpoint)["metadata"]["thresholds"]
    assert len(thresholds) == 3
    assert thresholds != list(run.classifier.engine.metadata.thresholds)


def test_several_labels_are_no_single_task(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--task single: the images of the data may have several labels"):
        effnet.fit(table, workspace=str(tmp_path), label_separator="|", task="single", **SETTINGS)


def test_an_image_without_a_label_has_no_best_one(run: Run) -> None:
    classifier = run.classifier
    classifier._thresholds = np.full(3, 1.1, np.float32)
    answer = classifier(np.zeros((32, 32, 3), np.uint8))
    assert answer.predictions == ()
    with pytest.raises(UserError, match="no label"):
        _ = answer.best
    assert torch.is_inference_mode_enabled() is False
