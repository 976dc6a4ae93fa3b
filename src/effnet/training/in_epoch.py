"""Progress within an epoch: what the loop has trained and not yet counted as a finished epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from effnet.training.skipped import Trained


@dataclass
class InEpoch:
    """Progress within the epoch that is being trained.

    Attributes:
        batches: batches of each process trained so far.
        loss: sum of the losses reported so far, each the mean over all processes.
        skipped_steps: skipped steps reported so far.
        metrics: metrics of the epoch's training once that is done and validation is to follow; empty before.
        unreported: this process's results of the batches since the last report, on the device.
    """

    batches: int = 0
    loss: float = 0.0
    skipped_steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    unreported: list[Trained] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return the part that all processes have in common, as plain values."""
        return {
            "batches": self.batches,
            "loss": self.loss,
            "skipped_steps": self.skipped_steps,
            "metrics": dict(self.metrics),
        }

    def local_state(self) -> list[dict[str, Any]]:
        """Return `unreported` as mappings of tensors."""
        return [trained._asdict() for trained in self.unreported]

    @classmethod
    def restored(
        cls, state: Mapping[str, Any], local: Sequence[Mapping[str, Any]], device: torch.device
    ) -> "InEpoch":
        """Return what `state_dict` and `local_state` describe.

        Args:
            state: of all processes; empty for the start of an epoch.
            local: of this process.
            device: device of the results.
        """
        return cls(**state, unreported=[_on(device, entry) for entry in local])

    def unreported_skips(self) -> int:
        """Return the skipped steps that are not in a report yet; waits for the device."""
        return sum(trained.taken is not None and not trained.taken for trained in self.unreported)


def _on(device: torch.device, entry: Mapping[str, Any]) -> Trained:
    return Trained(
        **{
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in entry.items()
        }
    )
