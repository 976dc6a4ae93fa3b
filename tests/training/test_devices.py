"""The paths of a GPU, each by a helper that runs on the CPU as well: both are compared with plain FP32 on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from effnet.inference.evaluate import evaluate
from effnet.quantization.run import quantize
from effnet.runtime.processes import data_parallel
from effnet.training.checkpoint import read_checkpoint
from effnet.training.optimizer import FlatOptimizer
from effnet.training.run import train
from tests.kernels.truth import relative_error
from tests.runs import quick_recipe, records
from tests.training.processes import in_processes
from tests.training.test_optimizer import NO_SCALING, settings

pytestmark = pytest.mark.usefixtures("small_networks")

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
on_cuda = [pytest.mark.cuda, no_gpu]
DEVICES = ["cpu", pytest.param("cuda", marks=on_cuda)]
STEPS = 3
# Rounding grows from step to step: of a batch of 12 in the last layers BatchNorm sees 12 pixels.
COMPARED = 2
# Of a path: settings, and how far its losses may be from FP32's.
ANYWHERE: dict[str, tuple[dict[str, Any], float]] = {
    "fp16": ({"precision": "fp16"}, 0.02),
    "bf16": ({"precision": "bf16"}, 0.05),
    "nchw": ({"memory_format": "nchw"}, 1e-3),
}
ON_CUDA: dict[str, tuple[dict[str, Any], float]] = {
    "fp32": ({"precision": "fp32"}, 1e-3),
    "tf32": ({"precision": "tf32"}, 0.02),
    "recompute": ({"precision": "fp32", "recompute": True}, 1e-3),
    "compiled": ({"precision": "fp32", "compile": True, "cuda_graphs": "off"}, 1e-3),
    "graphs": ({"precision": "fp32", "compile": True, "cuda_graphs": "on"}, 1e-3),
    "graphs, amp": ({"precision": "amp", "compile": True, "cuda_graphs": "on"}, 0.05),
    "triton": ({"precision": "fp32", "arch": "efficientnet-lite0", "kernels": "triton"}, 1e-3),
    "deterministic": ({"precision": "fp32", "deterministic": True}, 1e-3),
    "workers": ({"precision": "fp32", "workers": 2}, 1e-3),
}


def recipe(workspace: Path, device: str, **changes: Any) -> Any:
    """A short run without anything that devices draw differently."""
    values = {
        "batch_size": 12,
        "epochs": 1,
        "print_freq": 1,
        "lr": 0.002,
        "optimizer": "sgd",
        "dropout": 0.0,
        "mixup": 0.0,
        "survival_prob": 1.0,
        "use_ema": 0.9,
        "precision": "fp32",
        "device": device,
    }
    return quick_recipe(workspace, **{**values, **changes})


def losses(workspace: Path) -> list[float]:
    return [record["data"]["train.loss"] for record in records(workspace, "iteration")]


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of the steps in FP32 on the CPU."""
    workspace = tmp_path_factory.mktemp("plain")
    train(recipe(workspace, "cpu", training_only=True), images)
    found = losses(workspace)
    assert len(found) == STEPS
    return found


PATHS = [(name, device) for name in ANYWHERE for device in ("cpu", "cuda")] + [
    (name, "cuda") for name in ON_CUDA
]


@pytest.mark.parametrize(
    ("path", "device"),
    [pytest.param(path, device, marks=on_cuda if device == "cuda" else []) for path, device in PATHS],
)
def test_a_path_trains_as_plain_fp32_does(
    path: str, device: str, plain: list[float], images: Path, tmp_path: Path
) -> None:
    changes, tolerance = (ANYWHERE | ON_CUDA)[path]
    metrics = train(recipe(tmp_path, device, training_only=True, **changes), images)
    assert losses(tmp_path)[:COMPARED] == pytest.approx(plain[:COMPARED], rel=tolerance)
    assert metrics["train.skipped_steps"] == 0
    state = read_checkpoint(tmp_path / "checkpoint.pth.tar")["state_dict"]
    assert all(tensor.device.type == "cpu" and tensor.isfinite().all() for tensor in state.values())


@pytest.mark.parametrize("device", DEVICES)
def test_a_checkpoint_goes_on_and_is_evaluated_on_either_device(
    device: str, images: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe(whole, device, epochs=2), images)
    train(recipe(parts, device, epochs=2, run_epochs=1), images)
    train(recipe(parts, device, epochs=2, resume="auto"), images)
    assert losses(parts) == pytest.approx(losses(whole), rel=0 if device == "cpu" else 1e-3)
    checkpoint = str(parts / "checkpoint.pth.tar")
    here, on_cpu = (
        evaluate(recipe(tmp_path / where, where, resume=checkpoint), images) for where in (device, "cpu")
    )
    assert here["val.images"] == 15
    for name in ("val.loss", "val_ema.loss"):
        assert here[name] == pytest.approx(on_cpu[name], rel=1e-3)


def gradients_of_two(device: str, backend: str) -> list[float]:
    """In each of two processes: three steps on its half of a batch; the weights after them."""
    dist.init_process_group(backend)
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 1)).to(device)
    step = data_parallel(model, bucket_size=1.0, accumulates=False)
    weights = steps_of(model, step, device, slice(8 * rank, 8 * rank + 8))
    dist.destroy_process_group()
    return weights


def steps_of(model: nn.Module, step: nn.Module, device: str, part: slice) -> list[float]:
    optimizer = FlatOptimizer(model, settings(optimizer="sgd"))
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1)).to(device)
    for _ in range(3):
        step(x[part]).square().mean().backward()
        optimizer.step(NO_SCALING)
    weights: list[float] = torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()
    return weights


@pytest.mark.parametrize("device", DEVICES)
def test_two_processes_share_a_device(device: str) -> None:
    # NCCL refuses two processes on one GPU; Gloo sums what lies on it as well.
    first, second = in_processes(2, gradients_of_two, device, "gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 1)).to(device)
    alone = steps_of(model, model, device, slice(16))
    assert first == second
    assert first == pytest.approx(alone, rel=1e-4, abs=1e-6)


@pytest.mark.cuda
@no_gpu
def test_a_quantized_model_trains_on_a_gpu(images: Path, tmp_path: Path) -> None:
    changes = {
        "arch": "efficientnet-quant-b0",
        "from_scratch": True,
        "calib_batches": 1,
        "training_only": True,
    }
    for device in ("cpu", "cuda"):
        quantize(recipe(tmp_path / device, device, **changes), images)
    here, there = (losses(tmp_path / device) for device in ("cuda", "cpu"))
    # A value that lies halfway between two levels may be rounded to either.
    assert here[0] == pytest.approx(there[0], rel=0.05)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_exported_file_runs_on_the_cuda_provider(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="extra onnx")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    from effnet.export.onnx import export_onnx
    from tests.export.test_onnx import metadata_for, trained

    path = tmp_path / "model.onnx"
    export_onnx(trained("efficientnet-lite0"), metadata_for("efficientnet-lite0"), path)
    x = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    answers = []
    for provider in ("CUDAExecutionProvider", "CPUExecutionProvider"):
        session = runtime.InferenceSession(path, providers=[provider])
        answers.append(torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x})[0]))
    assert relative_error(answers[0], answers[1].double()) < 1e-2  # TF32 may be on
