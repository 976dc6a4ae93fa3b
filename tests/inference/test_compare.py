"""Comparison of two models: its figures against those computed image by image, and what can't be compared."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import effnet
from effnet.cli import main
from effnet.weights import WeightsMetadata, create_model, save_weights
from effnet.weights.confidence import Confidence
from tests.runs import CLASSES, PREPROCESSING

pytestmark = pytest.mark.usefixtures("small_networks")

METADATA = WeightsMetadata(
    "efficientnet-lite0",
    {**PREPROCESSING, "image_size": 64, "resize": 72},
    padding="same",
    classes=CLASSES,
)
ORDER = [2, 0, 1]
Compare = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, one with other weights in its classifier, and that with its classes in another order."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    model = create_model("efficientnet-lite0", num_classes=3, bn_momentum=0.3).train()
    with torch.no_grad():
        for _ in range(8):  # for BatchNorm's statistics
            colours = torch.randn(16, 3, 1, 1)
            model(colours + 0.5 * torch.randn(16, 3, 64, 64))
    files = {name: folder / f"{name}.safetensors" for name in ("first", "second", "reordered", "two")}
    state = model.state_dict()
    state["classifier.fc.weight"] = 0.5 * torch.randn(3, 1280)
    save_weights(files["first"], state, METADATA)
    state["classifier.fc.weight"] = state["classifier.fc.weight"] + 0.3 * torch.randn(3, 1280)
    warm = replace(METADATA, confidence=Confidence(temperature=2.0))
    save_weights(files["second"], state, warm)
    for name in ("weight", "bias"):
        state[f"classifier.fc.{name}"] = state[f"classifier.fc.{name}"][ORDER]
    reordered = replace(warm, classes=tuple(CLASSES[index] for index in ORDER))
    save_weights(files["reordered"], state, reordered)
    for name in ("weight", "bias"):
        state[f"classifier.fc.{name}"] = state[f"classifier.fc.{name}"][:2]
    save_weights(files["two"], state, replace(METADATA, classes=CLASSES[:2]))
    return files


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compare:
    def run_it(*arguments: object) -> dict[str, Any]:
        command = ["compare", *map(str, arguments), "--json", "-j", "0", "--device", "cpu", "-b", "4"]
        assert main(command) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run_it


def test_figures_are_those_of_each_image(
    models: dict[str, Path], images: Path, compare: Compare, tmp_path: Path
) -> None:
    found = compare(models["first"], models["second"], "--data", images, "--shown", "4")
    paths = sorted((images / "val").glob("*/*"))
    labels = np.array([CLASSES.index(path.parent.name) for path in paths])
    first, second = (
        torch.from_numpy(effnet.load(models[name], device="cpu").probabilities([str(path) for path in paths]))
        for name in ("first", "second")
    )
    same = (first.argmax(1) == second.argmax(1)).numpy()
    right = [(each.argmax(1).numpy() == labels) for each in (first, second)]
    moved = (first - second).abs().sum(1) / 2
    assert 0 < same.sum() < len(paths)
    assert (found["images"], found["disagreements"]) == (15, int((~same).sum()))
    assert found["agreement"] == pytest.approx(100 * same.mean())
    assert [found["first_top1"], found["second_top1"]] == pytest.approx([100 * r.mean() for r in right])
    assert found["only_first_right"] == int((right[0] & ~right[1]).sum())
    assert found["only_second_right"] == int((right[1] & ~right[0]).sum())
    assert found["mean_moved"] == pytest.approx(float(moved.mean()), abs=1e-5)
    divergence = F.kl_div(second.log(), first, reduction="batchmean")
    assert found["mean_divergence"] == pytest.approx(float(divergence), abs=1e-4)
    assert sum(change["images"] for change in found["changes"]) == found["disagreements"]
    assert {row["class"]: row["images"] for row in found["classes"]} == dict.fromkeys(CLASSES, 5)
    for row in found["classes"]:
        of_class = labels == CLASSES.index(row["class"])
        assert row["difference"] == pytest.approx(
            100 * (right[1][of_class].mean() - right[0][of_class].mean())
        )
        assert row["agreement"] == pytest.approx(100 * same[of_class].mean())
    order = sorted(range(15), key=lambda index: (same[index], -float(moved[index])))[:4]
    assert [image["image"] for image in found["most_different"]] == [str(paths[index]) for index in order]
    for index, image in zip(order, found["most_different"], strict=True):
        assert image["label"] == paths[index].parent.name
        assert image["second"][0]["class"] == CLASSES[int(second[index].argmax())]
        assert image["second"][0]["probability"] == pytest.approx(float(second[index].max()), abs=1e-5)


def test_the_order_of_the_classes_does_not_matter(
    models: dict[str, Path], images: Path, compare: Compare
) -> None:
    found, other = (compare(models["first"], models[n], "--data", images) for n in ("second", "reordered"))
    assert other.pop("second")["name"] == str(models["reordered"])
    del found["second"]
    assert json.dumps(other) == json.dumps(found)
    same = compare(models["second"], models["reordered"], "--data", images, "--workers", "1")
    assert (same["agreement"], same["largest_logit_difference"]) == (100, 0)
    assert same["changes"] == []


def test_images_without_labels(
    models: dict[str, Path], images: Path, compare: Compare, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for index, path in enumerate(sorted(images.glob("val/*/*"))):
        shutil.copy(path, tmp_path / "photos" / f"{index:02}.jpg")
    (tmp_path / "photos/bad.jpg").write_bytes(b"broken")
    found = compare(models["first"], models["second"], "--data", tmp_path / "photos")
    assert (found["images"], found["bad_images"]) == (15, 1)
    assert "first_top1" not in found
    assert sum(row["images"] for row in found["classes"]) == 15
    without = compare(models["first"], models["second"], "--data", images / "val", "--no-labels")
    assert "first_top1" not in without
    for figure in ("disagreements", "mean_moved", "mean_divergence"):
        assert without[figure] == pytest.approx(found[figure], rel=1e-5)


@pytest.mark.slow
def test_an_exported_file_answers_as_its_weights(
    models: dict[str, Path],
    images: Path,
    compare: Compare,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime", reason="extra onnx")
    pytest.importorskip("onnxscript", reason="extra onnx")
    onnx = tmp_path / "first.onnx"
    assert (
        main(["export", "onnx", "--pretrained-from-file", str(models["first"]), "--output", str(onnx)]) == 0
    )
    capsys.readouterr()  # what the export has said
    exported = compare(models["first"], onnx, "--data", images)
    assert exported["agreement"] == 100
    assert exported["mean_moved"] < 1e-4
    assert exported["largest_logit_difference"] < 1e-2
    assert exported["second"]["engine"] in ("onnxruntime", "openvino")
    photo = str(next(images.glob("val/*/*")))
    assert main(["classify", str(onnx), photo, "--engine", "onnxruntime", "--explain", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--explain: onnxruntime returns logits only; give weights or a checkpoint" in line


@pytest.mark.parametrize(
    ("second", "data", "words"),
    [
        ("two", "val", "different classes: the first 3 classes (star among them), the second 2 classes"),
        ("second", "renamed", "the models have no class comet; give --no-labels"),
        ("second", "empty", "holds no images"),
        ("second", "broken", "none of the 1 images can be decoded"),
        ("nothing", "val", "nothing"),
    ],
)
def test_what_can_t_be_compared(
    models: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    second: str,
    data: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images / "val", tmp_path / "val")
    shutil.copytree(images / "val" / "star", tmp_path / "renamed" / "comet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.jpg").write_bytes(b"broken")
    arguments = ["compare", str(models["first"]), str(models.get(second, "nothing.pth")), "--data", data]
    assert main([*arguments, "--device", "cpu", "-j", "0"]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "compare.html").exists()
