"""Compiling the training step."""

from pathlib import Path

import pytest
import torch
from torch import nn

from effnet.recipe import ComputeSettings
from effnet.runtime.errors import UserError
from effnet.training.compilation import Recompilations, compiled, takes_cuda_graphs

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("compile", "wanted", "device", "world_size", "taken"),
    [
        (True, "auto", CUDA, 1, True),
        (True, "auto", CUDA, 2, False),
        (True, "on", CUDA, 2, True),
        (True, "off", CUDA, 1, False),
        (False, "auto", CUDA, 1, False),
        (True, "auto", CPU, 1, False),
    ],
)
def test_when_cuda_graphs_are_taken(
    compile: bool, wanted: str, device: torch.device, world_size: int, taken: bool
) -> None:
    compute = ComputeSettings(compile=compile, cuda_graphs=wanted)
    assert takes_cuda_graphs(compute, device, world_size) is taken


@pytest.mark.parametrize(("compile", "device"), [(True, CPU), (False, CUDA)])
def test_cuda_graphs_that_can_not_be_had(compile: bool, device: torch.device) -> None:
    with pytest.raises(UserError, match="--cuda-graphs on needs --compile and a GPU"):
        takes_cuda_graphs(ComputeSettings(compile=compile, cuda_graphs="on"), device, 1)


class Unseen(nn.Module):
    """Code of its own, whose shapes no other test has taught the compiler to expect."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.linear(x))


@pytest.mark.slow
def test_compiled_again_for_another_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    step = compiled(Unseen(), cuda_graphs=False)
    recompilations = Recompilations()
    step(torch.zeros(2, 4))
    assert recompilations.since_last_time() == 0
    step(torch.ones(2, 4))
    assert recompilations.since_last_time() == 0
    step(torch.zeros(3, 4))
    assert recompilations.since_last_time() == 1
    assert any((tmp_path / "compiled").rglob("*.py"))
