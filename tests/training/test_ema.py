"""The moving average of the weights."""

import torch
from torch import nn

from effnet.training.ema import ModelEMA


def test_follows_every_entry() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = ModelEMA(model, 0.9)
    expected = {key: value.clone().double() for key, value in model.state_dict().items()}
    for _ in range(5):
        model.train()(torch.randn(8, 3))
        with torch.no_grad():
            model[0].weight += torch.randn(3, 3)
        ema.update()
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                expected[key] = 0.9 * expected[key] + 0.1 * value.double()
            else:
                expected[key] = value.clone().double()
    for key, value in ema.module.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key])
    assert not ema.module.training
    assert all(not parameter.requires_grad for parameter in ema.module.parameters())
