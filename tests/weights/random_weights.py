"""Random weights that bring out any mistake in a translation."""

import torch
from torch import nn


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Give every tensor values of its own, BatchNorm's statistics too, that keep activations in range."""
    generator = torch.Generator().manual_seed(0)
    for key, tensor in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        values = torch.randn(tensor.shape, generator=generator)
        if key.endswith("running_var"):
            values = 1 + 0.1 * values.abs()
        elif tensor.ndim == 1:
            values = 0.1 * values + (1 if key.endswith("weight") else 0)
        else:
            values = values * (2 / tensor[0].numel()) ** 0.5
        tensor.copy_(values)


def images(height: int, width: int) -> torch.Tensor:
    """Two random normalised images."""
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def relative_difference(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> float:
    """Largest difference of the logits, as a part of the largest logit."""
    expected = theirs.eval()(x)
    return float((ours.eval()(x) - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def settle(model: nn.Module, x: torch.Tensor) -> None:
    """Move BatchNorm's running statistics near those of a batch, which keeps activations in range in deep models.

    With statistics that are not near, activations grow from block to block, and so does the rounding error.
    """
    norms = [module for module in model.eval().modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(x)
    generator = torch.Generator().manual_seed(2)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        assert norm.running_mean is not None
        assert norm.running_var is not None
        noise = 0.1 * torch.randn(2, norm.num_features, generator=generator)
        norm.running_mean += noise[0] * norm.running_var.sqrt()
        norm.running_var *= 1 + noise[1].abs()
