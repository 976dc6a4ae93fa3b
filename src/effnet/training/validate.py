"""Loss and accuracy over a validation set, every image counted once."""

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from effnet.data import Batch, Loader
from effnet.data.preprocessing import Preprocessing
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.training.metrics import METRICS, Answers
from effnet.training.rates import Rates
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
        topk: k of the second accuracy.
        max_batches: batches of this process to take; None for all.
        prepare: what the model takes of images uint8 (N, 3, H, W); None to normalise them.
    """

    def __init__(
        self,
        loader: Loader,
        preprocessing: Preprocessing,
        precision: Precision,
        processes: Processes,
        *,
        topk: int = 5,
        max_batches: int | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.loader = loader
        self.precision = precision
        self.processes = processes
        self.topk = topk
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
            `Rates`.
        """
        was_training = model.training
        model.eval()
        device = self.processes.device
        rates = Rates(device, self.processes.world_size)
        sums = Sums(device)
        calls = iter([watch] * self._most_batches() if watch else ())
        for batch in rates.over(islice(iter(self.loader), self.max_batches)):
            with rates.compute():
                logits = self._logits(model, batch.images)
            sums.add(Answers(logits, batch.targets, self.topk))
            if observe is not None:
                observe(batch, logits)
            for call in islice(calls, 1):
                call()
        for call in calls:
            call()
        model.train(was_training)
        return {**sums.metrics(self.processes, self.topk), **rates.summary()}

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


class Sums:
    """Sums of the metrics over a validation set; adding to them does not wait for the device.

    Args:
        device: the device of the answers.
    """

    def __init__(self, device: torch.device) -> None:
        self._images = 0
        self._totals = torch.zeros(len(METRICS), dtype=torch.float64, device=device)

    def add(self, answers: Answers) -> None:
        """Add a batch."""
        self._images += len(answers.targets)
        self._totals += torch.stack([metric.total(answers).double() for metric in METRICS.values()])

    def metrics(self, processes: Processes, topk: int) -> dict[str, float]:
        """Return the metrics over the images of all processes by their names in the log, and `images`."""
        count = self._totals.new_tensor([self._images])
        *totals, images = processes.sum(torch.cat([self._totals, count])).tolist()
        values = {
            metric.key(topk): metric.scale * total / images
            for metric, total in zip(METRICS.values(), totals, strict=True)
        }
        return {**values, "images": images}
