"""Distillation: a training that also follows a trained model's answers (arXiv 1503.02531, 2106.05237)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.models import list_models, model_config
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.training.run_weights import averaged_is_better, best_checkpoint
from effnet.weights import list_weights, load_model, published_tag
from effnet.weights.hub import local_source

_SHOWN = 3


class Teacher(nn.Module):
    """A trained model that answers for a training's images; it stays in evaluation mode and is not trained.

    Args:
        model: the network.
        own: its preprocessing.
        given: preprocessing of the images that it is given.
        order: position of each class of the training among its own, int64 (classes,).
    """

    scale: Tensor
    shift: Tensor
    order: Tensor

    def __init__(self, model: nn.Module, own: Preprocessing, given: Preprocessing, order: Tensor) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.side = own.image_size
        self.is_normalised = (own.mean, own.std) == (given.mean, given.std)
        mean, std, other_mean, other_std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (own.mean, own.std, given.mean, given.std)
        )
        self.register_buffer("scale", other_std / std, persistent=False)
        self.register_buffer("shift", (other_mean - mean) / std, persistent=False)
        self.register_buffer("order", order, persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the training's classes, float32 (N, classes).

        Args:
            images: as the trained model gets them, normalised and mixed, (N, 3, H, W) of any size.
        """
        x = images if self.is_normalised else images * self.scale + self.shift
        if x.shape[2:] != (self.side, self.side):
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        logits: Tensor = self.model(x)
        return logits.float()[:, self.order]


class Distillation(nn.Module):
    """A loss blended with the distance from a teacher's answers.

    Args:
        teacher: the teacher.
        weight: share of the distance, from 0 to 1.
        temperature: divisor of both models' logits.
        several_labels: each class is a question of its own.
    """

    def __init__(
        self, teacher: nn.Module, *, weight: float, temperature: float, several_labels: bool = False
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature
        self.several_labels = several_labels

    def forward(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return (1 - weight) * loss + weight * temperature^2 * KL(teacher, student), a float32 scalar.

        Args:
            loss: the loss by the targets.
            logits: the trained model's, float32 (N, classes).
            images: what it computed them from; see `Teacher`.
        """
        student, teacher = logits / self.temperature, self.teacher(images) / self.temperature
        if self.several_labels:
            distance = _distance_of_answers(student, teacher)
        else:
            distance = F.kl_div(
                student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True
            )
        return torch.lerp(loss, distance * self.temperature**2, self.weight)


def _distance_of_answers(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean KL divergence of the answers yes and no of each image and class."""
    yes = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, yes)
    return F.binary_cross_entropy_with_logits(student, yes) - entropy


def open_teacher(source: str, classes: Sequence[str], given: Preprocessing, device: torch.device) -> Teacher:
    """Load a teacher.

    Args:
        source: what `effnet.load` takes: a weight file, a checkpoint, the folder of a run, a model's name, the tag of
            published weights, or a repository on the hub.
        classes: class folders of the training, in the order of its targets.
        given: preprocessing of its images.
        device: where the teacher answers.

    Raises:
        UserError: weights that can't be found or read, are quantized, or don't know a class.
    """
    model = _loaded(source)
    own = Preprocessing.from_dict(model.metadata.preprocessing) if model.metadata else given
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(model, own, given, _order(source, model, classes)).to(device)


def _loaded(source: str) -> EfficientNet:
    path, averaged = Path(local_source(source)), False
    if path.is_dir():
        path = best_checkpoint(path)
    if path.is_file():
        if path.suffix in (".onnx", ".xml", ".engine"):
            raise UserError(
                f"--teacher {source} is for another engine; give the weights that it was exported from"
            )
        source, averaged = str(path), averaged_is_better(path)
    elif source in list_models():
        if model_config(source).quantized:
            raise UserError(f"--teacher {source} is quantized; give a float model")
        source = published_tag(source, None)
    elif not any(row.tag == source for row in list_weights()):
        raise UserError(
            f"--teacher {source}: no such file, folder of a run, or model that `effnet models` lists"
        )
    model = load_model(source, ema=averaged)
    if model.config.quantized:
        raise UserError(f"--teacher {source} is quantized; give the float model")
    return model


def _order(source: str, model: EfficientNet, classes: Sequence[str]) -> Tensor:
    known = (
        {} if model.metadata is None else {name: n for n, name in enumerate(model.metadata.class_folders())}
    )
    if not known:
        raise UserError(f"--teacher {source} does not name its classes; give a checkpoint of `effnet train`")
    missing = [name for name in classes if name not in known]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UserError(
            f"--teacher {source} does not know the classes {', '.join(missing[:_SHOWN])}{more}; "
            "train it on the same ones"
        )
    return torch.tensor([known[name] for name in classes])
