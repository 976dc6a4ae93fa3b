"""A model as a program of `torch.export` that converters for small devices read.

Fake quantizers become the operators of PyTorch's own quantization flow (PT2E), so that converters see a quantized model
in their own terms, with the ranges that `effnet quantize` found.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Literal

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor, fx, nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.form import inference_form
from effnet.export.reference import example_images
from effnet.models.replace import replace_modules
from effnet.quantization.exported import ExportedQuantizer, NoQuantizer
from effnet.quantization.layers import QuantConv2d, QuantLinear
from effnet.training.step import Normalise

Taken = Literal["normalised", "bytes", "pixels"]

_OPERATORS = torch.ops.quantized_decomposed


class _Graph(nn.Module):
    """The model from bytes or normalised images to logits."""

    def __init__(self, model: nn.Module, normalise: nn.Module | None) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of uint8 (N, H, W, 3), or of float32 (N, 3, H, W), normalised or not yet."""
        if self.normalise is not None:
            images = self.normalise(images.permute(0, 3, 1, 2) if images.dtype == torch.uint8 else images)
        logits: Tensor = self.model(images)
        return logits


class _RoundActivations(NoQuantizer):
    """A tensor to int8 and back."""

    is_on = True

    def __init__(self, quantizer: ExportedQuantizer) -> None:
        super().__init__()
        self._grid = (float(quantizer.scales), int(quantizer.zero_points), *quantizer.limits, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        """Round the input to the grid."""
        integers = _OPERATORS.quantize_per_tensor(x, *self._grid)
        rounded: Tensor = _OPERATORS.dequantize_per_tensor(integers, *self._grid)
        return rounded


class _RoundWeights(NoQuantizer):
    """Weights to int8 and back, by output channel.

    Args:
        quantizer: of the weights.
        weight: kept as integers; None keeps them as floats, which the program rounds.
    """

    is_on = True
    integers: Tensor | None
    scales: Tensor
    zero_points: Tensor

    def __init__(self, quantizer: ExportedQuantizer, weight: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("scales", quantizer.scales.clone())
        self.register_buffer("zero_points", quantizer.zero_points.long())
        self._limits = (*quantizer.limits, torch.int8)
        self.register_buffer("integers", None if weight is None else self._rounded(weight.detach()))

    def _rounded(self, weight: Tensor) -> Tensor:
        integers: Tensor = _OPERATORS.quantize_per_channel(
            weight, self.scales, self.zero_points, 0, *self._limits
        )
        return integers

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weights."""
        integers = self._rounded(weight) if self.integers is None else self.integers
        rounded: Tensor = _OPERATORS.dequantize_per_channel(
            integers, self.scales, self.zero_points, 0, *self._limits
        )
        return rounded


def export_program(
    model: nn.Module,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 1,
    takes: Taken = "normalised",
    integer_weights: bool = True,
) -> torch.export.ExportedProgram:
    """Return a model as a program for one batch size.

    Args:
        model: takes normalised images, returns logits; not changed.
        preprocessing: size and normalisation of the images.
        batch_size: number of images.
        takes: normalised images; or, to normalise them, RGB `bytes` uint8 (N, H, W, 3) or `pixels` float32
            (N, 3, H, W) from 0 to 255.
        integer_weights: store quantized weights as integers, not as floats that the program rounds.
    """
    form = inference_form(model, unsigned=False).cpu()
    for layer in form.modules():
        if isinstance(layer, QuantConv2d | QuantLinear):
            _replace_quantizer(layer, integer_weights)
    form = replace_modules(form, _for_activations)
    graph = _Graph(form, None if takes == "normalised" else Normalise(preprocessing)).eval()
    images = example_images(preprocessing, batch_size, takes != "normalised")
    if takes == "pixels":
        images = images.permute(0, 3, 1, 2).float().contiguous()
    program = torch.export.export(graph, (images,))
    _share_quantizers(program.graph_module)
    return program


def save_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program to a file for a converter that runs on this very PyTorch."""
    torch.export.save(program, path)


def is_quantized(program: torch.export.ExportedProgram) -> bool:
    """Return True if a program rounds to integers."""
    return any(node.target is _OPERATORS.dequantize_per_tensor.default for node in program.graph.nodes)


def _replace_quantizer(layer: QuantConv2d | QuantLinear, integer_weights: bool) -> None:
    quantizer: nn.Module = layer._weight_quantizer
    if isinstance(quantizer, ExportedQuantizer):
        weight = layer.weight if integer_weights else None
        layer._weight_quantizer = _RoundWeights(quantizer, weight)  # type: ignore[assignment]  # the same interface


def _for_activations(module: nn.Module) -> nn.Module:
    return _RoundActivations(module) if isinstance(module, ExportedQuantizer) else module


def _share_quantizers(module: fx.GraphModule) -> None:
    """Quantize each tensor once, and dequantize it for each operator apart, as converters' patterns want it."""
    graph = module.graph
    quantized: dict[tuple[Hashable, ...], fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is _OPERATORS.quantize_per_tensor.default:
            first = quantized.setdefault((node.args[0], *map(str, node.args[1:])), node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)
    for node in list(graph.nodes):
        if node.target is _OPERATORS.dequantize_per_tensor.default:
            for user in list(node.users)[1:]:
                with graph.inserting_before(user):
                    user.replace_input_with(node, graph.node_copy(node))
    graph.lint()
    module.recompile()
