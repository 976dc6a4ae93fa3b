"""Whole quantizations on real files: after training, by training, interrupted, in several processes."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.cli import main
from effnet.inference.evaluate import evaluate
from effnet.quantization.layers import quantizers_of
from effnet.quantization.placement import place_quantizers
from effnet.quantization.run import quantize
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.training.run import train
from effnet.weights import load_model
from tests.phones import tiny
from tests.runs import quick_recipe, records
from tests.training.processes import in_processes, started

pytestmark = pytest.mark.usefixtures("small_networks")


def recipe(workspace: Path, **changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "arch": "efficientnet-quant-lite0",
        "epochs": 0,
        "calib_batches": 2,
        "target": "openvino",
    }
    return quick_recipe(workspace, **{**values, **changes})


def state(workspace: Path, entry: str = "state_dict") -> dict[str, torch.Tensor]:
    content = torch.load(workspace / "checkpoint.pth.tar", weights_only=True)
    states: dict[str, torch.Tensor] = content[entry]
    return states


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def assert_alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Ranges are equal; weights, which follow from sums in another order, but for a few."""
    ranges = {key for key in one if key.endswith(("_amax", "_bias_value"))}
    assert_same({key: one[key] for key in ranges}, {key: other[key] for key in other if key in ranges})
    weights = [key for key in one if key not in ranges]
    assert len(ranges) > 50
    same = torch.cat([(one[key] == other[key]).flatten() for key in weights if key.endswith("weight")])
    assert same.float().mean() > 0.999
    for key in weights:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=0.02)


@pytest.fixture(scope="module")
def float_weights(images: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    workspace = tmp_path_factory.mktemp("float")
    train(recipe(workspace, arch="efficientnet-lite0", epochs=2), images)
    return str(workspace / "checkpoint.pth.tar")


def test_after_training(images: Path, tmp_path: Path, float_weights: str) -> None:
    metrics = quantize(recipe(tmp_path, pretrained_from_file=float_weights), images)
    assert metrics.keys() >= {"calib.total_ips", "calib.data_time", "calib.compute_latency", "val.top1"}
    (logged,) = records(tmp_path, "calibration")
    assert logged["data"]["calib.total_ips"] > 0
    checkpoint = str(tmp_path / "checkpoint.pth.tar")
    again = evaluate(recipe(tmp_path, pretrained_from_file=checkpoint), images)
    assert again["val.loss"] == pytest.approx(metrics["val.loss"], rel=1e-6)
    # The same images give the same ranges, in batches of another size too.
    other = tmp_path / "other"
    quantize(
        recipe(other, pretrained_from_file=float_weights, batch_size=4, calib_batches=4),
        images,
    )
    assert_alike(state(other), state(tmp_path))
    # What has ranges needs no images to calibrate on.
    kept = tmp_path / "kept"
    changes = {"pretrained_from_file": checkpoint, "skip_calibration": True, "calib_data": "absent"}
    assert quantize(recipe(kept, **changes), images)["val.loss"] == pytest.approx(
        metrics["val.loss"], rel=1e-6
    )


@pytest.mark.parametrize(
    "changes", [{"use_ema": 0.9, "precision": "bf16"}, {"freeze_bn": 1, "target": "onnxruntime"}]
)
def test_training(images: Path, tmp_path: Path, float_weights: str, changes: dict[str, Any]) -> None:
    metrics = quantize(recipe(tmp_path, pretrained_from_file=float_weights, epochs=1, **changes), images)
    before, after = load_model(float_weights).state_dict(), state(tmp_path)
    key = "layers.1.block0.expand.conv.weight"
    assert not torch.equal(before[key], after[key])
    amax = after["layers.1.block0.expand.conv._weight_quantizer._amax"]
    assert ((amax > 0) & (amax < 10)).all()
    evaluated = evaluate(recipe(tmp_path, resume=str(tmp_path / "checkpoint.pth.tar"), **changes), images)
    for name in ("val.loss", "val_ema.loss"):
        if name in metrics:
            assert evaluated[name] == pytest.approx(metrics[name], rel=1e-6)
    unmoved = torch.equal(before["stem.bn.running_mean"], after["stem.bn.running_mean"])
    assert unmoved == ("freeze_bn" in changes)


@pytest.mark.slow
def test_killed_and_resumed_is_uninterrupted(images: Path, tmp_path: Path, float_weights: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = {"pretrained_from_file": float_weights, "epochs": 3}
    quantize(recipe(whole, **changes), images)
    flags = [
        *("--arch", "efficientnet-quant-lite0", "--image-size", "32", "-b", "8", "--epochs", "3", "-j", "0"),
        *("--lr", "0.01", "-p", "1", "--device", "cpu", "--calib-batches", "2", "--target", "openvino"),
        *("--pretrained-from-file", float_weights, "--workspace", str(parts)),
    ]
    process = started(main, ["quantize", str(images), *flags])
    deadline = time.monotonic() + 400  # seconds; on a machine with other work the start alone takes a minute
    while not (parts / "checkpoint.pth.tar").exists() and time.monotonic() < deadline:
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    quantize(recipe(parts, epochs=3, resume=str(parts / "checkpoint.pth.tar")), images)
    assert_same(state(parts), state(whole))


@pytest.mark.slow
def test_two_processes_find_the_ranges_of_one(images: Path, tmp_path: Path, float_weights: str) -> None:
    flags = [
        *("--arch", "efficientnet-quant-lite0", "--image-size", "32", "-b", "4", "--epochs", "0", "-j", "0"),
        *("--device", "cpu", "--calib-batches", "2", "--target", "openvino"),
        *("--pretrained-from-file", float_weights, "--workspace", str(tmp_path / "two")),
    ]
    assert in_processes(2, main, ["quantize", str(images), *flags]) == [0, 0]
    quantize(recipe(tmp_path / "one", pretrained_from_file=float_weights), images)
    assert_alike(state(tmp_path / "two"), state(tmp_path / "one"))


@pytest.mark.slow
def test_two_processes_train_one_model(images: Path, tmp_path: Path, float_weights: str) -> None:
    """Not the model that one process trains: rounding turns the last bit of a sum over processes into a whole step."""
    changes = {"pretrained_from_file": float_weights, "target": "onnxruntime", "batch_size": 4}
    trained = recipe(tmp_path / "two", **changes, epochs=1, sync_bn=True)
    metrics = in_processes(2, quantize, trained, images)
    assert metrics[0]["val.loss"] == metrics[1]["val.loss"]
    # Each process has validated its half of the images with its own model; now one validates all with the first's.
    checkpoint = {"resume": str(tmp_path / "two/checkpoint.pth.tar")}
    alone = evaluate(recipe(tmp_path / "one", **changes, **checkpoint), images)
    assert alone["val.images"] == metrics[0]["val.images"]
    assert alone["val.loss"] == pytest.approx(metrics[0]["val.loss"], rel=0.02)


@pytest.mark.slow
def test_two_processes_train_at_the_recipe_s_learning_rate(images: Path, tmp_path: Path) -> None:
    """The published rate for 8 processes with 128 images, whatever the batch: 0.0125 on its cosine, not scaled."""
    flags = [
        *("--recipe", "efficientnet-quant-b0/DGX1V-32G/FP32", "--device", "cpu", "--from-scratch"),
        *(
            "--image-size",
            "32",
            "--resize",
            "36",
            "-b",
            "4",
            "--epochs",
            "2",
            "-j",
            "0",
            "--calib-batches",
            "1",
        ),
        *(
            "--print-freq",
            "1",
            "--no-checkpoints",
            "--training-only",
            "--gpu-affinity",
            "none",
            "--workspace",
            str(tmp_path),
        ),
    ]
    codes = in_processes(2, main, ["quantize", str(images), *flags])
    assert codes == [0, 0]
    (run,) = records(tmp_path, "parameters")
    assert (run["data"]["world_size"], run["data"]["recipe"]["optimizer"]["optimizer_batch_size"]) == (2, 8)
    steps = [record["data"] for record in records(tmp_path, "iteration")]
    rates = [step["train.lr"] for step in steps]
    count = len(rates)
    assert count >= 4
    expected = [0.0125 * (1 + math.cos(math.pi * number / count)) / 2 for number in range(count)]
    assert rates == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_a_training_step_compiles_in_one_graph() -> None:
    model = tiny("efficientnet-quant-b0")
    place_quantizers(model, "onnxruntime")
    for quantizer in quantizers_of(model).values():
        if quantizer.is_on and not quantizer.shape:
            quantizer.set_range(-0.3, 4.0)
    model.train()
    x = torch.randn(4, 3, 64, 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = []
    for step in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.load_state_dict(before)  # BatchNorm's statistics and the ranges of weights move
        model.zero_grad()
        torch.manual_seed(0)
        step(x).square().mean().backward()
        gradients.append(torch.cat([value.grad.flatten() for value in model.parameters()]))
    assert (gradients[1] - gradients[0]).norm() <= 1e-2 * gradients[0].norm()


def test_sensitivity(images: Path, tmp_path: Path, float_weights: str) -> None:
    quantize(recipe(tmp_path, pretrained_from_file=float_weights, sensitivity=True), images)
    costs = [record["data"] for record in records(tmp_path, "sensitivity")]
    assert costs[0]["layer"] == "all"
    assert {"stem.conv", "classifier.fc", "layers.5.block1.residual_quantizer"} <= {c["layer"] for c in costs}
    errors = [cost["error"] for cost in costs[1:]]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[-1] < errors[0] < 1
    assert not (tmp_path / "checkpoint.pth.tar").exists()
    costliest = costs[1]["layer"]
    kept = tmp_path / "kept"
    quantize(recipe(kept, pretrained_from_file=float_weights, keep_float=("stem", "classifier.fc")), images)
    assert not [key for key in state(kept) if key.startswith(("stem.conv._", "classifier.fc._"))]
    assert [key for key in state(kept) if key.startswith("layers.1.block0.depsep.conv._")], costliest


def test_what_can_t_be(images: Path, tmp_path: Path, float_weights: str) -> None:
    wrong = {
        "needs|no quantizers; use --arch efficientnet-quant-b0": {"arch": "efficientnet-b0"},
        "bring no range for stem.conv._input_quantizer": {
            "pretrained_from_file": float_weights,
            "skip_calibration": True,
        },
        "nowhere: no such folder to calibrate on": {
            "pretrained_from_file": float_weights,
            "calib_data": "nowhere",
        },
        "without one, give the weights by --pretrained-from-file": {"resume": float_weights},
    }
    for message, changes in wrong.items():
        with pytest.raises(UserError, match=message):
            quantize(recipe(tmp_path, **changes), images)
    for epochs in (0, 1):
        with pytest.raises(UserError, match="starts from trained weights; give --pretrained-from-file"):
            quantize(recipe(tmp_path, epochs=epochs), images)
    with pytest.raises(UserError, match="--from-scratch and --pretrained-from-file contradict"):
        quantize(recipe(tmp_path, from_scratch=True, pretrained_from_file=float_weights), images)
    with pytest.raises(UserError, match="starts from trained weights"):  # no checkpoint yet
        quantize(recipe(tmp_path / "empty", epochs=1, resume="auto"), images)
    with pytest.raises(UserError, match="is trained by `effnet quantize`"):
        train(recipe(tmp_path, epochs=1), images)
    with pytest.raises(UserError, match="--epochs 0 trains nothing"):
        train(recipe(tmp_path, arch="efficientnet-lite0"), images)


def test_the_command(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        *("--arch", "efficientnet-quant-lite0", "--image-size", "32", "-b", "8", "--epochs", "0", "-j", "0"),
        *("--keep-float", "stem", "layers.0.*", "--workspace", str(tmp_path)),
    ]
    assert main([str(images), *flags], command="quantize", prog="quant_main.py") == 2
    error = capsys.readouterr().err
    assert "--pretrained-from-file" in error
    assert error.count("\n") == 1
    flags += ["--from-scratch"]
    assert main([str(images), *flags], command="quantize", prog="quant_main.py") == 0
    assert "effnet export onnx --pretrained-from-file" in capsys.readouterr().out
    checkpoint = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    assert checkpoint["recipe"]["quantization"]["keep_float"] == ["stem", "layers.0.*"]
    resumed = ["--resume", str(tmp_path / "checkpoint.pth.tar"), "--workspace", str(tmp_path / "evaluated")]
    assert main(["quantize", str(images), "--evaluate", *resumed]) == 0
