"""The best value of the metric that ``--best-metric`` names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effnet.training.metrics import METRICS, Metric


@dataclass(frozen=True)
class Best:
    """The metric that decides which epoch of a training is the best.

    Attributes:
        metric: the metric.
        key: its name in the log, such as `top5`.
    """

    metric: Metric
    key: str

    @classmethod
    def of(cls, name: str, topk: int) -> "Best":
        """Make it from the settings ``--best-metric`` and ``--topk``."""
        metric = METRICS[name]
        return cls(metric, metric.key(topk))

    def find(self, metrics: Mapping[str, float]) -> tuple[float, bool] | None:
        """Find the better value of the weights and of their average.

        Args:
            metrics: an epoch's metrics, such as `val.top1` and `val_ema.top1`.

        Returns:
            The value, and True if the average has it, as it does where both are equal; None without a value.
        """
        own, average = (metrics.get(f"{prefix}.{self.key}") for prefix in ("val", "val_ema"))
        if average is not None and (own is None or not self.metric.is_better(own, average)):
            return average, True
        return None if own is None else (own, False)

    def resumed(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """Return a checkpoint's progress with its best value in this metric.

        A checkpoint without one knows the best top-1 accuracy. If the best value is of another metric, the next
        validated epoch is the best again.
        """
        known = dict(progress)
        if "best_metric" not in known:
            top1 = known.get("best_top1", -1.0)
            known |= {"best_metric": "top1", "best_value": top1 if top1 >= 0 else None}
        if known["best_metric"] != self.key:
            known |= {"best_metric": self.key, "best_value": None, "stale_epochs": 0}
        return known
