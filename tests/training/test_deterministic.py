"""--deterministic: algorithms that repeat, and no kernel chosen by a measurement."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.recipe import ComputeSettings
from effnet.training.run import train
from effnet.training.setup import kernels_of
from tests.runs import quick_recipe

pytestmark = pytest.mark.usefixtures("small_networks")

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyTorch's global settings are restored after the test."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    for name in ("deterministic", "benchmark"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("restored")
def test_every_operation_of_a_training_has_a_deterministic_form(images: Path, tmp_path: Path) -> None:
    metrics = train(quick_recipe(tmp_path, deterministic=True, epochs=1, use_ema=0.9), images)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert np.isfinite(metrics["train.loss"])


def test_kernels_are_not_measured() -> None:
    assert kernels_of(ComputeSettings(deterministic=True), CUDA) == "torch"
    assert kernels_of(ComputeSettings(deterministic=True, kernels="triton"), CUDA) == "triton"
    assert kernels_of(ComputeSettings(deterministic=True), CPU) == "auto"
    assert kernels_of(ComputeSettings(), CUDA) == "auto"
