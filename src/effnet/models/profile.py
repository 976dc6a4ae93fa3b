"""Size and work of a model, counted without running it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

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


def profile(name: str, image_size: int | None = None) -> Profile:
    """Count for a registered model; on the meta device, so that even B7 takes no memory.

    Raises:
        ModelError: unknown name.
    """
    # Quantizers neither add parameters nor change the count, and are slow to import.
    config = replace(model_config(name, image_size=image_size), quantized=False)
    macs = activations = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs, activations
        assert isinstance(module.weight, Tensor)
        macs += output.numel() * module.weight[0].numel()
        activations += output.numel()

    with torch.device("meta"), torch.no_grad():
        model = EfficientNet(config).eval()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        for module in list(model.modules()):
            if isinstance(module, ConvBNAct):
                # These keep shapes, and are slow to run on the meta device.
                module.act = nn.Identity()
                module.bn = nn.Identity()  # type: ignore[assignment]
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(count)
        model(torch.empty(1, 3, config.image_size, config.image_size))
    return Profile(parameters, macs, activations, config.image_size)
