"""The training step: from uint8 images to the loss."""

import torch
from torch import Tensor, nn

from effnet.data import Batch
from effnet.data.labels import SplitLabels
from effnet.data.mixup import Mix, mixup, multi_hot
from effnet.data.preprocessing import Preprocessing
from effnet.recipe import ResolvedRecipe
from effnet.runtime.precision import Precision
from effnet.training.distillation import Distillation
from effnet.training.losses import Loss


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
        loss: what is to be lowered.
        precision: the forward pass's arithmetic.
        mixes: apply mixup or CutMix; otherwise `mix` is ignored.
        distillation: blends the loss with the distance from a teacher; None without one.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        *,
        num_classes: int,
        loss: Loss,
        precision: Precision,
        mixes: bool,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(preprocessing)
        self.num_classes = num_classes
        self.loss = loss
        self.precision = precision
        self.mixes = mixes
        self.distillation = distillation

    def forward(self, images: Tensor, targets: Tensor, mix: Mix, weights: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            images: uint8, (N, 3, H, W).
            targets: class indices int64 (N,), or float32 (N, num_classes): class probabilities, or labels.
            mix: mixture of the batch, on the images' device.
            weights: float32 (N,), how much each image counts; None for 1. A mixture has the mixture of the weights.

        Returns:
            The loss, a float32 scalar.
        """
        x = self.normalise(images)
        if self.mixes:
            if weights is not None:
                targets = torch.cat([multi_hot(targets, self.num_classes), weights[:, None]], 1)
            x, targets = mixup(x, targets, mix, self.num_classes)
            if weights is not None:
                targets, weights = targets[:, :-1], targets[:, -1]
        with self.precision.autocast():
            logits = self.model(x)
        loss: Tensor = self.loss(logits.float(), targets, weights)
        return loss if self.distillation is None else self._distilled(loss, logits.float(), x)

    def _distilled(self, loss: Tensor, logits: Tensor, x: Tensor) -> Tensor:
        assert self.distillation is not None
        with self.precision.autocast():
            blended: Tensor = self.distillation(loss, logits, x)
        return blended


def empty_batch(recipe: ResolvedRecipe, device: torch.device, labels: SplitLabels | None) -> Batch:
    """Return a batch of black images of the first class, of the shapes and strides of a run's batches.

    Args:
        recipe: settings.
        device: where the batch is.
        labels: of the training images; None for images whose labels are not known in advance.
    """
    size, side = recipe.optimizer.batch_size, recipe.model.image_size
    images = torch.zeros((size, side, side, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    if recipe.compute.memory_format == "nchw":
        images = images.contiguous()
    targets = torch.zeros(size, dtype=torch.int64, device=device)
    if labels is not None and labels.are_several:
        targets = multi_hot(targets, recipe.model.num_classes)
    has_weights = labels is not None and labels.weights is not None
    return Batch(images, targets, weights=torch.ones(size, device=device) if has_weights else None)
