"""The training step: from uint8 images to the loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.data import Batch
from effnet.data.mixup import Mix, mixup
from effnet.data.preprocessing import Preprocessing
from effnet.recipe import ResolvedRecipe
from effnet.runtime.precision import Precision


class Normalise(nn.Module):
    """Normalise uint8 images with the weights' mean and standard deviation, on the device.

    Shapes: (N, 3, H, W) uint8 -> the same, float32.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std)
        )
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise."""
        return images * self.scale + self.shift


class TrainStep(nn.Module):
    """Normalisation, mixup, forward pass and loss as one graph.

    Args:
        model: the network, wrapped or not for distributed training.
        preprocessing: mean and standard deviation.
        num_classes: logits of the model.
        label_smoothing: share of the target spread over all classes (arXiv 1512.00567).
        precision: the forward pass's arithmetic.
        mixes: apply mixup or CutMix; otherwise `mix` is ignored.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        *,
        num_classes: int,
        label_smoothing: float,
        precision: Precision,
        mixes: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(preprocessing)
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.precision = precision
        self.mixes = mixes

    def forward(self, images: Tensor, targets: Tensor, mix: Mix) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            images: uint8, (N, 3, H, W).
            targets: class indices int64 (N,), or class probabilities (N, num_classes).
            mix: mixture of the batch, on the images' device.

        Returns:
            Cross entropy, a float32 scalar.
        """
        x = self.normalise(images)
        if self.mixes:
            x, targets = mixup(x, targets, mix, self.num_classes)
        with self.precision.autocast():
            logits = self.model(x)
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)


def empty_batch(recipe: ResolvedRecipe, device: torch.device) -> Batch:
    """Return a batch of black images of the first class, of the shapes and strides of a run's batches."""
    size, side = recipe.optimizer.batch_size, recipe.model.image_size
    images = torch.zeros((size, side, side, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    if recipe.compute.memory_format == "nchw":
        images = images.contiguous()
    return Batch(images, torch.zeros(size, dtype=torch.int64, device=device))
