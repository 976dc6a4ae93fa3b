"""The state of a training: everything that a resumed run needs to go on as if it had not been interrupted."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from effnet.data import Loader
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.runtime.precision import Precision
from effnet.training.best import Best
from effnet.training.divergence import is_sound
from effnet.training.ema import ModelEMA
from effnet.training.optimizer import FlatOptimizer


@dataclass
class Progress:
    """Progress of a training.

    Attributes:
        epoch: finished epochs.
        step: optimizer steps done, those that were skipped included.
        skipped_steps: of these, steps that were skipped because a gradient was not finite.
        best_top1: best validation top-1 accuracy so far, in percent, of the weights or their average; below 0 for none.
        best_metric: name in the log of the metric that ``--best-metric`` names.
        best_value: its best value so far, of the weights or their average; None for none.
        best_is_ema: True if the average reached it.
        stale_epochs: epochs since then.
        bad_steps: steps in a row, up to now, that were skipped or whose loss was not finite.
        bad_validations: epochs in a row, up to now, whose validation loss was not finite.
        divergence: score of `effnet.training.divergence.Divergence` after the last batch that was read.
        rollbacks: times that the training has gone back to an earlier state.
        lr_factor: factor of the learning rate, which each of them lowers.
    """

    epoch: int = 0
    step: int = 0
    skipped_steps: int = 0
    best_top1: float = -1.0
    best_metric: str = "top1"
    best_value: float | None = None
    best_is_ema: bool = False
    stale_epochs: int = 0
    bad_steps: int = 0
    bad_validations: int = 0
    divergence: float = 0.0
    rollbacks: int = 0
    lr_factor: float = 1.0

    def finish_epoch(self, metrics: Mapping[str, float], best: Best) -> bool:
        """Count an epoch and compare it with the best one.

        Args:
            metrics: of the epoch; with `val.*` and `val_ema.*` where it was validated.
            best: metric that decides.

        Returns:
            True if it is the best epoch so far; never for one with a loss that is not finite, or that ended with losses
            far above those of a guess.
        """
        self.epoch += 1
        found = None
        if is_sound(metrics, self.divergence):
            found = best.find(metrics)
            self.best_top1 = max(
                self.best_top1, *(metrics.get(f"{name}.top1", -1.0) for name in ("val", "val_ema"))
            )
        if found is None or not best.metric.is_better(found[0], self.best_value):
            self.stale_epochs += 1
            return False
        self.stale_epochs = 0
        self.best_value, self.best_is_ema = found
        return True


@dataclass
class TrainingState:
    """Objects that change while a model is trained; saved and restored as one.

    Attributes:
        model: the network.
        ema: average of its weights; None without one.
        optimizer: holds the momenta.
        precision: holds the loss scale.
        loader: holds the position in the training set.
        best: metric that decides which epoch is the best.
        progress: epochs and steps done, and the best epoch's value.
    """

    model: EfficientNet
    ema: ModelEMA | None
    optimizer: FlatOptimizer
    precision: Precision
    loader: Loader
    best: Best
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(best_metric=self.best.key)

    def floating_tensors(self) -> list[Tensor]:
        """Return the weights, statistics and averages, where a value that is not finite ruins the model."""
        models = [self.model] if self.ema is None else [self.model, self.ema.module]
        return [
            tensor for model in models for tensor in model.state_dict().values() if tensor.is_floating_point()
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""
        return {
            "epoch": self.progress.epoch,
            "best_prec1": self.progress.best_top1,
            "state_dict": self.model.state_dict(),
            **({"state_dict_ema": self.ema.module.state_dict()} if self.ema is not None else {}),
            "optimizer": self.optimizer.state_dict(),
            "loss_scaler": self.precision.scaler.state_dict(),
            "progress": asdict(self.progress),
            "loader": self.loader.state_dict(),
            "random_states": random_states(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned. An average that it lacks starts from its weights.

        Raises:
            UserError: an entry is missing, or belongs to another model or optimizer.
        """
        if missing := {"state_dict", "optimizer", "progress", "loader"} - state.keys():
            raise UserError(
                f"no training state to resume ({', '.join(sorted(missing))} missing); "
                "for weights alone use --pretrained-from-file"
            )
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state["loss_scaler"])
        self.progress = Progress(**self.best.resumed(state["progress"]))
        if self.ema is not None:
            self.ema.module.load_state_dict(state.get("state_dict_ema", state["state_dict"]))
            self.ema.set_step(self.progress.step - self.progress.skipped_steps)
        self.loader.load_state_dict(state["loader"])
        restore_random_states(state["random_states"])


def random_states() -> dict[str, Any]:
    """Return the state of PyTorch's generators. Samples and mixup have none: they depend on seed, epoch and index."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Restore what `random_states` returned; the state of an absent device is ignored."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
