"""Classify images with a file that `effnet export onnx` has written, without PyTorch and without effnet.

    pip install onnxruntime numpy pillow
    python examples/onnx_without_pytorch.py model.onnx photo.jpg another.jpg

The file says how it wants its images: size, crop, filter, mean and standard deviation stand in its metadata, beside
the names of the classes.
"""

import json
import sys
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "triangular": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class Model:
    """An exported model.

    Args:
        path: file of `effnet export onnx`.
    """

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        values = self.session.get_modelmeta().custom_metadata_map
        self.classes: list[str] = json.loads(values.get("classes", "[]"))
        metadata = json.loads(values["effnet"])
        self.preprocessing: dict[str, Any] = metadata["preprocessing"]
        # Probabilities are honest with the temperature that the training's validation has fitted.
        self.temperature = (metadata.get("confidence") or {}).get("temperature", 1.0)
        self.takes_bytes = self.session.get_inputs()[0].type == "tensor(uint8)"

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return an image as the network takes it: float32 (3, S, S), or uint8 (S, S, 3)."""
        wanted = self.preprocessing
        image = ImageOps.exif_transpose(image).convert("RGB")
        shorter = min(image.size)
        width, height = (wanted["resize"] * side // shorter for side in image.size)
        image = image.resize((width, height), FILTERS[wanted["interpolation"]])
        left, top = (round((side - wanted["image_size"]) / 2) for side in image.size)
        image = image.crop((left, top, left + wanted["image_size"], top + wanted["image_size"]))
        pixels = np.asarray(image)
        if self.takes_bytes:
            return pixels
        normalised = (pixels / 255 - wanted["mean"]) / wanted["std"]
        return normalised.astype(np.float32).transpose(2, 0, 1)

    def probabilities(self, images: list[Image.Image]) -> np.ndarray:
        """Return the probability of each class, float64 (N, classes)."""
        batch = np.stack([self.prepare(image) for image in images])
        (logits,) = self.session.run(["logits"], {"images": batch})
        scaled = logits.astype(np.float64) / self.temperature
        powers = np.exp(scaled - scaled.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)


def main(file: str, *paths: str) -> None:
    """Print the three likeliest classes of each image."""
    model = Model(file)
    for path in paths:
        (probabilities,) = model.probabilities([Image.open(path)])
        for index in probabilities.argsort()[::-1][:3]:
            name = model.classes[index] if model.classes else f"class {index}"
            print(f"{path}: {name} {100 * probabilities[index]:.1f} %")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
