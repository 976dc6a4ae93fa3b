"""The cost of quantizing each layer alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effnet.quantization.layers import quantizers_of, weighted_layers
from effnet.quantization.quantizer import Quantizer
from effnet.runtime.progress import ProgressBar


@dataclass(frozen=True)
class LayerCost:
    """Cost of quantizing one layer.

    Attributes:
        layer: name of the layer; for a tensor outside of layers, of its quantizer.
        error: root mean square of the logits' difference to the float model's, as a share of that of the float logits.
        agreement: share of images, in percent, whose top class stays the same.
    """

    layer: str
    error: float
    agreement: float


@torch.no_grad()
def sensitivity(model: nn.Module, images: Sequence[Tensor]) -> list[LayerCost]:
    """Quantize one layer at a time; the most costly comes first, after all layers together (``all``).

    Args:
        model: calibrated; its mode is restored.
        images: normalised batches (N, 3, H, W) on the model's device.
    """
    was_training = model.training
    model.eval()
    quantizers = [quantizer for quantizer in quantizers_of(model).values() if quantizer.is_on]
    _enable(quantizers, ())
    float_logits = torch.cat([model(batch) for batch in images])
    costs = []
    parts = {"all": quantizers, **_layers(model)}
    with ProgressBar("quantizing layer by layer", len(parts)) as progress:
        for layer, members in parts.items():
            _enable(quantizers, members)
            logits = torch.cat([model(batch) for batch in images])
            difference = (logits - float_logits).square().mean().sqrt()
            agreement = (logits.argmax(1) == float_logits.argmax(1)).float().mean()
            relative = difference / float_logits.square().mean().sqrt()
            costs.append(LayerCost(layer, float(relative), 100 * float(agreement)))
            progress.advance(1)
    _enable(quantizers, quantizers)
    model.train(was_training)
    return [costs[0], *sorted(costs[1:], key=lambda cost: -cost.error)]


def _layers(model: nn.Module) -> dict[str, list[Quantizer]]:
    weighted = weighted_layers(model)
    layers: dict[str, list[Quantizer]] = {}
    for name, quantizer in quantizers_of(model).items():
        if quantizer.is_on:
            parent = name.rpartition(".")[0]
            layers.setdefault(parent if parent in weighted else name, []).append(quantizer)
    return layers


def _enable(quantizers: Sequence[Quantizer], chosen: Sequence[Quantizer]) -> None:
    wanted = {id(quantizer) for quantizer in chosen}
    for quantizer in quantizers:
        quantizer.rounds = id(quantizer) in wanted
