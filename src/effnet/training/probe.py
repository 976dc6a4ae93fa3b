"""A classifier fitted to the weights' features of the training images, where fine-tuning then starts.

Without it the first steps send the gradients of a random classifier through the backbone. Each image goes through the
backbone once; what is fitted is a regression on the pooled features, with the loss of the run.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from effnet.data import Batch
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.progress import working
from effnet.training.losses import Loss
from effnet.training.objective import build_loss
from effnet.training.setup import Opened
from effnet.training.step import Normalise

# L2 regularisation from strong to weak; each fit starts from the one before.
_STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_DEFAULT_STRENGTH = 0.1
# Of the features' size. Images that differ less than this do not make a classifier that multiplies their differences.
_LEAST_SPREAD = 0.1
# Of five images of a class the last one is held out.
_HELD_OUT = 5
_MOST_IMAGES = 50_000
_ITERATIONS = 100


class Examples(NamedTuple):
    """Features of images and what they show."""

    features: Tensor
    """float32 (N, V, D): of V views of each image"""
    targets: Tensor
    """int64 (N,) or float32 (N, C), as in `effnet.data.Batch`"""
    weights: Tensor | None
    """float32 (N,)"""

    def chosen(self, mask: Tensor) -> "Examples":
        """Return the images where a bool (N,) is True."""
        return Examples(*(None if part is None else part[mask] for part in self))  # type: ignore[arg-type]


class Classifier(NamedTuple):
    """A linear classifier: float32 weight (C, D) and bias (C,)."""

    weight: Tensor
    bias: Tensor


def probe(opened: Opened, log: RunLog) -> None:
    """Fit the classifier of an opened run's model and write it into the model; every process must call this.

    The images are prepared as for validation, and mirrored as well if the recipe mirrors any. Of more than 50,000, as
    many are taken evenly.

    Raises:
        UserError: the input backend can't read the images for this.
        UserError: an image can't be decoded.
    """
    with working("fitting the classifier"):
        fitted, found = _fitted(opened)
    layer = opened.model.get_classifier()
    with torch.no_grad():
        layer.weight.copy_(fitted.weight)
        layer.bias.copy_(fitted.bias)
    log.print(f"probe: {', '.join(f'{name} {value:g}' for name, value in found.items())}")
    log.record("event", {"event": "probe", **found}, epoch=0, step=0)


def _fitted(opened: Opened) -> tuple[Classifier, dict[str, float]]:
    """Return the classifier, and what is reported of it."""
    examples = _examples(opened)
    loss = build_loss(opened.recipe, opened.data.labels.get("train"), opened.data.classes)
    loss = loss.to(examples.features.device)
    held_out = _held_out(examples.targets)
    strength, error = _choose(examples, held_out, loss, opened.recipe.model.num_classes)
    fitted = fit(examples, loss, strength, opened.recipe.model.num_classes)
    found = {"images": float(len(examples.targets)), "strength": strength}
    if error is not None:
        found["held_out_loss"] = error
    return fitted, found


def fit(
    examples: Examples, loss: Loss, strength: float, num_classes: int, start: Classifier | None = None
) -> Classifier:
    """Return the linear classifier with the lowest loss plus ``strength / 2`` times its squared weights.

    Args:
        examples: features and targets. For the regularisation the features are centred and scaled by one number, their
            spread, or a tenth of their size where images hardly differ.
        loss: of logits, targets and weights.
        strength: of the regularisation; the bias has none.
        num_classes: number of logits.
        start: where to start from; a classifier of the same examples' kind.
    """
    views = examples.features.shape[1]
    rows = examples.features.flatten(0, 1)
    centre = rows.mean(0)
    spread, size = (rows - centre).square().mean().sqrt(), rows.square().mean().sqrt()
    scale = spread.maximum(_LEAST_SPREAD * size) + torch.finfo(rows.dtype).tiny
    rows = (rows - centre) / scale
    targets = examples.targets.repeat_interleave(views, 0)
    weights = None if examples.weights is None else examples.weights.repeat_interleave(views)
    weight = rows.new_zeros(num_classes, rows.shape[1])
    bias = rows.new_zeros(num_classes)
    if start is not None:
        weight, bias = start.weight * scale, start.bias + start.weight @ centre
    weight, bias = weight.requires_grad_(), bias.requires_grad_()
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        search.zero_grad()
        error = loss(rows @ weight.T + bias, targets, weights)
        value: Tensor = error + strength / 2 * weight.square().sum()
        value.backward()
        return value

    search.step(objective)
    weight = weight.detach() / scale
    return Classifier(weight, bias.detach() - weight @ centre)


def _choose(examples: Examples, held_out: Tensor, loss: Loss, num_classes: int) -> tuple[float, float | None]:
    """Return the strength with the lowest loss on the images held out, and that loss."""
    if not held_out.any():
        return _DEFAULT_STRENGTH, None
    training, judged = examples.chosen(~held_out), examples.chosen(held_out)
    found: list[tuple[float, float]] = []
    classifier = None
    for strength in _STRENGTHS:
        classifier = fit(training, loss, strength, num_classes, classifier)
        logits = judged.features[:, 0] @ classifier.weight.T + classifier.bias
        found.append((float(loss(logits, judged.targets, judged.weights)), strength))
        if len(found) > 2 and min(found) not in found[-2:]:
            break
    error, strength = min(found)
    return strength, error


def _held_out(targets: Tensor) -> Tensor:
    """Return which images choose the regularisation: bool (N,), False where a class has fewer than five."""
    if targets.ndim == 2:
        return torch.arange(len(targets), device=targets.device) % _HELD_OUT == _HELD_OUT - 1
    order = targets.argsort(stable=True)
    counts = targets.bincount()
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first
    return place % _HELD_OUT == _HELD_OUT - 1


@torch.no_grad()
def _examples(opened: Opened) -> Examples:
    """Return the examples of all processes, in every process, in the order of the images."""
    data, processes = opened.data, opened.processes
    if data.each_once is None or data.train is None:
        name = opened.recipe.data.data_backend
        raise UserError(
            f"--probe: --data-backend {name} can't read the images for it; take pytorch or packed"
        )
    normalise = Normalise(opened.preprocessing).to(processes.device)
    was_training = opened.model.training
    opened.model.eval()
    every = -(-data.train.num_images // _MOST_IMAGES)
    own = [_of_batch(opened, normalise, batch) for batch in data.each_once(every)]
    opened.model.train(was_training)
    indices, features, targets, weights = zip(
        *(part for of_process in processes.gather(own) for part in of_process), strict=True
    )
    order = torch.cat(indices).argsort()
    device = processes.device
    joined = None if weights[0] is None else torch.cat(weights)[order].to(device)
    return Examples(torch.cat(features)[order].to(device), torch.cat(targets)[order].to(device), joined)


def _of_batch(
    opened: Opened, normalise: Normalise, batch: Batch
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return positions, features, targets and weights of a batch, on the CPU."""
    views = [batch.images, batch.images.flip(3)] if opened.recipe.data.hflip > 0 else [batch.images]
    model = opened.model
    with opened.precision.autocast():
        features = [model.features(model.layers(model.stem(normalise(view)))).mean((2, 3)) for view in views]
    assert batch.indices is not None
    weights = None if batch.weights is None else batch.weights.cpu().clone()
    return batch.indices.clone(), torch.stack(features, 1).float().cpu(), batch.targets.cpu().clone(), weights
