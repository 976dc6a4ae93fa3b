"""Rounding of weights that keeps each layer's outputs on the calibration images.

Rounding to nearest keeps the weights. What counts is the output of the layer, whose error is (w - v) H (w - v)^T for an
output channel with weights w, rounded to v, and second moments H = E[x x^T] of its inputs. GPTQ (arXiv 2210.17323)
rounds one weight after the other and lets those that follow take up the error. The mean error that is left is then
subtracted from the output channel (bias correction, arXiv 1906.04721).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from effnet.models.layers import ConvBNAct
from effnet.quantization.layers import QuantConv2d, QuantLinear, weighted_layers
from effnet.runtime.processes import Processes

POSITIONS = 64
"""positions of an output image for which the inputs are counted, or about as many"""
# Added to the diagonal of H, in units of its mean: a few images do not determine all directions.
_DAMPING = 0.1
# Columns that are rounded before the error is passed on to all later ones in a single product.
_BLOCK = 64

Layer = QuantConv2d | QuantLinear


class Moments:
    """Sums of what a layer multiplies its weights with, by group of channels.

    Attributes:
        count: number of samples.
        first: float32 (groups, fan_in), the sum of the inputs.
        second: float32 (groups, fan_in, fan_in), the sum of their products.

    Args:
        layer: the layer whose inputs are counted.
    """

    def __init__(self, layer: Layer) -> None:
        weight = layer.weight
        groups, fan_in = layer.groups if isinstance(layer, nn.Conv2d) else 1, weight[0].numel()
        self.count = torch.zeros((), device=weight.device)
        self.first = torch.zeros(groups, fan_in, device=weight.device)
        self.second = torch.zeros(groups, fan_in, fan_in, device=weight.device)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Count a batch; a hook to be called before the layer's forward."""
        assert isinstance(layer, QuantConv2d | QuantLinear)
        x = columns(layer, inputs[0])
        self.count += x.shape[1]
        self.first += x.sum(1)
        self.second.baddbmm_(x.transpose(1, 2), x)

    def add_others(self, processes: Processes) -> None:
        """Add the sums of the other processes."""
        self.count, self.first, self.second = (
            processes.sum(part) for part in (self.count, self.first, self.second)
        )


def columns(layer: Layer, x: Tensor) -> Tensor:
    """Return inputs of a layer's products, an evenly spaced sample of the output's positions.

    Args:
        layer: convolution or linear layer.
        x: its input, (N, in) or (N, in, H, W).

    Returns:
        float32 (groups, samples, fan_in), in the order of the weights of an output channel.
    """
    if isinstance(layer, nn.Linear):
        return x[None].float()
    (height, width), (down, right) = layer.kernel_size, layer.stride
    top, left = (int(padding) for padding in layer.padding)
    x = nn.functional.pad(layer.padded(x), (left, left, top, top))
    windows = x.unfold(2, height, down).unfold(3, width, right)
    step = max(1, round((windows.shape[2] * windows.shape[3] / POSITIONS) ** 0.5))
    windows = windows[:, :, (step - 1) // 2 :: step, (step - 1) // 2 :: step]
    by_group = windows.unflatten(1, (layer.groups, -1)).permute(1, 0, 3, 4, 2, 5, 6)
    return by_group.reshape(layer.groups, -1, layer.weight[0].numel()).float()


def gptq(weight: Tensor, scale: Tensor, second: Tensor, most: int) -> Tensor:
    """Round weights so that the outputs change least.

    Args:
        weight: float64 (groups, out, fan_in).
        scale: value of one step, float64 (groups, out, 1).
        second: second moments of the inputs, float64 (groups, fan_in, fan_in).
        most: largest integer.

    Returns:
        Multiples of the scale, in the weights' shape and order.
    """
    diagonal = second.diagonal(dim1=1, dim2=2)
    order = diagonal.argsort(1, descending=True)
    second = _sorted(_sorted(second, order).transpose(1, 2), order)
    # Inputs that are always 0 have no moments: any positive number does.
    damping = (_DAMPING * diagonal.mean(1)).clamp_min(torch.finfo(torch.float32).tiny)
    second = second + torch.diag_embed(damping[:, None].expand_as(diagonal))
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(second)), upper=True)
    rest, rounded = _sorted(weight, order).clone(), torch.empty_like(weight)
    fan_in = weight.shape[2]
    for first in range(0, fan_in, _BLOCK):
        block = range(first, min(first + _BLOCK, fan_in))
        errors = torch.empty_like(rest[:, :, : len(block)])
        for place, column in enumerate(block):
            values = rest[:, :, column, None]
            rounded[:, :, column, None] = (values / scale).round().clamp(-most, most) * scale
            errors[:, :, place, None] = (values - rounded[:, :, column, None]) / factor[
                :, None, None, column, column
            ]
            following = factor[:, None, column, column + 1 : block.stop]
            rest[:, :, column + 1 : block.stop] -= errors[:, :, place, None] * following
        rest[:, :, block.stop :] -= errors @ factor[:, first : block.stop, block.stop :]
    return _sorted(rounded, order.argsort(1))


def _sorted(x: Tensor, order: Tensor) -> Tensor:
    """Return (groups, rows, columns) with the columns of each group in its order, (groups, columns)."""
    return x.gather(2, order[:, None].expand(-1, x.shape[1], -1))


@contextmanager
def counting(layers: Mapping[str, Layer]) -> Iterator[dict[str, Moments]]:
    """Count the inputs of layers while the context is open; the moments are returned by name."""
    moments = {name: Moments(layer) for name, layer in layers.items()}
    hooks = [layer.register_forward_pre_hook(moments[name]) for name, layer in layers.items()]
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def reconstruct(model: nn.Module, moments: dict[str, Moments], processes: Processes) -> None:
    """Round the weights of a calibrated model, in place, and correct the means of its layers' outputs.

    Weights become multiples of their quantizers' scales, which stay. Means are corrected in the bias, or in the running
    mean of the BatchNorm that follows.

    Args:
        model: quantized; the ranges of its weights are known.
        moments: of the layers to round, by name; emptied, as the largest take hundreds of megabytes.
        processes: those that have counted together.
    """
    norms = {id(module.conv): module.bn for module in model.modules() if isinstance(module, ConvBNAct)}
    for name, layer in weighted_layers(model).items():
        if name not in moments:
            continue
        found = moments.pop(name)
        found.add_others(processes)
        weight = layer.weight.double().reshape(len(found.first), -1, found.first.shape[1])
        quantizer = layer._weight_quantizer
        scale = quantizer.channel_scales().double().reshape(*weight.shape[:2], 1)
        rounded = gptq(weight, scale, found.second.double() / found.count, quantizer.most)
        mean = found.first.double() / found.count
        shift = ((rounded - weight) @ mean[:, :, None]).flatten().to(layer.weight)
        layer.weight.copy_(rounded.reshape(layer.weight.shape))
        _shift_mean(norms.get(id(layer), layer), shift)


def _shift_mean(module: nn.Module, shift: Tensor) -> None:
    """Subtract a shift of a layer's output, (out,), where the next addition by channel takes place."""
    if isinstance(module, nn.BatchNorm2d):
        assert module.running_mean is not None
        module.running_mean += shift
    else:
        module.bias -= shift  # type: ignore[operator]  # squeeze-and-excitation and the classifier have one
