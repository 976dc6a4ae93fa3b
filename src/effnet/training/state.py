"""The state of a training: everything that a resumed run needs to go on as if it had not been interrupted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from effnet.data import Loader
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.training.best import Best
from effnet.training.divergence import is_sound
from effnet.training.ema import ModelEMA
from effnet.training.in_epoch import InEpoch
from effnet.training.last_average import LastAverage
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
        bad_images: images left out that the log lists already.
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
    bad_images: list[str] = field(default_factory=list)
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
    """Objects that change while a model is trained; saved and restored as one, after any step of the optimizer.

    PyTorch's generators are not among them: each step seeds them (`effnet.training.generators`).

    Attributes:
        model: the network.
        ema: average of its weights; None without one.
        last: mean of its weights at the ends of the last epochs; None without one.
        optimizer: holds the momenta.
        precision: holds the loss scale.
        loader: holds the position in the training set.
        best: metric that decides which epoch is the best.
        processes: the processes of the run.
        layout: division of an epoch into batches and steps, by name. Within an epoch no other one can go on.
        progress: epochs and steps done, and the best epoch's value.
        in_epoch: progress within the present epoch.
        metrics: metrics of the last finished epoch.
        thresholds: probability of each class from which on an image has the label, chosen in the last validation; empty
            for images with one label, and before there was one.
        buffers_differ: BatchNorm's statistics are those of each process's own images, as they are after a step until
            validation averages them.
    """

    model: EfficientNet
    ema: ModelEMA | None
    last: LastAverage | None
    optimizer: FlatOptimizer
    precision: Precision
    loader: Loader
    best: Best
    processes: Processes
    layout: Mapping[str, int]
    progress: Progress = field(init=False)
    in_epoch: InEpoch = field(init=False, default_factory=InEpoch)
    metrics: dict[str, float] = field(init=False, default_factory=dict)
    thresholds: list[float] = field(init=False, default_factory=list)
    buffers_differ: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.progress = Progress(best_metric=self.best.key)

    def floating_tensors(self) -> list[Tensor]:
        """Return the weights, statistics and averages, where a value that is not finite ruins the model."""
        models = [self.model] if self.ema is None else [self.model, self.ema.module]
        return [
            tensor for model in models for tensor in model.state_dict().values() if tensor.is_floating_point()
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values. Every process must call this; the main one's is complete."""
        return {**self._common_state(), "processes": self.processes.collect(self._local_state())}

    def own_state_dict(self) -> dict[str, Any]:
        """Return the state as this process alone can restore it; no other process need call this."""
        return {**self._common_state(), "processes": [self._local_state()] * self.processes.world_size}

    def _common_state(self) -> dict[str, Any]:
        """Return the state that is the same in every process, and this one's position and statistics."""
        return {
            "epoch": self.progress.epoch,
            "best_prec1": self.progress.best_top1,
            "state_dict": self.model.state_dict(),
            **({"state_dict_ema": self.ema.module.state_dict()} if self.ema is not None else {}),
            **(
                {"average_last": self.last.state_dict()} if self.last is not None and self.last.epochs else {}
            ),
            "optimizer": self.optimizer.state_dict(),
            "loss_scaler": self.precision.scaler.state_dict(),
            "progress": asdict(self.progress),
            "loader": self.loader.state_dict(),
            "layout": dict(self.layout),
            "in_epoch": self.in_epoch.state_dict(),
            "metrics": dict(self.metrics),
            **({"thresholds": list(self.thresholds)} if self.thresholds else {}),
        }

    def _local_state(self) -> dict[str, Any]:
        """Return what each process has for itself: position, results not yet reported, and BatchNorm's statistics."""
        local = {"loader": self.loader.state_dict(), "unreported": self.in_epoch.local_state()}
        if self.buffers_differ:
            local |= {name: _statistics(module) for name, module in self._averaged_modules().items()}
        return local if self.processes.world_size == 1 else tree_map_only(Tensor, Tensor.cpu, local)

    def _averaged_modules(self) -> dict[str, nn.Module]:
        """Return the modules whose statistics are averaged over the processes."""
        ema = {} if self.ema is None else {"ema_buffers": self.ema.module}
        return {"buffers": self.model, **ema}

    def average_buffers(self) -> None:
        """Average BatchNorm's statistics over all processes, unless that is done."""
        if self.buffers_differ:
            for module in self._averaged_modules().values():
                self.processes.average_buffers(module)
        self.buffers_differ = False

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned. An average that it lacks starts from its weights.

        Statistics of the end of an epoch that was not validated, written by another number of processes, are those of
        the first one for all.

        Raises:
            UserError: an entry is missing, or belongs to another model or optimizer.
            UserError: the state is from within an epoch of another layout.
        """
        if missing := {"state_dict", "optimizer", "progress", "loader"} - state.keys():
            raise UserError(
                f"no training state to resume ({', '.join(sorted(missing))} missing); "
                "for weights alone use --pretrained-from-file"
            )
        self._check_layout(state)
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state["loss_scaler"])
        self.progress = Progress(**self.best.resumed(state["progress"]))
        self.metrics = dict(state.get("metrics", {}))
        self.thresholds = list(state.get("thresholds", ()))
        if self.ema is not None:
            self.ema.module.load_state_dict(state.get("state_dict_ema", state["state_dict"]))
        if self.last is not None:
            self.last.load_state_dict(state.get("average_last"))
        self._load_local_state(state)
        if self.ema is not None:
            skipped = self.progress.skipped_steps + self.in_epoch.unreported_skips()
            self.ema.set_step(self.progress.step - skipped)

    def _load_local_state(self, state: Mapping[str, Any]) -> None:
        every: Sequence[Mapping[str, Any]] = state.get("processes", ())
        same = len(every) == self.processes.world_size
        local = every[self.processes.rank] if same else {}
        self.loader.load_state_dict(local.get("loader", state["loader"]))
        self.in_epoch = InEpoch.restored(
            state.get("in_epoch", {}), local.get("unreported", ()), self.precision.device
        )
        self.buffers_differ = "buffers" in local
        for name, module in self._averaged_modules().items():
            for key, value in local.get(name, {}).items():
                module.get_buffer(key).copy_(value)

    def _check_layout(self, state: Mapping[str, Any]) -> None:
        if not state.get("in_epoch", {}).get("batches") or state["layout"] == self.layout:
            return
        then, now = (
            ", ".join(f"{number} {name}" for name, number in layout.items())
            for layout in (state["layout"], self.layout)
        )
        raise UserError(
            f"--resume: the checkpoint is from within an epoch of {then}; this run has {now}. Go on with the same, or "
            "from a checkpoint of an epoch's end such as model_best.pth.tar"
        )


def _statistics(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
