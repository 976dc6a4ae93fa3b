"""The way back from a training that has diverged: the last good state, with a lower learning rate."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from effnet.runtime.log import RunLog
from effnet.training.divergence import DivergedError
from effnet.training.state import TrainingState

LR_FACTOR = 0.5
MOST_ROLLBACKS = 3


class Rollback:
    """Keeps the last good state of a training in the CPU's memory, and goes back to it.

    Every process keeps its own, so that going back reads no file: a checkpoint of the middle of an epoch may have been
    written when the training was diverging already.

    Args:
        log: where to report.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._good: dict[str, Any] | None = None

    def remember(self, state: TrainingState) -> None:
        """Keep a copy of a good state."""
        self._good = _copied(state.own_state_dict())

    def go_back(self, state: TrainingState, reason: DivergedError) -> None:
        """Restore the good state and lower the learning rate.

        Args:
            state: state of the training, which is restored.
            reason: why it can't go on.

        Raises:
            DivergedError: `reason`, if the training has been here too often.
        """
        before = state.progress
        if self._good is None or before.rollbacks >= MOST_ROLLBACKS:
            raise reason
        state.load_state_dict(self._good)
        progress = state.progress
        progress.rollbacks = before.rollbacks + 1
        progress.lr_factor = before.lr_factor * LR_FACTOR
        self._log.print(
            f"{reason}; back to the end of epoch {progress.epoch} with {progress.lr_factor:g} times the learning rate "
            f"(--on-nan rollback, {progress.rollbacks} of {MOST_ROLLBACKS})"
        )
        event = {"event": "rollback", "reason": str(reason), "lr_factor": progress.lr_factor}
        self._log.record("event", event, epoch=progress.epoch, step=progress.step)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
