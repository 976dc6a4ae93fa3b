"""Loss and accuracy over a validation set, every image counted once."""

from collections.abc import Callable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.data import Batch, Loader
from effnet.data.preprocessing import Preprocessing
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.training.metrics import Rates, count_correct
from effnet.training.step import Normalise

Observer = Callable[[Batch, Tensor], None]


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
    def __call__(self, model: nn.Module, observe: Observer | None = None) -> dict[str, float]:
        """Metrics of `model` in eval mode; its mode is restored.

        Args:
            model: takes prepared images, gives logits (N, num_classes).
            observe: called with each batch and its logits, for reports by class.

        Returns:
            `loss` (mean cross entropy), `top1` and `top5` (or another k) in percent, and the metrics of `Rates`.
        """
        was_training = model.training
        model.eval()
        device = self.processes.device
        rates = Rates(device, self.processes.world_size)
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros(2, dtype=torch.int64, device=device)
        images = 0
        for batch in rates.over(islice(iter(self.loader), self.max_batches)):
            with rates.compute():
                with self.precision.autocast():
                    logits = model(self.prepare(batch.images))
                logits = logits.float()
            loss_sum += F.cross_entropy(logits, batch.targets, reduction="sum")
            correct += count_correct(logits, batch.targets, (1, self.topk))
            images += len(batch.targets)
            if observe is not None:
                observe(batch, logits)
        model.train(was_training)
        return {**self._totals(loss_sum, correct, images), **rates.summary()}

    def _totals(self, loss_sum: Tensor, correct: Tensor, images: int) -> dict[str, float]:
        count = torch.tensor([images], dtype=torch.float64, device=correct.device)
        totals = self.processes.sum(torch.cat([loss_sum[None], correct.double(), count]))
        loss, top1, topk, total = totals.tolist()
        return {
            "loss": loss / total,
            "top1": 100 * top1 / total,
            f"top{self.topk}": 100 * topk / total,
            "images": total,
        }
