"""Steps that are skipped because a gradient is not finite: counted and reported; too many in a row end the run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.processes import Processes


class Trained(NamedTuple):
    """Result of one batch, on the device.

    Attributes:
        loss: mean loss of this process's images, a float32 scalar.
        taken: bool scalar, True if the optimizer's step after this batch was taken; None where gradients were only
            accumulated.
    """

    loss: Tensor
    taken: Tensor | None = None


@dataclass(frozen=True)
class TrainedBatch:
    """`Trained` as the loop reports it.

    Attributes:
        number: position of the batch in the epoch, from 1.
        loss: mean loss over all processes.
        taken: as in `Trained`; all processes agree on it, since their gradients are sums over all.
    """

    number: int
    loss: float
    taken: bool | None

    @property
    def is_skipped(self) -> bool:
        """True if a step ended here and was skipped."""
        return self.taken is False


def read_back(trained: Sequence[Trained], processes: Processes, last: int) -> list[TrainedBatch]:
    """Read results from the device, for which this waits.

    Args:
        trained: results of consecutive batches.
        processes: the processes of the run, all of which must call this.
        last: number of the last of the batches.
    """
    losses = processes.sum(torch.stack([one.loss for one in trained])) / processes.world_size
    flags = [one.taken for one in trained if one.taken is not None]
    taken = iter(torch.stack(flags).tolist() if flags else ())
    return [
        TrainedBatch(number, loss, None if one.taken is None else next(taken))
        for number, loss, one in zip(
            range(last - len(trained) + 1, last + 1), losses.tolist(), trained, strict=True
        )
    ]


class SkippedSteps:
    """Reports losses that are not finite and skipped steps, and ends a run with too many in a row.

    Args:
        log: where to report.
        limit: bad steps in a row that end the run.
    """

    def __init__(self, log: RunLog, limit: int) -> None:
        self._log = log
        self._limit = limit

    def watch(
        self, batches: Sequence[TrainedBatch], in_a_row: int, *, epoch: int, loss_scale: float | None
    ) -> int:
        """Report the bad steps of some batches.

        Args:
            batches: consecutive batches of an epoch, the last of which is the present one.
            in_a_row: bad steps immediately before them.
            epoch: their epoch, from 0.
            loss_scale: present loss scale; None without scaling.

        Returns:
            Bad steps in a row up to the last batch.

        Raises:
            UserError: as many as the limit in a row.
        """
        self._report_losses(batches, epoch)
        self._report_skipped(batches, epoch, loss_scale)
        for batch in batches:
            if batch.taken is None:
                continue
            is_bad = batch.is_skipped or not math.isfinite(batch.loss)
            in_a_row = in_a_row + 1 if is_bad else 0
            if in_a_row >= self._limit:
                raise UserError(
                    f"epoch {epoch + 1} step {batch.number}: the loss or a gradient was not finite in {in_a_row} steps "
                    f"in a row (--max-bad-steps); {_remedy(loss_scale)}"
                )
        return in_a_row

    def _report_losses(self, batches: Sequence[TrainedBatch], epoch: int) -> None:
        for batch in batches:
            if not math.isfinite(batch.loss):
                left_out = "; the step was left out" if batch.is_skipped else ""
                self._log.print(f"epoch {epoch + 1} step {batch.number}: the loss is {batch.loss}{left_out}")
                event = {"event": "non-finite loss", "loss": batch.loss}
                self._log.record("event", event, epoch=epoch, step=batch.number)

    def _report_skipped(self, batches: Sequence[TrainedBatch], epoch: int, loss_scale: float | None) -> None:
        steps = [batch.number for batch in batches if batch.is_skipped]
        if not steps:
            return
        ended = sum(batch.taken is not None for batch in batches)
        scale = "" if loss_scale is None else f"; the loss scale is {loss_scale:g} now"
        self._log.print(
            f"epoch {epoch + 1} step {batches[-1].number}: {len(steps)} of the last {ended} steps left out, as a "
            f"gradient was not finite{scale}"
        )
        event = {"event": "skipped steps", "steps": steps, "grad_scale": loss_scale}
        self._log.record("event", event, epoch=epoch, step=batches[-1].number)


def _remedy(loss_scale: float | None) -> str:
    if loss_scale is None:
        return "lower --lr, or look at the data"
    return (
        f"lower --lr or, from {loss_scale:g}, --static-loss-scale or --initial-loss-scale, use --precision bf16, "
        "or look at the data"
    )
