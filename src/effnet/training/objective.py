"""From a resolved recipe and the labels of the training images to the loss."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from effnet.data.labels import SplitLabels
from effnet.recipe import ResolvedRecipe
from effnet.runtime.errors import UserError
from effnet.training.balance import balanced_weights, log_shares, read_weights
from effnet.training.losses import LOSSES, Loss


def build_loss(recipe: ResolvedRecipe, labels: SplitLabels | None, classes: Sequence[str]) -> Loss:
    """Return the loss of a recipe.

    Args:
        recipe: settings.
        labels: of the training images; None for images whose labels are not known in advance.
        classes: names of the classes in the order of the logits.

    Raises:
        UserError: class weights that can't be used, or settings that need labels where there are none.
    """
    task = recipe.task
    row = LOSSES[task.loss]
    return (row.multi if task.task == "multi" else row.single)(
        smoothing=recipe.optimizer.label_smoothing,
        gamma=task.focal_gamma if row.has_gamma else 0.0,
        weights=_class_weights(recipe, labels, classes),
        offsets=_offsets(recipe, labels, len(classes)),
    )


def check_task(recipe: ResolvedRecipe, labels: SplitLabels) -> None:
    """Refuse images with several labels for a task with one each.

    Raises:
        UserError: they have several.
    """
    if labels.are_several and recipe.task.task == "single":
        raise UserError("--task single: the images of the data may have several labels; take --task multi")


def _class_weights(
    recipe: ResolvedRecipe, labels: SplitLabels | None, classes: Sequence[str]
) -> Tensor | None:
    given = recipe.task.class_weights
    if given == "none":
        return None
    if given != "auto":
        return torch.from_numpy(read_weights(given, classes)).float()
    counted = _counted(recipe, labels, "--class-weights auto")
    return torch.from_numpy(balanced_weights(counted, len(classes))).float()


def _offsets(recipe: ResolvedRecipe, labels: SplitLabels | None, num_classes: int) -> Tensor | None:
    tau = recipe.task.logit_adjustment
    if not tau:
        return None
    counted = _counted(recipe, labels, f"--logit-adjustment {tau:g}")
    return torch.from_numpy(tau * log_shares(counted, num_classes)).float()


def _counted(recipe: ResolvedRecipe, labels: SplitLabels | None, flag: str) -> SplitLabels:
    """Return the labels in the form of the task."""
    if labels is None:
        raise UserError(f"{flag}: --data-backend synthetic has no images to count")
    if recipe.task.task == "multi" and not labels.are_several:
        one_each = np.eye(recipe.model.num_classes, dtype=np.uint8)[labels.targets]
        return SplitLabels(one_each, labels.weights)
    return labels


def loss_of_a_guess(recipe: ResolvedRecipe) -> float:
    """Return the cross entropy of a uniform guess: log(classes), or with several labels log(2)."""
    return math.log(2 if recipe.task.task == "multi" else recipe.model.num_classes)
