"""The models are NVIDIA's: keys, shapes, parameters and logits."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from effnet.models import build_model

PARAMETERS = {
    "efficientnet-b0": 5_288_548,
    "efficientnet-b4": 19_341_616,
    "efficientnet-widese-b0": 8_423_848,
    "efficientnet-widese-b4": 34_927_246,
}
TOLERANCE = 1e-4  # of the largest logit, on the CPU in float32


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_count(name: str, count: int) -> None:
    with torch.device("meta"):
        model = build_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", PARAMETERS)
def test_keys_and_shapes_in_order(name: str, shapes: dict[str, dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in build_model(name).state_dict().items()}
    assert list(ours.items()) == list(shapes[name].items())


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-widese-b0", "efficientnet-b4"])
def test_logits(
    name: str, shared_dir: Path, shapes: dict[str, dict[str, list[int]]], deterministic: ModuleType
) -> None:
    reference = np.load(shared_dir / "reference/eval_logits.npz")[name]
    model = build_model(name).eval()
    filled = {key: np.asarray(deterministic.fill(key, tuple(shape))) for key, shape in shapes[name].items()}
    model.load_state_dict({key: torch.from_numpy(values) for key, values in filled.items()})
    with torch.no_grad():
        logits = model(torch.from_numpy(deterministic.batch(2, model.config.image_size))).numpy()
    assert np.abs(logits - reference).max() <= TOLERANCE * np.abs(reference).max()
