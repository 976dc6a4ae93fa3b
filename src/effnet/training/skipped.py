"""Steps that are skipped because a value is not finite: counted and reported; too many in a row end the run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from effnet.runtime.log import RunLog
from effnet.runtime.processes import Processes
from effnet.training.divergence import DivergedError
from effnet.training.evidence import Evidence, EvidenceFinder, first_files


class Trained(NamedTuple):
    """Result of one batch, on the device.

    Attributes:
        loss: mean loss of this process's images, a float32 scalar.
        statistics: sum of the model's buffers after the batch, a float32 scalar that is finite only if all of them are.
        taken: bool scalar, True if the optimizer's step after this batch was taken; None where gradients were only
            accumulated.
        indices: int64 (N,) on the CPU: positions of this process's images in their split; None for images without one.
    """

    loss: Tensor
    statistics: Tensor
    taken: Tensor | None = None
    indices: Tensor | None = None


@dataclass(frozen=True)
class TrainedBatch:
    """`Trained` as the loop reports it.

    Attributes:
        number: position of the batch in the epoch, from 1.
        loss: mean loss over all processes.
        taken: as in `Trained`; all processes agree on it, since their gradients are sums over all.
        has_finite_statistics: True if the buffers of every process's model are finite after the batch.
        evidence: of this process's part.
    """

    number: int
    loss: float
    taken: bool | None
    has_finite_statistics: bool = True
    evidence: Evidence | None = None

    @property
    def is_skipped(self) -> bool:
        """True if a step ended here and was skipped."""
        return self.taken is False

    @property
    def fault(self) -> str | None:
        """The value that is not finite; None if the loss and BatchNorm's statistics are."""
        if not math.isfinite(self.loss):
            return "loss"
        return None if self.has_finite_statistics else "statistic"


def read_back(trained: Sequence[Trained], processes: Processes, last: int) -> list[TrainedBatch]:
    """Read results from the device, for which this waits.

    Args:
        trained: results of consecutive batches.
        processes: the processes of the run, all of which must call this.
        last: number of the last of the batches.
    """
    own = torch.stack([one.loss for one in trained])
    own_unsound = ~torch.stack([one.statistics for one in trained]).isfinite()
    summed = processes.sum(torch.stack([own, own_unsound.to(own.dtype)]))
    rows = torch.stack([*summed, own, own_unsound.to(own.dtype)], dim=1).tolist()
    flags = [one.taken for one in trained if one.taken is not None]
    taken = iter(torch.stack(flags).tolist() if flags else ())
    first = last - len(trained) + 1
    return [
        TrainedBatch(
            number,
            loss / processes.world_size,
            None if one.taken is None else next(taken),
            has_finite_statistics=unsound == 0,
            evidence=Evidence(number, own_loss, own_unsound == 0, one.indices),
        )
        for number, one, (loss, unsound, own_loss, own_unsound) in zip(
            range(first, last + 1), trained, rows, strict=True
        )
    ]


class _Fault(NamedTuple):
    """A bad step: the value that is not finite, the batch where that shows, and the batches that may be the cause."""

    value: str
    batch: TrainedBatch
    group: list[TrainedBatch]

    @property
    def words(self) -> str:
        if self.value == "loss":
            return f"the loss is {self.batch.loss}"
        return f"a {self.value}{' of BatchNorm' if self.value == 'statistic' else ''} is not finite"


class SkippedSteps:
    """Reports losses that are not finite and skipped steps, and ends a run with too many in a row.

    Args:
        log: where to report.
        limit: bad steps in a row that end the run.
        finder: finds the images of bad steps.
    """

    def __init__(self, log: RunLog, limit: int, finder: EvidenceFinder) -> None:
        self._log = log
        self._limit = limit
        self._finder = finder
        # True from a batch that was reported to the end of its step, lest the same fault is reported again.
        self._is_reported = False

    def watch(
        self, batches: Sequence[TrainedBatch], in_a_row: int, *, epoch: int, loss_scale: float | None
    ) -> int:
        """Report the bad steps of some batches; every process must call this.

        Args:
            batches: consecutive batches of an epoch, the last of which is the present one.
            in_a_row: bad steps immediately before them.
            epoch: their epoch, from 0.
            loss_scale: present loss scale; None without scaling.

        Returns:
            Bad steps in a row up to the last batch.

        Raises:
            DivergedError: as many as the limit in a row.
        """
        self._report_faults(self._faults(batches, scaled=loss_scale is not None), epoch)
        self._report_skipped(batches, epoch, loss_scale)
        for batch in batches:
            if batch.taken is None:
                continue
            is_bad = batch.is_skipped or not math.isfinite(batch.loss)
            in_a_row = in_a_row + 1 if is_bad else 0
            if in_a_row >= self._limit:
                raise DivergedError(
                    f"epoch {epoch + 1} step {batch.number}: the loss or a gradient was not finite in {in_a_row} steps "
                    f"in a row (--max-bad-steps); {_remedy(loss_scale)}"
                )
        return in_a_row

    def _faults(self, batches: Sequence[TrainedBatch], *, scaled: bool) -> list[_Fault]:
        """Return each bad step once. With a loss scale, gradients that overflow are a matter of the scale."""
        if batches[0].number == 1:
            self._is_reported = False
        faults: list[_Fault] = []
        group: list[TrainedBatch] = []
        for batch in batches:
            group.append(batch)
            if not self._is_reported:
                if batch.fault is not None:
                    faults.append(_Fault(batch.fault, batch, [batch]))
                    self._is_reported = True
                elif batch.is_skipped and not scaled:
                    faults.append(_Fault("gradient", batch, group))
            if batch.taken is not None:
                group, self._is_reported = [], False
        return faults

    def _report_faults(self, faults: Sequence[_Fault], epoch: int) -> None:
        if not faults:
            return
        evidence = [[one.evidence for one in fault.group if one.evidence is not None] for fault in faults]
        for fault, images in zip(faults, self._finder.find(evidence), strict=True):
            batch = fault.batch
            self._log.print(
                f"epoch {epoch + 1} step {batch.number}: {fault.words}; the step was left out"
                f"{first_files(images['batches'])}"
            )
            event = {"event": f"non-finite {fault.value}", "loss": batch.loss, **images}
            self._log.record("event", event, epoch=epoch, step=batch.number)

    def _report_skipped(self, batches: Sequence[TrainedBatch], epoch: int, loss_scale: float | None) -> None:
        steps = [batch.number for batch in batches if batch.is_skipped]
        if not steps:
            return
        if loss_scale is not None:  # otherwise each has its own line
            ended = sum(batch.taken is not None for batch in batches)
            self._log.print(
                f"epoch {epoch + 1} step {batches[-1].number}: {len(steps)} of the last {ended} steps left out, as a "
                f"gradient was not finite; the loss scale is {loss_scale:g} now"
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
