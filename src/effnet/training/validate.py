"""Loss and accuracy over a validation set, every image counted once."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from effnet.data import Batch, Loader
from effnet.data.mixup import multi_hot
from effnet.data.preprocessing import Preprocessing
from effnet.recipe import ResolvedRecipe
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.runtime.progress import ProgressBar
from effnet.training.answers import Answers, Sums
from effnet.training.metrics import METRICS, metrics_of
from effnet.training.ranking import DEFAULT_THRESHOLD, MOST_SCORES, Scores
from effnet.training.rates import Rates
from effnet.training.results import Results
from effnet.training.step import Normalise

Observer = Callable[[Batch, Tensor], None]
Watch = Callable[[], None]


def together(observers: Sequence[Observer]) -> Observer | None:
    """Return an observer that calls several, in order; None for none."""

    def observe(batch: Batch, logits: Tensor) -> None:
        for observer in observers:
            observer(batch, logits)

    return observe if observers else None


class Validator:
    """Validates models on one validation set.

    Args:
        loader: this process's share of the set.
        preprocessing: mean and standard deviation.
        precision: arithmetic of the forward pass.
        processes: the processes that share the set.
        num_classes: logits of the models.
        topk: k of the second accuracy.
        thresholds: probability of each class from which on a label is predicted; None for images with one label.
        ranks: measure what needs a ranking of the answers, see ``--ranking-metrics``.
        max_batches: batches of this process to take; None for all.
        prepare: what the model takes of images uint8 (N, 3, H, W); None to normalise them.

    Attributes:
        results: of the last validation; None before there was one.
    """

    results: Results | None = None

    def __init__(
        self,
        loader: Loader,
        preprocessing: Preprocessing,
        precision: Precision,
        processes: Processes,
        *,
        num_classes: int,
        topk: int = 5,
        thresholds: Sequence[float] | None = None,
        ranks: bool = True,
        max_batches: int | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.loader = loader
        self.precision = precision
        self.processes = processes
        self.num_classes = num_classes
        self.topk = topk
        self.thresholds = None if thresholds is None else torch.tensor(thresholds, device=processes.device)
        self.ranks = ranks
        self.max_batches = max_batches
        self.prepare = prepare or Normalise(preprocessing).to(processes.device)

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, observe: Observer | None = None, watch: Watch | None = None
    ) -> dict[str, float]:
        """Validate a model in evaluation mode; its mode is restored.

        Args:
            model: takes prepared images, returns logits (N, num_classes).
            observe: called with each batch and its logits, for reports by class.
            watch: called once per batch, equally often in all processes; it may end the validation by an exception.

        Returns:
            The metrics of `METRICS`, such as `loss`, `top1` and `top5`, the number of `images`, and the metrics of
            `Rates`. What they follow from is then in `results`.
        """
        was_training = model.training
        model.eval()
        device = self.processes.device
        rates = Rates(device, self.processes.world_size)
        several = self.thresholds is not None
        scores = Scores(self.num_classes, chooses=several) if self.ranks else None
        sums = Sums(device, self.num_classes, scores)
        calls = iter([watch] * self._most_batches() if watch else ())
        with ProgressBar("validating", self._most_batches()) as progress:
            for batch in rates.over(islice(iter(self.loader), self.max_batches)):
                with rates.compute():
                    logits = self._logits(model, batch.images)
                targets = multi_hot(batch.targets, self.num_classes) if several else batch.targets
                sums.add(Answers(logits, targets, self.topk, self.thresholds))
                if observe is not None:
                    observe(batch, logits)
                for call in islice(calls, 1):
                    call()
                progress.advance(1)
        for call in calls:
            call()
        model.train(was_training)
        self.results = sums.results(self.processes, self.thresholds)
        return {**metrics_of(self.results, self.topk), **rates.summary()}

    def thresholds_found(self) -> list[float]:
        """Return the thresholds that the last validation has chosen; empty for images with one label."""
        chosen = None if self.results is None else self.results.chosen_thresholds
        return [] if chosen is None else [float(value) for value in chosen]

    @torch.no_grad()
    def answers(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return a model's logits float32 (N, num_classes) in evaluation mode for images uint8 (N, 3, H, W)."""
        was_training = model.training
        model.eval()
        logits = self._logits(model, images)
        model.train(was_training)
        return logits

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        with self.precision.autocast():
            logits: Tensor = model(self.prepare(images))
        return logits.float()

    def _most_batches(self) -> int:
        """Return the batches of the process with the most images, the first one."""
        images = -(-self.loader.num_images // self.processes.world_size)
        batches = -(-images // self.loader.batch_size)
        return batches if self.max_batches is None else min(batches, self.max_batches)


def settings_of(
    recipe: ResolvedRecipe, images: int, thresholds: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return the arguments of `Validator` that follow from a recipe.

    Args:
        recipe: settings.
        images: images of the validation set.
        thresholds: those that the weights bring along; None for none.
    """
    classes, several = recipe.model.num_classes, recipe.task.task == "multi"
    known = list(thresholds or ()) or [DEFAULT_THRESHOLD] * classes
    ranks = recipe.run.ranking_metrics
    needed = several or METRICS[recipe.schedule.best_metric].ranks
    return {
        "num_classes": classes,
        "topk": recipe.run.topk,
        "thresholds": known if several else None,
        "ranks": ranks == "on" or (ranks == "auto" and (needed or images * classes <= MOST_SCORES)),
        "max_batches": recipe.run.prof,
    }
