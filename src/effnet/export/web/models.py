"""Models of an exported page: each an ONNX file, with what the page must know of it."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from effnet.data.packed import RawImage
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import ValTransform
from effnet.export.facts import INPUT, OUTPUT, PRECISION_KEY, read_metadata
from effnet.export.onnx import export_onnx
from effnet.export.reference import QUANTIZED_TOLERANCE, TOLERANCES
from effnet.export.session import open_session
from effnet.export.trained import ModelChoice, open_trained
from effnet.runtime.errors import UserError
from effnet.runtime.files import move_into_place
from effnet.training.step import Normalise
from effnet.weights import WeightsMetadata

# A GPU's sums are rounded in other places, and its compilers may use approximate divisions and exponentials.
_WEBGPU_TOLERANCE = 0.02


@dataclass(frozen=True)
class WebModel:
    """A model of the page.

    Attributes:
        file: the ONNX file, in the folder `models` of the page.
        metadata: the model's.
        precision: `fp32` or `int8`.
        takes_bytes: its input is uint8 (1, H, W, 3); otherwise float32 (1, 3, H, W), normalised.
        logits: PyTorch's for `example_image`, or for a given file onnxruntime's; float32 (classes,).
    """

    file: Path
    metadata: WeightsMetadata
    precision: str
    takes_bytes: bool
    logits: npt.NDArray[np.float32]

    @property
    def name(self) -> str:
        """Name on the page."""
        return self.file.stem

    @property
    def tolerance(self) -> float:
        """Largest difference of a logit to `logits` that rounding can explain on a CPU."""
        if self.precision == "int8":
            return QUANTIZED_TOLERANCE * float(np.abs(self.logits).max())
        return TOLERANCES["fp32"]

    def facts(self) -> dict[str, Any]:
        """Return what the page must know, for JSON."""
        confidence, preprocessing = self.metadata.confidence, preprocessing_of(self.metadata)
        largest = float(np.abs(self.logits).max())
        height, width = example_size(preprocessing)
        return {
            "name": self.name,
            "file": f"models/{self.file.name}",
            "bytes": self.file.stat().st_size,
            "precision": self.precision,
            "takes_bytes": self.takes_bytes,
            "preprocessing": preprocessing.to_dict(),
            "temperature": confidence.temperature if confidence else 1.0,
            "thresholds": list(self.metadata.thresholds),
            "classes": list(self.metadata.class_names()),
            "example": {"height": height, "width": width, "logits": [float(each) for each in self.logits]},
            "tolerance": {
                "wasm": self.tolerance,
                "webgpu": max(self.tolerance, _WEBGPU_TOLERANCE * largest),
            },
        }


def web_model(choice: ModelChoice, folder: Path) -> WebModel:
    """Write a model into a folder.

    Args:
        choice: weights, or an ONNX file of `effnet export onnx`.
        folder: an existing folder; the file is named after model and precision.

    Raises:
        UserError: weights or a file that can't be used, or an ONNX file whose logits are not PyTorch's.
    """
    if choice.weights is not None and choice.weights.suffix == ".onnx":
        return _from_file(choice.weights, folder)
    trained = open_trained(choice)
    path = folder / "model.onnx"
    export_onnx(trained.model, trained.metadata, path, preprocessing_in_graph=True)
    with torch.inference_mode():
        logits = trained.model(_normalised(trained.preprocessing))[0].numpy()
    precision = _precision(open_session(path))
    named = _free_name(folder, trained.metadata, precision)
    move_into_place(path, named)
    return WebModel(named, trained.metadata, precision, True, logits)


def _from_file(path: Path, folder: Path) -> WebModel:
    session = open_session(path)
    facts = session.get_modelmeta().custom_metadata_map
    metadata = read_metadata(facts, path)
    side = preprocessing_of(metadata).image_size
    (port,) = session.get_inputs()[:1]
    if (port.name, port.type, port.shape[1:]) not in (
        (INPUT, "tensor(uint8)", [side, side, 3]),
        (INPUT, "tensor(float)", [3, side, side]),
    ):
        raise UserError(
            f"{path}: does not take images of {side} x {side} px; export it by `effnet export onnx`"
        )
    if port.shape[0] not in (1, None) and not isinstance(port.shape[0], str):
        raise UserError(f"{path}: takes {port.shape[0]} images at a time; export it without --static-batch")
    takes_bytes, precision = port.type == "tensor(uint8)", _precision(session)
    if precision == "fp16":
        raise UserError(f"{path}: is in FP16, which WebAssembly does not compute; export it in FP32")
    # An engine's own integer arithmetic may overflow.
    exact = open_session(path, fused=False) if precision == "int8" else session
    preprocessing = preprocessing_of(metadata)
    images = example_image(preprocessing)[None] if takes_bytes else _normalised(preprocessing).numpy()
    logits = exact.run([OUTPUT], {INPUT: images})[0][0]
    copied = Path(shutil.copy(path, _free_name(folder, metadata, precision)))
    return WebModel(copied, metadata, precision, takes_bytes, logits)


def example_size(preprocessing: Preprocessing) -> tuple[int, int]:
    """Return height and width of the image by which a page compares itself with PyTorch."""
    return preprocessing.resize * 3 // 2 + 1, 2 * preprocessing.resize + 3


def example_image(preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return the image of `exampleImage` in classify.js, as validation prepares it: uint8 (side, side, 3)."""
    height, width = example_size(preprocessing)
    y, x = np.mgrid[:height, :width]
    channels = [(x * (3 + c) + y * (5 - c) + ((x * y >> 4) + c)) & 255 for c in range(3)]
    return ValTransform(preprocessing)(RawImage(np.stack(channels, -1).astype(np.uint8)))


def preprocessing_of(metadata: WeightsMetadata) -> Preprocessing:
    """Return a model's preprocessing."""
    return Preprocessing.from_dict(metadata.preprocessing)


def _normalised(preprocessing: Preprocessing) -> torch.Tensor:
    image = torch.from_numpy(np.ascontiguousarray(example_image(preprocessing)))
    return Normalise(preprocessing)(image[None].permute(0, 3, 1, 2)).contiguous()


def _precision(session: Any) -> str:
    return str(session.get_modelmeta().custom_metadata_map.get(PRECISION_KEY, "fp32"))


def _free_name(folder: Path, metadata: WeightsMetadata, precision: str) -> Path:
    """Return a file that does not exist, with nothing in its name that an address would have to escape."""
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{metadata.model}-{precision}")[:100]
    names = (f"{stem}{f'-{number}' if number > 1 else ''}.onnx" for number in range(1, 1 << 16))
    return next(folder / name for name in names if not (folder / name).exists())
