"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from effnet.training.ema import ModelEMA

pytestmark = pytest.mark.usefixtures("small_networks")

TAKEN, SKIPPED = torch.tensor(True), torch.tensor(False)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def move(model: nn.Sequential) -> None:
    model.train()(torch.randn(8, 3, 5, 5))
    with torch.no_grad():
        model[0].weight += torch.randn(4, 3, 3, 3)


@pytest.mark.parametrize("start", [0, 1000])
def test_follows_every_entry_with_a_decay_that_warms_up(start: int) -> None:
    model = network()
    ema = ModelEMA(model, 0.9)
    ema.set_step(start)
    expected = {key: value.clone().double() for key, value in model.state_dict().items()}
    for step in range(start, start + 5):
        move(model)
        ema.update(TAKEN)
        decay = min(0.9, (1 + step) / (10 + step))  # 0.1, 0.18, 0.25, ... or 0.9
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                expected[key] = decay * expected[key] + (1 - decay) * value.double()
            else:
                expected[key] = value.clone().double()
    for key, value in ema.module.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key])
    assert not ema.module.training
    assert all(not parameter.requires_grad for parameter in ema.module.parameters())


def devices() -> list[object]:
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    return ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, no_gpu])]


@pytest.mark.parametrize("device", devices())
def test_a_step_that_is_left_out_changes_nothing_and_is_not_counted(device: str) -> None:
    one, other = network().to(device), network().to(device)
    disturbed, plain = ModelEMA(one, 0.999), ModelEMA(other, 0.999)
    flags = {"taken": TAKEN.to(device), "skipped": SKIPPED.to(device)}
    with torch.no_grad():
        for step in range(4):
            for model, ema in ((one, disturbed), (other, plain)):
                model[0].weight.fill_(step)
                ema.update(flags["taken"])
            one[0].weight.fill_(float("nan"))
            disturbed.update(flags["skipped"])
    for key, value in plain.module.state_dict().items():
        assert torch.equal(disturbed.module.state_dict()[key], value), key


@pytest.mark.parametrize("flag", [TAKEN, SKIPPED])
def test_what_a_gpu_computes_is_what_a_cpu_computes(flag: torch.Tensor) -> None:
    model = network()
    one, other = ModelEMA(model, 0.999), ModelEMA(model, 0.999)
    move(model)
    with torch.no_grad():
        if not flag:
            model[0].weight.fill_(float("inf"))
        one.update(flag)
        other._blend(flag, torch.tensor(0.9, dtype=torch.float64))
    for ours, theirs in zip(one.module.parameters(), other.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
