"""Validation after the epochs of a training, and what it finds out about the weights."""

from collections.abc import Iterator

from torch import nn

from effnet.training.best import Best
from effnet.training.confusion import ConfusionMatrix
from effnet.training.reporter import prefixed
from effnet.training.setup import Opened
from effnet.training.state import TrainingState
from effnet.training.validate import Watch
from effnet.weights import WeightsMetadata
from effnet.weights.confidence import Confidence


class Validations:
    """Validates the weights of a training, their running average, and the mean of the last epochs' weights.

    Args:
        opened: the run; without an open validation set nothing can be validated.

    Attributes:
        validator: runs a model over the validation set; None without one.
        confidence: of the weights as they are, by the prefix of their metrics; empty once they have changed.
        confusion: of the last validation of a run that trackers follow, this process's images by the same prefix.
    """

    def __init__(self, opened: Opened) -> None:
        self.validator = opened.validator()
        self.confidence: dict[str, Confidence] = {}
        self.confusion: dict[str, ConfusionMatrix] = {}
        self._opened = opened
        self._thresholds: dict[str, list[float]] = {}  # that the last validation has chosen

    def run(self, state: TrainingState, watch: Watch) -> dict[str, float]:
        """Validate at the end of an epoch.

        Args:
            state: of the training.
            watch: called between batches.

        Returns:
            Metrics `val.*`; with an average of the weights also `val_ema.*`; after the last epoch of a training with
            a mean of the last epochs' weights `val_avg.*`.
        """
        assert self.validator is not None, "the validation set is not open"
        state.average_buffers()
        metrics: dict[str, float] = {}
        self._thresholds = {}
        for prefix, network in self._models(state):
            observers = self._observers(prefix)
            found, confidence = self._opened.validate(self.validator, network, watch, observers)
            metrics |= prefixed(prefix, found)
            if self._opened.recipe.task.task == "multi":
                self._thresholds[prefix] = self.validator.thresholds_found()
            if confidence is not None:
                self.confidence[prefix] = confidence
        return metrics

    def _observers(self, prefix: str) -> list[ConfusionMatrix]:
        """Return what looks on when weights are validated."""
        opened = self._opened
        if not opened.recipe.run.track or opened.recipe.task.task == "multi":
            return []
        self.confusion[prefix] = ConfusionMatrix(opened.data.classes, opened.processes.device)
        return [self.confusion[prefix]]

    def whole_confusion(self) -> dict[str, ConfusionMatrix]:
        """Return `confusion` over all processes; all of them must call this, once."""
        for matrix in self.confusion.values():
            matrix.sum_over(self._opened.processes)
        return self.confusion

    def better_thresholds(self, metrics: dict[str, float], best: Best) -> list[float]:
        """Return the thresholds of the better weights, which an export takes; empty for images with one label."""
        found = best.find(metrics)
        return self._thresholds.get("val_ema" if found is not None and found[1] else "val", [])

    def mean_is_complete(self, state: TrainingState) -> bool:
        """Return True at the end of the last epoch of a training with a mean of the last epochs' weights."""
        return state.last is not None and state.progress.epoch + 1 == self._opened.recipe.schedule.epochs

    def metadata_of_mean(self) -> WeightsMetadata:
        """Return the metadata of the mean of the last epochs' weights."""
        return self._opened.metadata_with(self.confidence.get("val_avg"), self._thresholds.get("val_avg", ()))

    def _models(self, state: TrainingState) -> Iterator[tuple[str, nn.Module]]:
        """Yield the models to validate, by the prefix of their metrics."""
        yield "val", state.model
        if state.ema is not None:
            yield "val_ema", state.ema.module
        if self.mean_is_complete(state):
            assert state.last is not None
            yield "val_avg", state.last.module()
