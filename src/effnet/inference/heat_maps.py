"""Heat maps: the parts of an image that speak for a class, from a layer's outputs and their gradients.

A new method is a row here, and its name in `effnet.recipe.choices.HeatMapName`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.models.efficientnet import EfficientNet
from effnet.recipe.choices import HeatMapName
from effnet.runtime.errors import UserError
from effnet.runtime.registry import registry

DEFAULT_METHOD = "grad-cam"
DEFAULT_LAYER = "features"


@dataclass(frozen=True)
class Method:
    """A way to weigh a layer's outputs.

    Attributes:
        name: value of ``--explain-method``.
        summary: one line for the documentation's table.
        sums: of the layer's outputs (N, C, h, w) and the gradients of the class's logits with respect to them, of the
            same shape, makes the maps (N, h, w). What is below 0 speaks against the class and is set to 0.
    """

    name: str
    summary: str
    sums: Callable[[Tensor, Tensor], Tensor]


def _grad_cam(outputs: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean((2, 3), keepdim=True) * outputs).sum(1)


def _layer_cam(outputs: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.relu() * outputs).sum(1)


METHODS: Mapping[str, Method] = registry(
    HeatMapName,
    Method(
        "grad-cam",
        "channels weighted by their mean gradient ([arXiv 1610.02391](https://arxiv.org/abs/1610.02391))",
        _grad_cam,
    ),
    Method(
        "layer-cam",
        "each place of each channel weighted by its own gradient where that is positive, for the finer grids of "
        "earlier layers ([LayerCAM](https://doi.org/10.1109/TIP.2021.3089943))",
        _layer_cam,
    ),
)
"""the registry, by the value of ``--explain-method``"""


class HeatMaps(NamedTuple):
    """The maps of a batch.

    Attributes:
        maps: float32 (N, H, W) in [0, 1], as large as the images.
        logits: float32 (N, classes).
        classes: int64 (N,), the classes that the maps are of.
    """

    maps: Tensor
    logits: Tensor
    classes: Tensor


def layers_of(model: EfficientNet) -> dict[str, nn.Module]:
    """Return the parts of a model in the order in which an image passes them, under the names for `heat_maps`.

    They are ``stem``, ``layer1``, ``layer2`` and so on, and ``features``, the head; but for ``stem`` those of
    `EfficientNet.extract_features`.
    """
    stages = {f"layer{number}": stage for number, stage in enumerate(model.layers, start=1)}
    return {"stem": model.stem, **stages, "features": model.features}


def heat_maps(
    model: EfficientNet,
    images: Tensor,
    classes: Tensor | None = None,
    *,
    method: str = DEFAULT_METHOD,
    layer: str = DEFAULT_LAYER,
) -> HeatMaps:
    """Return a heat map for each image.

    A map is enlarged to the size of the image by bilinear interpolation (half-pixel centres); then its least value
    becomes 0 and its largest 1. A map in which nothing speaks for the class is 0 everywhere. The gradients are those
    of logits, so that a temperature changes nothing, nor does it matter whether an image may have several labels.
    The parameters get no gradients.

    Args:
        model: in evaluation mode, of any family, quantized or not.
        images: what the model takes: normalised, floating point (N, 3, H, W).
        classes: int64 (N,), the class to explain for each image; None for the one with the largest logit.
        method: a key of `METHODS`.
        layer: a key of `layers_of`.

    Raises:
        UserError: no such method or layer, or a layer whose output is a single pixel, which has no places.
    """
    sums = method_of(method).sums
    before, after = _cut(model, layer)
    with torch.inference_mode(False):
        with torch.no_grad():
            outputs = images.clone() if images.is_inference() else images
            for part in before:
                outputs = part(outputs)
        _check_places(outputs, layer)
        outputs = outputs.detach().requires_grad_()
        with torch.enable_grad():
            answers = outputs
            for part in after:
                answers = part(answers)
            classes = answers.argmax(1) if classes is None else classes.to(answers.device)
            chosen = answers.gather(1, classes[:, None]).sum()
        (gradients,) = torch.autograd.grad(chosen, outputs)
    maps = sums(outputs.detach().float(), gradients.float()).relu()
    return HeatMaps(_enlarged(maps, (images.shape[2], images.shape[3])), answers.detach().float(), classes)


def method_of(name: str) -> Method:
    """Return a method by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in METHODS:
        raise UserError(f"--explain-method must be one of {', '.join(METHODS)}, not {name!r}")
    return METHODS[name]


def check_layer(model: EfficientNet, layer: str) -> None:
    """Refuse a layer that the model does not have.

    Raises:
        UserError: it is no key of `layers_of`.
    """
    known = layers_of(model)
    if layer not in known:
        raise UserError(f"--explain-layer must be one of {', '.join(known)} for this model, not {layer!r}")


def _cut(model: EfficientNet, layer: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the parts of a model up to a layer, and those after it."""
    check_layer(model, layer)
    parts = layers_of(model)
    count = list(parts).index(layer) + 1
    modules = [*parts.values(), model.classifier]
    return modules[:count], modules[count:]


def _check_places(outputs: Tensor, layer: str) -> None:
    if outputs.shape[2:] == (1, 1):
        raise UserError(
            f"--explain-layer {layer}: its output is a single pixel at this image size; name an earlier layer, such as "
            "layer3, or take a larger --image-size"
        )


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (N, h, w) at another size, each scaled to [0, 1]."""
    # Scaled before, too, so that the differences within a tiny map do not vanish.
    maps = maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    maps = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    maps = maps - maps.amin((1, 2), keepdim=True)
    largest = maps.amax((1, 2), keepdim=True)
    return maps / largest.where(largest > 0, 1)
