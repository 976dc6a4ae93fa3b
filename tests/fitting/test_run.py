"""`effnet.fit` beside the command line, and the uses of its result."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import effnet
from effnet.cli import main
from effnet.training.checkpoint import read_checkpoint
from tests.runs import CLASSES
from tools import keywords

pytestmark = pytest.mark.usefixtures("small_networks")

SETTINGS = {
    "arch": "efficientnet-lite0",
    "image_size": 32,
    "batch_size": 8,
    "epochs": 3,
    "workers": 0,
    "lr": 0.001,  # ten times as much diverges, on some processors so far that no epoch counts as the best
    "mixup": 0.2,
    "use_ema": 0.9,
    "device": "cpu",
    "crop_scale": (0.5, 1.0),
}


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> effnet.Run:
    return effnet.fit(images, workspace=str(tmp_path_factory.mktemp("fit")), **SETTINGS)  # type: ignore[misc]


def test_a_fit_is_the_run_of_the_command_line(run: effnet.Run, images: Path, tmp_path: Path) -> None:
    flags = [str(images), "--workspace", str(tmp_path)]
    for name, value in SETTINGS.items():
        values = value if isinstance(value, tuple) else (value,)
        flags += ["--" + name.replace("_", "-"), *map(str, values)]
    assert main(["train", *flags]) == 0
    ours, theirs = (read_checkpoint(folder / "checkpoint.pth.tar") for folder in (run.workspace, tmp_path))
    for part in ("state_dict", "state_dict_ema"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in ours[part])
    for name, state in ours["optimizer"].items():
        assert all(torch.equal(state[key], theirs["optimizer"][name][key]) for key in state)


def test_metrics_are_those_of_the_log(run: effnet.Run) -> None:
    lines = [json.loads(line) for line in (run.workspace / "report.json").read_text().splitlines()]
    epochs = [line["data"] for line in lines if line["type"] == "epoch"]
    assert run.history == epochs
    assert len(epochs) == SETTINGS["epochs"]
    assert run.metrics["val.loss"] == epochs[-1]["val.loss"]
    assert run.metrics["best_top1"] == max(max(each["val.top1"], each["val_ema.top1"]) for each in epochs)


def test_evaluation_repeats_the_best_epoch(run: effnet.Run) -> None:
    before = run.metrics
    found = run.evaluate(workers=0)
    prefix = "val_ema" if run.averaged else "val"
    assert found[f"{prefix}.top1"] == before["best_top1"]
    assert run.metrics == before


def test_predictions_are_those_of_the_model(run: effnet.Run, images: Path) -> None:
    path = images / "val" / CLASSES[0] / "0.jpg"
    answer = run.predict(path)
    assert {prediction.name for prediction in answer.predictions} == set(CLASSES)
    assert sum(prediction.probability for prediction in answer.predictions) == pytest.approx(1, abs=1e-5)
    many = run.predict([path, images / "val"])
    assert len(many) == 1 + len(list((images / "val").rglob("*.jpg")))
    assert many[0].best.name == answer.best.name
    assert many[0].best.probability == pytest.approx(answer.best.probability, abs=1e-5)


def test_the_model_has_the_best_weights(run: effnet.Run) -> None:
    preprocessing = run.classifier.engine.preprocessing
    side = preprocessing.resize  # of an image that needs no resizing, only the crop
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    first = round((side - 32) / 2)
    cropped = image[first : first + 32, first : first + 32].astype(np.float32) / 255
    normalised = (cropped - preprocessing.mean) / preprocessing.std
    with torch.no_grad():
        logits = run.model(torch.from_numpy(normalised).float().permute(2, 0, 1)[None])
    expected = logits.softmax(1).numpy()
    assert np.abs(run.classifier.probabilities(image) - expected).max() < 1e-5
    weights = read_checkpoint(run.checkpoint)["state_dict_ema" if run.averaged else "state_dict"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in run.model.state_dict().items())


@pytest.mark.slow
def test_a_run_is_quantized_and_exported(run: effnet.Run, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="extra onnx")
    quantized = run.quantize(target="onnxruntime", calib_batches=2, workers=0, batch_size=8)
    assert quantized.model.config.quantized
    paths = images / "val"
    probabilities = run.classifier.probabilities(paths)
    # The steps of a network that has learnt this little differ with the machine that rounds them.
    for one, name, limit in ((run, "float.onnx", 1e-4), (quantized, "int8.onnx", 0.1)):
        written = one.export(tmp_path / name)
        of_file = effnet.load(written).probabilities(paths)
        assert np.abs(of_file - one.classifier.probabilities(paths)).mean() < limit
        assert np.abs(of_file - probabilities).mean() < 0.2
    again = effnet.load(run.export(tmp_path / "weights.safetensors"))
    assert np.array_equal(again.probabilities(paths), probabilities)


def test_what_fit_refuses(images: Path, tmp_path: Path) -> None:
    with pytest.raises(effnet.UserError, match="--batch-size"):
        effnet.fit(images, workspace=str(tmp_path), **{**SETTINGS, "batch_size": 0})  # type: ignore[misc]
    with pytest.raises(effnet.UserError, match="epoch_s"):
        effnet.fit(images, workspace=str(tmp_path), epoch_s=3)  # type: ignore[call-arg]
    with pytest.raises(effnet.UserError, match=r"Run\.evaluate"):
        effnet.fit(images, workspace=str(tmp_path), evaluate=True)
    with pytest.raises(effnet.UserError, match="holds no"):
        effnet.Run(tmp_path)
    with pytest.raises(effnet.UserError, match=r"\.onnx"):
        effnet.Run.export(object.__new__(effnet.Run), "model.tflite")


def test_the_types_of_settings_are_up_to_date() -> None:
    assert keywords.MODULE.read_text() == keywords.module(), "run `make tables`"
    assert "settings" in inspect.signature(effnet.fit).parameters
