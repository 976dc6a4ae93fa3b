"""Augmentations of torchvision, made to draw from a sample's own generator."""

import numpy as np
import torch
from PIL import Image

from effnet.data.augmentations.form import FILL
from effnet.data.decode import Pixels


class TorchvisionForm:
    """An automatic augmentation of torchvision; see `PixelForm`.

    Args:
        name: class in `torchvision.transforms.v2`.
    """

    def __init__(self, name: str) -> None:
        # Imported here: classification does not need it, and it costs start-up time and memory.
        from torchvision.transforms import InterpolationMode, v2

        self._augment = getattr(v2, name)(interpolation=InterpolationMode.BILINEAR, fill=FILL)

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """Augment one image; the process's generator, from which torchvision draws, is left as it was."""
        state = torch.default_generator.get_state()
        # unlike torch.manual_seed, this leaves the accelerator's generator alone
        torch.default_generator.manual_seed(int(random.integers(2**63)))
        try:
            return np.asarray(self._augment(Image.fromarray(pixels)))
        finally:
            torch.default_generator.set_state(state)
