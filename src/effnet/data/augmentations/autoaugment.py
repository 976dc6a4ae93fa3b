"""AutoAugment (arXiv 1805.09501) with the ImageNet policy of NVIDIA's implementation, TensorFlow's of EfficientNet."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from effnet.data.augmentations.form import FILL, Augmentation, DaliForm, DaliOperation, PixelForm
from effnet.data.augmentations.operations import TABLES, compiled_operations
from effnet.data.augmentations.sub_policies import Step, dali_form, drawn
from effnet.data.decode import Pixels

NUM_LEVELS = 11

# As published, with two steps of probability 0 and a shear and a rotation of level 0.
SUB_POLICIES = (
    (Step("equalize", 0.8, 1), Step("shear_y", 0.8, 4)),
    (Step("color", 0.4, 9), Step("equalize", 0.6, 3)),
    (Step("color", 0.4, 1), Step("rotate", 0.6, 8)),
    (Step("solarize", 0.8, 3), Step("equalize", 0.4, 7)),
    (Step("solarize", 0.4, 2), Step("solarize", 0.6, 2)),
    (Step("color", 0.2, 0), Step("equalize", 0.8, 8)),
    (Step("equalize", 0.4, 8), Step("solarize_add", 0.8, 3)),
    (Step("shear_x", 0.2, 9), Step("rotate", 0.6, 8)),
    (Step("color", 0.6, 1), Step("equalize", 1.0, 2)),
    (Step("invert", 0.4, 9), Step("rotate", 0.6, 0)),
    (Step("equalize", 1.0, 9), Step("shear_y", 0.6, 3)),
    (Step("color", 0.4, 7), Step("equalize", 0.6, 0)),
    (Step("posterize", 0.4, 6), Step("auto_contrast", 0.4, 7)),
    (Step("solarize", 0.6, 8), Step("color", 0.6, 9)),
    (Step("solarize", 0.2, 4), Step("rotate", 0.8, 9)),
    (Step("rotate", 1.0, 7), Step("translate_y", 0.8, 9)),
    (Step("shear_x", 0.0, 0), Step("solarize", 0.8, 4)),
    (Step("shear_y", 0.8, 0), Step("color", 0.6, 4)),
    (Step("color", 1.0, 0), Step("rotate", 0.6, 2)),
    (Step("equalize", 0.8, 4), Step("equalize", 0.0, 8)),
    (Step("equalize", 1.0, 4), Step("auto_contrast", 0.6, 2)),
    (Step("shear_y", 0.4, 7), Step("solarize_add", 0.6, 7)),
    (Step("posterize", 0.8, 2), Step("solarize", 0.6, 10)),
    (Step("solarize", 0.6, 8), Step("equalize", 0.6, 1)),
    (Step("color", 0.8, 6), Step("rotate", 0.4, 5)),
)


class Operation(NamedTuple):
    """An operation on RGB Pillow images."""

    run: Callable[[Image.Image, float], Image.Image]
    """returns an image from an image and the magnitude"""
    highest: float = 0
    """magnitude at the last level"""
    lowest: float = 0
    """magnitude at level 0"""
    signed: bool = False
    """the magnitude may be negated"""

    def magnitude(self, level: int) -> float:
        """Return the magnitude at a level: the levels are even steps."""
        return self.lowest + (self.highest - self.lowest) * level / (NUM_LEVELS - 1)


def _pixels() -> PixelForm:
    compiled_operations()  # here, so that no worker has to compile them
    return augment


def augment(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Apply the policy to one image; see `PixelForm`."""
    compiled = compiled_operations()
    for applied in drawn(SUB_POLICIES, random):
        if applied is None:
            continue
        operation = OPERATIONS[applied.operation]
        magnitude = operation.magnitude(applied.level)
        if operation.signed and applied.negated:
            magnitude = -magnitude
        if applied.operation in compiled:
            pixels = compiled[applied.operation](np.ascontiguousarray(pixels), magnitude)
        else:
            pixels = np.asarray(operation.run(Image.fromarray(pixels), magnitude))
    return pixels


def _shear_x(image: Image.Image, slope: float) -> Image.Image:
    return _moved(image, (1, -slope, 0, 0, 1, 0), Image.Resampling.BICUBIC)


def _shear_y(image: Image.Image, slope: float) -> Image.Image:
    return _moved(image, (1, 0, 0, -slope, 1, 0), Image.Resampling.BICUBIC)


def _translate_y(image: Image.Image, pixels: float) -> Image.Image:
    return _moved(image, (1, 0, 0, 0, 1, -pixels), Image.Resampling.NEAREST)


def _moved(image: Image.Image, source: tuple[float, ...], interpolation: Image.Resampling) -> Image.Image:
    """Fetch each pixel from where the first two rows of the affine matrix `source` put it."""
    if source == (1, 0, 0, 0, 1, 0):
        return image  # a shear of level 0: skip a transform that changes nothing
    return image.transform(
        image.size, Image.Transform.AFFINE, source, interpolation, fillcolor=(FILL, FILL, FILL)
    )


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=(FILL, FILL, FILL))


def _color(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _look_up(name: str, image: Image.Image, magnitude: float) -> Image.Image:
    return image.point(TABLES[name](magnitude).ravel().tolist())


def _equalize(image: Image.Image, _: float) -> Image.Image:
    return ImageOps.equalize(image)


def _auto_contrast(image: Image.Image, _: float) -> Image.Image:
    return ImageOps.autocontrast(image)


OPERATIONS = {
    "shear_x": Operation(_shear_x, 0.3, signed=True),
    "shear_y": Operation(_shear_y, 0.3, signed=True),
    "translate_y": Operation(_translate_y, 250, signed=True),
    "rotate": Operation(_rotate, 30, signed=True),
    "color": Operation(_color, 1.9, 0.1),
    "posterize": Operation(partial(_look_up, "posterize"), 4),
    "solarize": Operation(partial(_look_up, "solarize"), 256),
    "solarize_add": Operation(partial(_look_up, "solarize_add"), 110),
    "equalize": Operation(_equalize),
    "auto_contrast": Operation(_auto_contrast),
    "invert": Operation(partial(_look_up, "invert")),
}
"""operations of the policy; the names are DALI's"""


def _dali(side: int) -> DaliForm:
    """Return the policy by the operations of DALI's ``image_net`` policy, whose magnitudes are the same."""
    from effnet.data.dali.library import INTERPOLATIONS, augmentations, auto_augment

    nearest, bilinear = INTERPOLATIONS["nearest"], INTERPOLATIONS["bilinear"]
    # DALI moves pixels by these two kinds alone, so its shear is not bicubic.
    kinds = {"rotate": nearest, "translate_y": nearest, "shear_x": bilinear, "shear_y": bilinear}
    operations: dict[str, DaliOperation] = {}
    for row in auto_augment.get_image_net_policy().sub_policies:
        for operation, _, _ in row:
            name = operation.name
            options = {"interp_type": kinds[name]} if name in kinds else {}
            operations[name] = DaliOperation(name, partial(operation, **options))
    identity = DaliOperation("identity", augmentations.identity)
    return dali_form(SUB_POLICIES, operations, identity, NUM_LEVELS)


AUGMENTATION = Augmentation(
    "autoaugment",
    "AutoAugment with NVIDIA's ImageNet policy (TensorFlow's of EfficientNet)",
    pixels=_pixels,
    dali=_dali,
)
