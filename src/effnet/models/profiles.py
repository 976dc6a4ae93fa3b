"""Size and work of the registered models, read from `profiles.json` without PyTorch."""

import json
from dataclasses import dataclass
from pathlib import Path

from effnet.models.config import MODEL_CONFIGS

FILE = Path(__file__).with_name("profiles.json")


@dataclass(frozen=True)
class Profile:
    """Size of a model and its work on one image.

    Attributes:
        parameters: trainable parameters.
        macs: multiply-accumulates of convolutions and linear layers.
        activations: elements that convolutions and linear layers return, as in arXiv 2003.13678.
        image_size: side of the image in pixels.
    """

    parameters: int
    macs: int
    activations: int
    image_size: int


def list_profiles() -> dict[str, Profile]:
    """Return the profile of every registered model at its own image size; quantizers change no count."""
    counted = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: Profile(**counted[config.twin if config.quantized else name])
        for name, config in MODEL_CONFIGS.items()
    }
