"""Explanations: the parts of images that speak for an answer, as heat maps and as pictures."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from effnet.data.decode import BadImageError, Pixels
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import ValTransform
from effnet.inference.engine import Engine
from effnet.inference.heat_maps import (
    DEFAULT_LAYER,
    DEFAULT_METHOD,
    HeatMaps,
    check_layer,
    heat_maps,
    layers_of,
    method_of,
)
from effnet.inference.images import NamedImage
from effnet.inference.overlay import coloured, overlay, photograph
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_path
from effnet.training.step import Normalise

if TYPE_CHECKING:
    from effnet.inference.classifier import Classifier, Prediction

_LONGEST_NAME = 150
"""bytes of an image's name in that of its picture at most"""
_QUALITY = 90


@dataclass(frozen=True)
class Explanation:
    """The heat map of one image for one class.

    Attributes:
        image: path of the image; empty for pixels.
        prediction: the class that is explained, with its probability.
        heat: float32 (S, S) in [0, 1], as large as the model's input: how much each place speaks for the class.
        photo: the image, RGB uint8 (H, W, 3), reduced to at most 1,024 pixels a side.
        preprocessing: of the model, which says which part of the image it sees.
    """

    image: str
    prediction: "Prediction"
    heat: npt.NDArray[np.float32]
    photo: Pixels
    preprocessing: Preprocessing

    def picture(self) -> Image.Image:
        """Return the heat map over the image; what the model does not see of that is dark."""
        return overlay(self.photo, self.heat, self.preprocessing)


class Explainer:
    """Heat maps of a classifier's answers.

    Args:
        classifier: on PyTorch.
        label: the class to explain: its name, its folder's name or its index; None for each image's most probable one.
        method: a key of `effnet.inference.heat_maps.METHODS`.
        layer: a key of `effnet.inference.heat_maps.layers_of`.

    Raises:
        UserError: an engine that has no gradients, views of an image, or no such class, method or layer.
    """

    def __init__(
        self,
        classifier: "Classifier",
        *,
        label: str | int | None = None,
        method: str = DEFAULT_METHOD,
        layer: str = DEFAULT_LAYER,
    ) -> None:
        self.classifier, self.engine = classifier, classifier.engine
        self.model = explainable(self.engine)
        self.method, self.layer = method_of(method).name, layer
        check_layer(self.model, layer)
        self._index = None if label is None else class_index(self.engine, label)
        self._transform = ValTransform(self.engine.preprocessing)
        side = self.engine.preprocessing.image_size
        self._maps(
            torch.zeros(1, 3, side, side, dtype=torch.uint8), self._index
        )  # whose error comes before the first image

    def each(self, images: Iterable[NamedImage]) -> Iterator[Explanation | BadImageError]:
        """Yield the explanation of each image, or why it can't be decoded, in order; one is in memory at a time."""
        for image in images:
            try:
                yield self(image)
            except BadImageError as error:
                yield error

    def __call__(self, image: NamedImage, index: int | None = None) -> Explanation:
        """Explain the answer for an image.

        Args:
            image: the image.
            index: position of the class to explain in place of `label`; None for `label`.

        Raises:
            BadImageError: it can't be decoded.
        """
        opened = image.open()
        pixels = torch.from_numpy(self._transform(opened)[None]).permute(0, 3, 1, 2)
        found = self._maps(pixels, self._index if index is None else index)
        index = int(found.classes)
        probability = float(self.engine.probabilities(found.logits)[0, index])
        return Explanation(
            image.name,
            self.classifier.prediction(index, probability),
            found.maps[0].cpu().numpy(),
            photograph(opened),
            self.engine.preprocessing,
        )

    def _maps(self, images: Tensor, index: int | None) -> HeatMaps:
        """Return the maps of RGB images uint8 (N, 3, S, S) for a class; None for each one's most probable."""
        inputs = self.engine.prepare(images.to(self.engine.device))
        inputs = inputs.to(next(self.model.parameters()).dtype)
        classes = None if index is None else torch.full((len(images),), index)
        return heat_maps(self.model, inputs, classes, method=self.method, layer=self.layer)


def heat_pictures(
    model: nn.Module, images: Pixels, preprocessing: Preprocessing, classes: Sequence[int] | None = None
) -> Pixels | None:
    """Return images as a model sees them, under the heat maps of its answers, uint8 (N, S, S, 3).

    Args:
        model: in evaluation mode, on any device.
        images: RGB uint8 (N, S, S, 3).
        preprocessing: of the model.
        classes: the class to explain for each image; None for the one with the largest logit.

    Returns:
        The pictures; None for a model without heat maps: another network, or images too small for its head.
    """
    if not isinstance(model, EfficientNet):
        return None
    parameter = next(model.parameters())
    batch = torch.from_numpy(images).to(parameter.device).permute(0, 3, 1, 2)
    inputs = Normalise(preprocessing).to(parameter.device)(batch).to(parameter.dtype)
    try:
        maps = heat_maps(model, inputs, None if classes is None else torch.tensor(classes)).maps.cpu().numpy()
    except UserError:
        return None
    pictures = [coloured(pixels, heat) for pixels, heat in zip(images, maps, strict=True)]
    return np.stack(pictures).round().astype(np.uint8)


def explainable(engine: Engine) -> EfficientNet:
    """Return the model of an engine for `heat_maps`.

    Raises:
        UserError: the engine has none.
    """
    model = engine.network.differentiable()
    if isinstance(model, EfficientNet):
        return model
    raise UserError(
        f"--explain: {engine.name} returns logits only; give weights or a checkpoint and --engine torch, without --tta"
    )


def layer_to_explain(engine: Engine) -> str | None:
    """Return the last layer of an engine's model whose output has several places; None where there are no heat maps."""
    model, side = engine.network.differentiable(), engine.preprocessing.image_size
    if not isinstance(model, EfficientNet):
        return None
    outputs = next(model.parameters()).new_zeros(1, 3, side, side)
    found = None
    with torch.inference_mode():
        for name, part in layers_of(model).items():
            outputs = part(outputs)
            found = name if outputs[0, 0].numel() > 1 else found
    return found


def class_index(engine: Engine, label: str | int) -> int:
    """Return the position of a class among the logits.

    Args:
        engine: the model.
        label: name, folder's name or index.

    Raises:
        UserError: the model has no such class.
    """
    text, metadata = str(label), engine.metadata
    for names in (metadata.class_folders(), metadata.class_names()):
        if isinstance(label, str) and text in names:
            return names.index(text)
    count = explainable(engine).config.num_classes
    if text.isdecimal() and int(text) < count:
        return int(text)
    raise UserError(
        f"--explain-class {text}: {metadata.model} has no such class; give a class's name, its folder's name or an "
        f"index below {count}"
    )


class PictureNames:
    """Names for the pictures of images: the folders below the images' common one stay, so that none collide.

    Args:
        images: paths of all images.
        method: is a part of the names.
    """

    def __init__(self, images: Sequence[str], method: str) -> None:
        folders = {os.path.dirname(os.path.abspath(image)) for image in images}
        self._common = os.path.commonpath(folders) if folders else "/"
        self._method = method

    def __call__(self, image: str) -> Path:
        """Return the path of an image's picture, relative to the folder of all pictures."""
        path = Path(os.path.relpath(os.path.abspath(image), self._common))
        name = os.fsencode(path.name)
        if len(name) > _LONGEST_NAME:
            name = name[:_LONGEST_NAME] + b"-" + hashlib.sha256(name).hexdigest()[:8].encode()
        return path.with_name(f"{os.fsdecode(name)}.{self._method}.jpg")


def write_picture(explanation: Explanation, path: Path) -> None:
    """Write the picture of an explanation as JPEG; its folder is made.

    Raises:
        DiskError: it can't be written.
    """
    with atomic_path(path, make_folder=True) as temporary:
        _save(explanation, temporary)


def encoded_picture(explanation: Explanation) -> bytes:
    """Return the picture of an explanation as JPEG."""
    data = io.BytesIO()
    _save(explanation, data)
    return data.getvalue()


def _save(explanation: Explanation, file: Path | io.BytesIO) -> None:
    explanation.picture().save(file, "JPEG", quality=_QUALITY)
