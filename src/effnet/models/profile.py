"""Size and work of a model, counted without running it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from effnet.models.config import ModelConfig
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import ConvBNAct
from effnet.models.registry import model_config


@dataclass(frozen=True)
class Profile:
    """Size of a model and its work on one image.

    Attributes:
        parameters: trainable numbers.
        macs: multiply-accumulates of convolutions and linear layers.
        activations: numbers that convolutions and linear layers give, as in arXiv 2003.13678.
        image_size: side of the image in pixels.
    """

    parameters: int
    macs: int
    activations: int
    image_size: int


@dataclass(frozen=True)
class LayerSize:
    """A convolution's or linear layer's work on one image.

    Attributes:
        inputs, outputs: numbers that it reads and gives.
        weights: its numbers, bias included.
        macs: multiply-accumulates.
    """

    inputs: int
    outputs: int
    weights: int
    macs: int


def profile(name: str, image_size: int | None = None) -> Profile:
    """Count for a registered model; on the meta device, so that even B7 takes no memory.

    Raises:
        UserError: unknown name.
    """
    # Quantizers neither add parameters nor change the count, and are slow to import.
    config = replace(model_config(name, image_size=image_size), quantized=False)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in EfficientNet(config).parameters())
    layers = layer_sizes(config).values()
    return Profile(
        parameters,
        sum(layer.macs for layer in layers),
        sum(layer.outputs for layer in layers),
        config.image_size,
    )


def layer_sizes(config: ModelConfig) -> dict[str, LayerSize]:
    """Every convolution and linear layer of a model by its name, in the order in which they run."""
    sizes: dict[str, LayerSize] = {}
    names: dict[nn.Module, str] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights = sum(parameter.numel() for parameter in module.parameters())
        assert isinstance(module.weight, Tensor)
        macs = output.numel() * module.weight[0].numel()
        sizes[names[module]] = LayerSize(inputs[0].numel(), output.numel(), weights, macs)

    with torch.device("meta"), torch.no_grad():
        model = EfficientNet(config).eval()
        for name, module in list(model.named_modules()):
            if isinstance(module, ConvBNAct):
                # These keep shapes, and are slow to run on the meta device.
                module.act = nn.Identity()
                module.bn = nn.Identity()  # type: ignore[assignment]
            if isinstance(module, nn.Conv2d | nn.Linear):
                names[module] = name
                module.register_forward_hook(count)
        model(torch.empty(1, 3, config.image_size, config.image_size))
    return sizes
