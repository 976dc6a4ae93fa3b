"""Size and cost of a model, counted without computing it.

After a model was added, `python -m effnet.models.profile > src/effnet/models/profiles.json` counts all again.
"""

import json
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from effnet.models.config import MODEL_CONFIGS, ModelConfig
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import ConvBNAct
from effnet.models.profiles import Profile
from effnet.models.registry import model_config


@dataclass(frozen=True)
class LayerSize:
    """Size of a convolution or linear layer and its cost for one image.

    Attributes:
        inputs: elements of the input.
        outputs: elements of the output.
        weights: elements of the weight and of the bias.
        macs: multiply-accumulate operations.
    """

    inputs: int
    outputs: int
    weights: int
    macs: int


def profile(name: str, image_size: int | None = None) -> Profile:
    """Count the parameters and operations of a registered model, on the meta device.

    Args:
        name: a name of `list_models`; a quantized model has the counts of its float model.
        image_size: side of the image in pixels; None for the model's own.

    Raises:
        UserError: unknown name.
    """
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
    """Return the convolutions and linear layers of a model by name, in the order in which they run."""
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
                # Neither changes shapes, and both are slow on the meta device.
                module.act = nn.Identity()
                module.bn = nn.Identity()  # type: ignore[assignment]
            if isinstance(module, nn.Conv2d | nn.Linear):
                names[module] = name
                module.register_forward_hook(count)
        model(torch.empty(1, 3, config.image_size, config.image_size))
    return sizes


def profiles_as_json() -> str:
    """Return the content of `profiles.json`: the profile of every float model, one per line."""
    names = [name for name, config in MODEL_CONFIGS.items() if not config.quantized]
    lines = (f"{json.dumps(name)}: {json.dumps(asdict(profile(name)))}" for name in names)
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    print(profiles_as_json(), end="")
