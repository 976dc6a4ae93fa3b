"""Quantized models against activations of NVIDIA's implementation, with quantizers on."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from effnet import create_model
from effnet.models.efficientnet import EfficientNet
from effnet.quantization.layers import quantizers_of
from effnet.training.checkpoint import read_checkpoint
from effnet.weights import load_weights, save_weights
from effnet.weights.files import read_weights

NAME = "efficientnet-quant-b0"
# Relative errors that the facts allow. Where the same operators run in the same memory format there is none; other
# processors sum up convolutions in another order, and a tie that falls the other way is multiplied from stage to stage.
ALLOWED = {"layer1": 1e-3, "layer2": 1e-2, "logits": 0.25}


@pytest.fixture(scope="module")
def facts(shared_dir: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(shared_dir / "reference/quant_b0.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def state_dict(
    facts: dict[str, npt.NDArray[Any]], shapes: dict[str, dict[str, list[int]]], deterministic: ModuleType
) -> dict[str, Tensor]:
    """Entries of NVIDIA's quantized network, under its own keys."""
    entries = {}
    for key, shape in shapes[NAME].items():
        given = facts.get(f"bn/{key}", facts.get(f"amax/{key}"))
        values = deterministic.fill(key, tuple(shape)) if given is None else given
        entries[key] = torch.tensor(np.asarray(values)).reshape(shape)
    return entries


@pytest.fixture
def model(state_dict: dict[str, Tensor]) -> EfficientNet:
    model = create_model(NAME)
    model.load_state_dict(state_dict)
    return model.eval()


def relative_error(ours: Tensor, theirs: npt.NDArray[Any]) -> float:
    expected = torch.tensor(theirs, dtype=torch.float64)
    return float((ours.double() - expected).norm() / expected.norm())


def errors_of(model: EfficientNet, facts: dict[str, npt.NDArray[Any]], batch: Tensor) -> dict[str, float]:
    with torch.inference_mode():
        features, logits = model.extract_features(batch), model(batch)
    found = {
        layer: relative_error(features[layer], facts[f"features/{layer}"]) for layer in ("layer1", "layer2")
    }
    return found | {"logits": relative_error(logits, facts["logits"])}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_activations_with_quantizers_on(
    model: EfficientNet,
    facts: dict[str, npt.NDArray[Any]],
    deterministic: ModuleType,
    memory_format: torch.memory_format,
) -> None:
    batch = torch.tensor(deterministic.batch(2, 96)).contiguous(memory_format=memory_format)
    errors = errors_of(model.to(memory_format=memory_format), facts, batch)
    assert all(errors[name] < allowed for name, allowed in ALLOWED.items()), errors
    for quantizer in quantizers_of(model).values():
        quantizer.switch(False)
    with torch.inference_mode():
        assert relative_error(model(batch), facts["float_logits"]) < 1e-4


def test_ranges_that_calibration_finds(
    model: EfficientNet, facts: dict[str, npt.NDArray[Any]], deterministic: ModuleType
) -> None:
    """The largest absolute value in front of each quantizer, with quantizers off, is NVIDIA's `_amax`."""
    seen: dict[str, float] = {}
    for name, quantizer in quantizers_of(model).items():
        if quantizer.is_on and not quantizer.shape:
            quantizer.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.__setitem__(name, float(inputs[0].abs().max()))
            )
        quantizer.rounds = False
    with torch.inference_mode():
        model(torch.tensor(deterministic.batch(8, 96)))
    expected = {name: float(facts[f"amax/{name}._amax"]) for name in seen}
    assert len(seen) == 140
    for name in seen:
        assert seen[name] == pytest.approx(expected[name], rel=1e-3), name


def exchanged(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """As this project wrote it before format 2."""
    names = {"mul_a_quantizer": "mul_b_quantizer", "mul_b_quantizer": "mul_a_quantizer"}
    return {
        next((key.replace(one, other) for one, other in names.items() if one in key), key): tensor
        for key, tensor in state_dict.items()
    }


def described(metadata_format: int | None) -> dict[str, object]:
    metadata = create_model(NAME).metadata
    assert metadata is None
    values: dict[str, object] = {
        "model": NAME,
        "preprocessing": {
            "image_size": 224,
            "resize": 256,
            "interpolation": "bicubic",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
    }
    return values if metadata_format is None else {**values, "format": metadata_format}


@pytest.mark.parametrize(
    ("is_old", "metadata"),
    [(True, None), (False, None), (True, described(None)), (False, described(2))],
    ids=["old weights", "NVIDIA's weights", "old checkpoint", "today's checkpoint"],
)
def test_old_files_are_converted(
    is_old: bool,
    metadata: dict[str, object] | None,
    state_dict: dict[str, Tensor],
    facts: dict[str, npt.NDArray[Any]],
    deterministic: ModuleType,
    tmp_path: Path,
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    weights = exchanged(state_dict) if is_old else state_dict
    content = {"state_dict": weights, "state_dict_ema": weights, "epoch": 1}
    torch.save(content if metadata is None else {**content, "metadata": metadata}, path)
    batch = torch.tensor(deterministic.batch(2, 96))
    for ema in (False, True):
        model = create_model(NAME)
        load_weights(model, path, ema=ema)
        assert errors_of(model.eval(), facts, batch)["layer1"] < ALLOWED["layer1"]
    resumed = read_checkpoint(path)
    for name in ("state_dict", "state_dict_ema"):
        assert all(torch.equal(resumed[name][key], value) for key, value in state_dict.items())


def test_files_say_their_format(state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    model = create_model(NAME)
    old = tmp_path / "old.pth.tar"
    torch.save({"state_dict": exchanged(state_dict), "metadata": described(None)}, old)
    load_weights(model, old)
    assert model.metadata is not None
    for name in ("weights.pth", "weights.safetensors"):
        save_weights(tmp_path / name, model.state_dict(), model.metadata)
        again = read_weights(tmp_path / name)  # not converted a second time
        assert all(torch.equal(again.state_dict[key], value) for key, value in state_dict.items())
