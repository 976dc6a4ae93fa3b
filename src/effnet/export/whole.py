"""PyTorch's logits for whole images, which a file that resizes them itself must return."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from effnet.data.decode import EncodedImage, Pixels
from effnet.data.packed import RawImage
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import ValTransform
from effnet.export.reference import Precision, Reference
from effnet.recipe.choices import FeaturesName
from effnet.training.step import Normalise

_QUALITY = 95
# Share of the pixels that rounding may change by one.
_ROUNDED = 0.05


def whole_sizes(resize: int) -> list[tuple[int, int]]:
    """Return (height, width) of images for a check: both orientations, larger and smaller, odd, equal, long ones."""
    return [
        (resize * 3 // 2, 2 * resize + 1),
        (2 * resize + 11, resize + 37),
        (resize // 2 + 1, resize // 2 + 6),
        (resize, resize),
        (resize - 1, resize + 2),
        (3 * resize + 1, resize // 3),
        (resize // 4, resize * 5 // 4 + 3),
    ]


class WholeReference(Reference):
    """PyTorch's logits for images of several sizes, prepared as in validation.

    Attributes:
        sizes: (height, width) of the images; there is a batch of each.

    Args:
        model, preprocessing, device, features: as for `Reference`.
        batch_size: images of each size; None for one, and two of the first size.
        encoded: the file takes the bytes of a JPEG file, one in a call.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        *,
        batch_size: int | None = None,
        device: torch.device | str = "cpu",
        encoded: bool = False,
        features: FeaturesName | None = None,
    ) -> None:
        super().__init__(model, preprocessing, batch_size=batch_size, device=device, features=features)
        self.sizes = tuple(whole_sizes(preprocessing.resize))
        self._transform, self._normalise = ValTransform(preprocessing), Normalise(preprocessing)
        counts = [batch_size or 1] * len(self.sizes)
        if batch_size is None and not encoded:
            counts[0] = 2
        self.batches: tuple[int, ...] = tuple(sorted(set(counts)))
        self._inputs: list[npt.NDArray[Any]] = []
        self._prepared: list[Pixels] = []
        for number, (size, count) in enumerate(zip(self.sizes, counts, strict=True)):
            images = [picture(*size, seed=number + 100 * place) for place in range(count)]
            if encoded:
                data = _jpeg(images[0])
                self._inputs.append(np.frombuffer(data, dtype=np.uint8))
                images = [EncodedImage(Path("example.jpg"), data).decode()]
            else:
                self._inputs.append(np.stack(images))
            self._prepared.append(np.stack([self._transform(RawImage(image)) for image in images]))
        self._answers: list[npt.NDArray[np.float32]] = []

    def tolerance(self, precision: Precision) -> float:
        """Return the largest difference of a logit to PyTorch's that rounding can explain.

        A pixel of the resized image, a whole number, may be one more or one less where two programs' sums fall on
        different sides of a half, which 1 % of the pixels do. To the tolerance for equal pixels, that adds the largest
        change of a logit when `_ROUNDED` of them are one more or one less, at random.
        """
        return super().tolerance(precision) + self._effect_of_rounding()

    def difference(
        self, run: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]], *, takes_bytes: bool = True
    ) -> float:
        """Return the largest absolute difference of an engine's logits to PyTorch's.

        Args:
            run: the engine: a batch uint8 (N, H, W, 3), or a file's bytes, in; logits out.
            takes_bytes: no choice here.
        """
        pairs = zip(self._inputs, self._validated(), strict=True)
        return float(np.max([np.abs(run(taken) - logits).max() for taken, logits in pairs]))

    def _validated(self) -> list[npt.NDArray[np.float32]]:
        if not self._answers:
            self._answers = [self._computed(pixels) for pixels in self._prepared]
        return self._answers

    def _effect_of_rounding(self) -> float:
        random = np.random.default_rng(0)
        changes = []
        for pixels, logits in zip(self._prepared, self._validated(), strict=True):
            step = random.choice(np.array([-1, 1], dtype=np.int16), pixels.shape)
            step[random.random(pixels.shape) >= _ROUNDED] = 0
            changed = np.clip(pixels + step, 0, 255).astype(np.uint8)
            changes.append(np.abs(self._computed(changed) - logits).max())
        return float(np.max(changes))

    @torch.inference_mode()
    def _computed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        images = self._normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2)).contiguous()
        logits: npt.NDArray[np.float32] = self._network(images.to(self._device)).float().cpu().numpy()
        return logits


def picture(height: int, width: int, *, seed: int) -> Pixels:
    """Return a picture with large areas, edges and noise, uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    areas = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(areas.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    smooth[height // 3 : height // 2, width // 4 : width // 2] = random.integers(0, 256, 3)
    noisy = smooth + random.integers(-40, 41, smooth.shape, dtype=np.int16)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _jpeg(image: Pixels) -> bytes:
    # Decoders enlarge colours of half the size, the usual kind, by different filters; the rest is the same in all.
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()
