"""Error of a quantized model's logits by placement of the quantizers, kind of range and method of calibration.

Of the images of a folder, evenly spaced, 625 calibrate and 1,250 others judge. For each row: the
norm of the difference to the float model's logits by the norm of these, how much larger the quantized logits are (ratio
of norms), and the share of images that keep their class.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from effnet import create_model
from effnet.data import Batch
from effnet.data.folder import list_images
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import ValTransform
from effnet.models import model_config
from effnet.models.efficientnet import EfficientNet
from effnet.quantization.calibrate import calibrate
from effnet.quantization.layers import quantizers_of
from effnet.quantization.placement import place_quantizers, row_of
from effnet.recipe import QuantizationSettings
from effnet.recipe.choices import TargetName
from effnet.runtime.errors import UserError
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.training.step import Normalise
from effnet.weights import read_metadata

CPU = torch.device("cpu")
TO_CALIBRATE, TO_JUDGE, BATCH = 625, 1250, 125
METHODS: tuple[Literal["percentile", "max", "mse"], ...] = ("percentile", "max", "mse")
NAIVE = "inputs and weights alone"
# Placement by name, the target that it belongs to, and whether activations have zero points.
ROWS: tuple[tuple[str, TargetName, bool], ...] = (
    (NAIVE, "tensorrt", False),
    ("tensorrt", "tensorrt", False),
    ("openvino", "openvino", False),
    ("openvino", "openvino", True),
    ("onnxruntime", "onnxruntime", False),
    ("onnxruntime", "onnxruntime", True),
)


def batches(images: Tensor) -> Iterator[Batch]:
    """Yield images uint8 (N, 3, H, W) in batches."""
    for part in images.split(BATCH):
        yield Batch(part, torch.zeros(len(part), dtype=torch.int64), torch.arange(len(part)))


def read_images(folder: Path, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Return the images to calibrate on and those to judge by, uint8 (N, 3, H, W)."""
    images = list_images(folder.parent, folder.name)
    total = TO_CALIBRATE + TO_JUDGE
    chosen = [i * len(images) // total for i in range(total)]
    transform = ValTransform(preprocessing)
    pixels = np.stack([transform(read()) for read in images.read(chosen)])
    both = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    calibrates = torch.arange(total) % (total // TO_CALIBRATE) == 0
    return both[calibrates], both[~calibrates]


def place(model: EfficientNet, placement: str, target: TargetName, zero_points: bool) -> None:
    """Switch the quantizers of a placement on, all others off."""
    place_quantizers(model, target)
    for name, quantizer in quantizers_of(model).items():
        if placement == NAIVE and row_of(name).place not in ("._input_quantizer", "._weight_quantizer"):
            quantizer.switch(False)
        if quantizer.is_on and not quantizer.shape:
            quantizer.switch(True, asymmetric=zero_points)


@torch.inference_mode()
def logits(model: torch.nn.Module, images: Tensor, normalise: Normalise) -> Tensor:
    """Return the logits of images uint8 (N, 3, H, W)."""
    return torch.cat([model(normalise(part)) for part in images.split(BATCH)])


def measure(weights: Path, folder: Path) -> Iterator[str]:
    """Yield the lines of the table: relative error, ratio of norms, and share of kept classes, by method.

    Args:
        weights: float weights with metadata.
        folder: holds ``<class>/`` folders of images.
    """
    metadata = read_metadata(weights)
    if metadata is None:
        raise UserError(f"{weights}: has no metadata; give a checkpoint of `effnet train`")
    preprocessing = Preprocessing.from_dict(metadata.preprocessing)
    to_calibrate, to_judge = read_images(folder, preprocessing)
    normalise = Normalise(preprocessing)
    classes = len(metadata.class_names())
    twin = model_config(metadata.model).twin
    model = create_model(metadata.model, weights=weights, num_classes=classes).eval()
    expected = logits(model, to_judge, normalise)
    yield f"| placement | activations | {' | '.join(METHODS)} |"
    yield "| --- " * (2 + len(METHODS)) + "|"
    for placement, target, zero_points in ROWS:
        cells = []
        for method in METHODS:
            model = create_model(twin, weights=weights, num_classes=classes).eval()
            place(model, placement, target, zero_points)
            settings = QuantizationSettings(calib_method=method)
            calibrate(
                model,
                batches(to_calibrate),
                preprocessing,
                Precision("fp32", CPU),
                Processes.alone(CPU),
                settings,
            )
            found = logits(model, to_judge, normalise)
            error, size = (found - expected).norm() / expected.norm(), found.norm() / expected.norm()
            same = (found.argmax(1) == expected.argmax(1)).float().mean()
            cells.append(f"{100 * error:.1f} %, {size:.2f}, {100 * same:.1f}")
        yield f"| {placement} | {'zero points' if zero_points else 'symmetric'} | {' | '.join(cells)} |"
