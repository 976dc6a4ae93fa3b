"""The rules by which a training counts as diverged, and the error that ends it."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.processes import Processes

# Of a batch whose loss is 100,000 times the limit or more; three such batches in a row reach `_DIVERGED`.
_MOST = 5.0
_DIVERGED = 15.0
_VALIDATIONS = 3
_SMALLEST_LOSS = 1e-30


class DivergedError(UserError):
    """The training can't go on from its present state: it has diverged, or skips one step after the other."""


class Divergence:
    """Decides from losses and weights if a training has diverged.

    The limit of a loss is `factor` times that of a uniform guess, log(classes) or, with several labels, log(2). A
    score starts at 0; each batch adds log10(loss / limit), at most 5, and the score never falls below 0. At 15 the
    training has diverged. So single batches above the limit are forgiven, as a usual loss lowers the score by 1 and
    more, while three losses in a row of 100,000 times the limit are enough, or 22 of five times the limit. Losses
    that are not finite count for `SkippedSteps`, not here.

    Args:
        log: where to report.
        guess: loss of a uniform guess.
        factor: limit of a loss as a multiple of a uniform guess's, which counts as 1 at least; 0 for no limit.
    """

    def __init__(self, log: RunLog, guess: float, factor: float) -> None:
        self._log = log
        self._uniform = guess
        self._limit = factor * max(1.0, self._uniform)

    def watch(self, losses: Sequence[float], score: float, *, epoch: int, last: int) -> float:
        """Add the losses of some batches to the score.

        Args:
            losses: mean losses of consecutive batches of an epoch.
            score: score before them.
            epoch: their epoch, from 0.
            last: number of the last of them, from 1.

        Returns:
            The score after them.

        Raises:
            DivergedError: the training has diverged.
        """
        for number, loss in enumerate(losses, start=last - len(losses) + 1):
            if not (self._limit and math.isfinite(loss)):
                continue
            score = max(0.0, score + min(_MOST, math.log10(max(loss, _SMALLEST_LOSS) / self._limit)))
            if score >= _DIVERGED:
                raise DivergedError(
                    f"epoch {epoch + 1} step {number}: the training has diverged: the loss is {loss:.4g}, that of a "
                    f"uniform guess {self._uniform:.3g}; lower --lr (--divergence-factor 0 trains on all the same)"
                )
        return score

    def validated(self, metrics: Mapping[str, float], in_a_row: int, *, epoch: int) -> int:
        """Report a validation loss of the weights that is not finite.

        Args:
            metrics: of the epoch; with `val.loss` if it was validated.
            in_a_row: such epochs immediately before.
            epoch: the epoch, from 0.

        Returns:
            Such epochs in a row up to this one.

        Raises:
            DivergedError: too many in a row.
        """
        loss = metrics.get("val.loss", 0.0)
        if math.isfinite(loss):
            return 0
        self._log.print(f"epoch {epoch + 1}: the validation loss is {loss}, so the epoch can't be the best")
        self._log.record("event", {"event": "non-finite validation", "loss": loss}, epoch=epoch)
        if in_a_row + 1 == _VALIDATIONS:
            raise DivergedError(
                f"epoch {epoch + 1}: the validation loss was not finite in {_VALIDATIONS} epochs in a row; lower --lr, "
                "or use --precision bf16 or fp32"
            )
        return in_a_row + 1


def check_validation(bad: int) -> None:
    """Make sure that a training that is done has a validation loss.

    Args:
        bad: epochs in a row, up to the last one, whose validation loss was not finite.

    Raises:
        DivergedError: there are any.
    """
    if bad:
        raise DivergedError(
            "the validation loss of the last epoch is not finite; lower --lr, or use --precision bf16 or fp32"
        )


def check_weights(tensors: Iterable[Tensor], processes: Processes, epoch: int) -> None:
    """Make sure that weights are finite, for which this waits; every process must call it.

    Args:
        tensors: floating-point weights and buffers on this process's device.
        processes: the processes of the run.
        epoch: the epoch that they were trained in, from 0.

    Raises:
        DivergedError: an element is not finite in some process.
    """
    unsound = ~torch.stack([tensor.sum(dtype=torch.float64).isfinite() for tensor in tensors]).all()
    if processes.max(unsound.to(torch.float32)).item():
        raise DivergedError(
            f"epoch {epoch + 1}: the training has diverged: the weights are not finite; lower --lr"
        )


def is_sound(metrics: Mapping[str, float], score: float) -> bool:
    """Return True if an epoch may be the best: all its losses are finite, and it did not end above the limit.

    Args:
        metrics: of the epoch, such as `train.loss` and `val.loss`.
        score: `Divergence`'s at its end.
    """
    losses = [value for name, value in metrics.items() if name.endswith(".loss")]
    return score == 0 and all(math.isfinite(loss) for loss in losses)
