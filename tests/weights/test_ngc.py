"""NGC's files in their published form, rebuilt from NVIDIA's facts, give NVIDIA's logits."""

import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from effnet import create_model, load_weights
from effnet.models import build_model
from effnet.models.config import MODEL_CONFIGS
from effnet.weights import LAYOUTS, read_weights, save_weights

TOLERANCE = 1e-4


def published_name(key: str) -> str:
    """Name of an entry in the files of 20.12.0 and 21.03.0."""
    if not key.startswith("layers."):
        return key
    _, stage, rest = key.split(".", 2)
    return f"layer{int(stage) + 1}.{rest}"


@pytest.fixture
def state_dict(
    request: pytest.FixtureRequest, shapes: dict[str, dict[str, list[int]]], deterministic: ModuleType
) -> dict[str, Tensor]:
    """The weights of the model that the test is parametrised with, in their published form."""
    return {
        published_name(key): torch.from_numpy(np.asarray(deterministic.fill(key, tuple(shape))))
        for key, shape in shapes[request.param].items()
    }


def assert_reference_logits(
    model: torch.nn.Module, name: str, shared_dir: Path, deterministic: ModuleType
) -> None:
    reference = np.load(shared_dir / "reference/eval_logits.npz")[name]
    x = torch.from_numpy(deterministic.batch(2, MODEL_CONFIGS[name].image_size))
    with torch.no_grad():
        logits = model.eval()(x).numpy()
    assert np.abs(logits - reference).max() <= TOLERANCE * np.abs(reference).max()


def as_kernels(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: tensor[:, :, None, None] if ".se." in key and tensor.ndim == 2 else tensor
        for key, tensor in state_dict.items()
    }


@pytest.mark.parametrize("state_dict", ["efficientnet-b0"], indirect=True)
def test_a_published_file(
    state_dict: dict[str, Tensor], shared_dir: Path, deterministic: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "nvidia_efficientnet-b0_210412.pth"
    torch.save(state_dict, path)
    model = create_model("efficientnet-b0", weights=path)
    assert model.metadata is not None
    assert model.metadata.tag == "ngc/efficientnet_b0_pyt_amp"
    assert_reference_logits(model, "efficientnet-b0", shared_dir, deterministic)


@pytest.mark.parametrize("state_dict", ["efficientnet-widese-b0"], indirect=True)
def test_a_distributed_checkpoint_with_kernels(
    state_dict: dict[str, Tensor], shared_dir: Path, deterministic: ModuleType, tmp_path: Path
) -> None:
    weights = {f"module.{key}": tensor for key, tensor in as_kernels(state_dict).items()}
    zeros = {key: torch.zeros_like(tensor) for key, tensor in weights.items()}
    checkpoint = {"epoch": 3, "best_prec1": 70.0, "optimizer": {"state": {}}}
    torch.save({**checkpoint, "state_dict": zeros, "state_dict_ema": weights}, tmp_path / "c.pth.tar")
    model = build_model("efficientnet-widese-b0")
    report = load_weights(model, tmp_path / "c.pth.tar", ema=True)
    assert report.layout == "ngc"
    assert_reference_logits(model, "efficientnet-widese-b0", shared_dir, deterministic)
    load_weights(model, tmp_path / "c.pth.tar")
    assert model.classifier.fc.weight.count_nonzero() == 0


@pytest.mark.parametrize("state_dict", ["efficientnet-b4"], indirect=True)
def test_b4(
    state_dict: dict[str, Tensor], shared_dir: Path, deterministic: ModuleType, tmp_path: Path
) -> None:
    save_weights(tmp_path / "w.safetensors", state_dict)
    model = create_model("efficientnet-b4", weights=tmp_path / "w.safetensors")
    assert_reference_logits(model, "efficientnet-b4", shared_dir, deterministic)


@pytest.mark.parametrize("state_dict", ["efficientnet-quant-b0"], indirect=True)
def test_a_quantized_file_without_its_quantizers(
    state_dict: dict[str, Tensor],
    shared_dir: Path,
    deterministic: ModuleType,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "nvidia-efficientnet-quant-b0-130421.pth"
    torch.save(state_dict, path)
    quantizers = sum(key.endswith("_amax") for key in state_dict)
    model = build_model("efficientnet-b0")
    with caplog.at_level(logging.INFO, "effnet"):
        report = load_weights(model, path)
    assert quantizers == 222
    assert report.quantizer_entries == quantizers
    assert (
        f"ngc layout, loaded into efficientnet-b0, 360 entries, {quantizers} of quantizers left out"
        in caplog.text
    )
    assert_reference_logits(model, "efficientnet-b0", shared_dir, deterministic)


def test_quantizers_are_loaded_where_there_is_a_place(tmp_path: Path) -> None:
    model = build_model("efficientnet-b0")
    model.get_submodule("layers.1.block0.expand.conv").register_buffer("_amax", torch.zeros(96, 1, 1, 1))
    filled = {key: torch.full_like(tensor, 2) for key, tensor in model.state_dict().items()}
    save_weights(tmp_path / "w.pth", LAYOUTS["ngc"].from_ours(filled, model.config))
    assert "layer2.block0.expand.conv._amax" in read_weights(tmp_path / "w.pth").state_dict
    assert load_weights(model, tmp_path / "w.pth").quantizer_entries == 0
    assert model.state_dict()["layers.1.block0.expand.conv._amax"].eq(2).all()


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-b4", "efficientnet-widese-b0"])
def test_our_weights_in_their_layout(name: str, shapes: dict[str, dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        ours = build_model(name)
    theirs = LAYOUTS["ngc"].from_ours(ours.state_dict(), ours.config)
    written = {key: list(tensor.shape) for key, tensor in theirs.items()}
    assert written == {published_name(key): shape for key, shape in shapes[name].items()}


def test_matrices_into_a_model_of_kernels(tmp_path: Path) -> None:
    ours = build_model("efficientnet-b0")
    save_weights(tmp_path / "w.pth", ours.state_dict())
    quantized = build_model("efficientnet-b0")
    squeeze = quantized.get_submodule("layers.0.block0.se")
    squeeze.register_module("squeeze", torch.nn.Conv2d(32, 8, 1))
    load_weights(quantized, tmp_path / "w.pth")
    loaded = quantized.state_dict()["layers.0.block0.se.squeeze.weight"]
    assert loaded.shape == (8, 32, 1, 1)
    assert torch.equal(loaded.flatten(1), ours.state_dict()["layers.0.block0.se.squeeze.weight"])
