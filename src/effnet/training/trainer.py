"""The training loop."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from effnet.data import Batch, Loader
from effnet.data.mixup import Mix, epoch_mixes
from effnet.data.preprocessing import Preprocessing
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes, data_parallel
from effnet.training.best import Best
from effnet.training.checkpoint import CheckpointFiles, random_states, restore_random_states
from effnet.training.compilation import Recompilations, compiled, takes_cuda_graphs
from effnet.training.defaults import accumulation_steps
from effnet.training.ema import ModelEMA
from effnet.training.foreign_checkpoint import describe, is_foreign, training_state
from effnet.training.optimizer import FlatOptimizer
from effnet.training.rates import Rates, over_epochs
from effnet.training.schedule import learning_rate
from effnet.training.skipped import SkippedSteps, Trained, read_back
from effnet.training.step import TrainStep
from effnet.training.validate import Validator


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: finished epochs.
        step: optimizer steps done, those that were left out included.
        skipped_steps: of these, steps that were left out because a gradient was not finite.
        best_top1: best validation top-1 so far, in percent, of the weights or their average; below 0 for none.
        best_metric: name in the log of the metric that ``--best-metric`` names.
        best_value: its best value so far, of the weights or their average; None for none.
        best_is_ema: True if the average reached it.
        stale_epochs: epochs since then.
        bad_steps: steps in a row, up to now, that were left out.
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


class Trainer:
    """Trains a model as a recipe says.

    Args:
        recipe: resolved settings (`effnet.training.defaults.resolve`).
        model: the network on its device, in its memory format.
        train_loader: this process's share of every training batch.
        validator: validates after each epoch; None for none.
        preprocessing: mean and standard deviation of the input.
        precision: arithmetic of the forward pass.
        processes: who trains together.
        files: where checkpoints go; None writes none.
        log: where the run reports.
        metadata: what a checkpoint says of the model beside its weights, as plain values.
        given_recipe: the settings before they were resolved, for checkpoints: a resumed run resolves them anew.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        train_loader: Loader,
        validator: Validator | None,
        *,
        preprocessing: Preprocessing,
        precision: Precision,
        processes: Processes,
        files: CheckpointFiles | None,
        log: RunLog,
        metadata: Mapping[str, Any],
        given_recipe: Recipe,
    ) -> None:
        self.recipe = recipe
        self.given_recipe = given_recipe
        self.model = model
        self.loader = train_loader
        self.validator = validator
        self.preprocessing = preprocessing
        self.precision = precision
        self.processes = processes
        self.files = files
        self.log = log
        self.metadata = metadata
        self.best = Best.of(recipe.schedule.best_metric, recipe.run.topk)
        self.progress = Progress(best_metric=self.best.key)
        self._bad_images: dict[str, str] = {}
        self.accumulation = accumulation_steps(recipe, processes.world_size)
        self.steps_per_epoch = min(len(train_loader), recipe.run.prof or len(train_loader))
        self.optimizer = FlatOptimizer(model, recipe.optimizer)
        self._cuda_graphs = takes_cuda_graphs(recipe.compute, processes.device, processes.world_size)
        self._recompilations = Recompilations()
        self._skipped = SkippedSteps(log, recipe.compute.max_bad_steps)
        self._parallel: DistributedDataParallel | None = None
        self.step = self._build_step()
        # After the processes have taken over the first one's weights.
        self.ema = ModelEMA(model, recipe.optimizer.use_ema) if recipe.optimizer.use_ema else None

    def _build_step(self) -> nn.Module:
        step: nn.Module = TrainStep(
            self.model,
            self.preprocessing,
            num_classes=self.recipe.model.num_classes or 0,
            label_smoothing=self.recipe.optimizer.label_smoothing,
            precision=self.precision,
            mixes=self.recipe.data.mixup > 0,
        ).to(self.processes.device)
        if self.processes.world_size > 1:
            step = self._parallel = data_parallel(
                step, bucket_size=self.recipe.compute.bucket_size, accumulates=self.accumulation > 1
            )
        return compiled(step, cuda_graphs=self._cuda_graphs) if self.recipe.compute.compile else step

    def run(self) -> dict[str, float]:
        """Train until the epochs of this run are done; the metrics of the last epoch are returned."""
        schedule = self.recipe.schedule
        end = min(schedule.epochs, self.progress.epoch + (schedule.run_epochs or schedule.epochs))
        if self.recipe.run.prof:
            end = min(end, self.progress.epoch + 1)
        metrics: dict[str, float] = {}
        epochs: list[dict[str, float]] = []
        while self.progress.epoch < end and not self._stopped_early():
            metrics = self._prefixed("train", self.train_epoch())
            if self.validator is not None:
                metrics |= self.validate()
            self._finish_epoch(metrics)
            epochs.append(metrics)
        summary = {**over_epochs(epochs), "best_top1": self.progress.best_top1}
        if self.progress.best_value is not None:
            summary[f"best_{self.best.key}"] = self.progress.best_value
        self.log.record("summary", summary, epoch=self.progress.epoch)
        return metrics

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training set.

        Returns:
            `loss`, the mean over all batches, `lr` at the end, `skipped_steps`, the steps that were left out,
            `grad_scale`, the loss scale at the end (with loss scaling only), and the metrics of `Rates`.
        """
        self._train_mode()
        epoch = self.progress.epoch
        self.log.begin_epoch(epoch, self.recipe.schedule.epochs, self.steps_per_epoch)
        mixes = self.mixes(epoch)
        rates = Rates(self.processes.device, self.processes.world_size)
        trained: list[Trained] = []
        total, skipped_before = 0.0, self.progress.skipped_steps
        for number, batch in enumerate(rates.over(self._batches()), start=1):
            with rates.compute():
                trained.append(self.train_on(batch, mixes[number - 1], number))
            if number % self.recipe.run.print_freq == 0 or number == self.steps_per_epoch:
                total += self._report(trained, rates, number)
                trained.clear()
        self.log.end_epoch()
        return {
            "loss": total / self.steps_per_epoch,
            "lr": self._lr(self.steps_per_epoch),
            "skipped_steps": self.progress.skipped_steps - skipped_before,
            **self._grad_scale(),
            **rates.summary(),
        }

    def _train_mode(self) -> None:
        self.step.train()
        if self.recipe.model.freeze == "backbone":
            # A frozen backbone's BatchNorm keeps its statistics, and dropping its blocks would teach nothing.
            for name, part in self.model.named_children():
                part.train(name == "classifier")
        if self.progress.epoch >= self.recipe.schedule.epochs - self.recipe.quantization.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _batches(self) -> Iterator[Batch]:
        # Only a run to its end takes the loader on to the next epoch; --prof is not resumed.
        return islice(iter(self.loader), self.recipe.run.prof)

    def train_on(self, batch: Batch, mix: Mix, number: int) -> Trained:
        """One training step, as the loop does it: accumulate gradients, and update the weights when due.

        Args:
            batch: uint8 images and int64 targets on the device.
            mix: weight and partners of mixup, on the device; one of `mixes`.
            number: which batch of the epoch it is, from 1.
        """
        updates = number % self.accumulation == 0 or number == self.steps_per_epoch
        if not updates and self._parallel is not None:
            with self._parallel.no_sync():
                return Trained(self._backward(batch, mix, number))
        loss = self._backward(batch, mix, number)
        return Trained(loss, self._update(number) if updates else None)

    def _update(self, number: int) -> Tensor:
        self.optimizer.set_lr(self._lr(number - 1))
        taken = self.optimizer.step(self.precision.scaler)
        self.precision.update_scale()
        if self.ema is not None:
            self.ema.update(taken)
        self.progress.step += 1
        return taken

    def _backward(self, batch: Batch, mix: Mix, number: int) -> Tensor:
        if self._cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        loss = self.step(batch.images, batch.targets, mix)
        self.precision.scale(loss / self._group_size(number)).backward()
        # A graph's output lies in memory that the next replay writes.
        return loss.detach().clone() if self._cuda_graphs else loss.detach()

    def _group_size(self, number: int) -> int:
        """Batches whose gradients are averaged in the step that batch `number` is part of; fewer at the end."""
        first = (number - 1) // self.accumulation * self.accumulation
        return min(self.accumulation, self.steps_per_epoch - first)

    def mixes(self, epoch: int) -> list[Mix]:
        """Mixtures of an epoch's batches, on the device."""
        return epoch_mixes(
            self.recipe.data.mixup,
            self.recipe.compute.seed,
            epoch,
            rank=self.processes.rank,
            steps=self.steps_per_epoch,
            batch_size=self.recipe.optimizer.batch_size,
            device=self.processes.device,
        )

    def _lr(self, steps_done: int) -> float:
        epoch = self.progress.epoch + steps_done / self.steps_per_epoch
        return learning_rate(self.recipe.schedule, self.recipe.optimizer.lr or 0.0, epoch)

    def _report(self, trained: list[Trained], rates: Rates, number: int) -> float:
        """Log the batches since the last report, of which `number` is the last; gives the sum of their losses.

        Here, and only here, the loop waits for the device.
        """
        batches = read_back(trained, self.processes, number)
        skipped = sum(batch.is_skipped for batch in batches)
        self.progress.skipped_steps += skipped
        scale = self._grad_scale()
        if self.recipe.compute.compile and (graphs := self._recompilations.since_last_time()):
            self.log.print(f"epoch {self.progress.epoch + 1} step {number}: compiled again ({graphs} graphs)")
            event = {"event": "recompilation", "graphs": graphs}
            self.log.record("event", event, epoch=self.progress.epoch, step=number)
        data = {
            "loss": batches[-1].loss,
            "lr": self._lr(number - 1),
            "skipped_steps": skipped,
            **scale,
            **rates.window(),
        }
        self.log.iteration(
            self._prefixed("train", data), epoch=self.progress.epoch, step=number, steps=self.steps_per_epoch
        )
        # After the line above, so that a run which ends here has reported its last steps.
        self.progress.bad_steps = self._skipped.watch(
            batches, self.progress.bad_steps, epoch=self.progress.epoch, loss_scale=scale.get("grad_scale")
        )
        return sum(batch.loss for batch in batches)

    def _grad_scale(self) -> dict[str, float]:
        scale = self.precision.loss_scale()
        return {} if scale is None else {"grad_scale": scale}

    def validate(self) -> dict[str, float]:
        """Metrics `val.*` and, with EMA, `val_ema.*`."""
        assert self.validator is not None
        self.processes.average_buffers(self.model)
        metrics = self._prefixed("val", self.validator(self.model))
        if self.ema is not None:
            self.processes.average_buffers(self.ema.module)
            metrics |= self._prefixed("val_ema", self.validator(self.ema.module))
        return metrics

    def _finish_epoch(self, metrics: Mapping[str, float]) -> None:
        progress = self.progress
        progress.epoch += 1
        top1 = (metrics.get("val.top1", -1.0), metrics.get("val_ema.top1", -1.0))
        progress.best_top1 = max(*top1, progress.best_top1)
        found = self.best.find(metrics)
        is_best = found is not None and self.best.metric.is_better(found[0], progress.best_value)
        progress.stale_epochs = 0 if is_best else progress.stale_epochs + 1
        if is_best and found is not None:
            progress.best_value, progress.best_is_ema = found
        self._report_bad_images()
        self.log.record("epoch", metrics, epoch=progress.epoch - 1, step=progress.step)
        self.log.print(_epoch_line(progress.epoch, self.recipe.schedule.epochs, metrics))
        if self.files is not None and self.processes.is_main:
            self.files.save(self.state_dict(), is_best=is_best)
        self.processes.barrier()

    def _report_bad_images(self) -> None:
        if self.recipe.data.on_bad_image != "skip":
            return
        loaders = {"train": self.loader, **({"val": self.validator.loader} if self.validator else {})}
        for split, loader in loaders.items():
            left_out = self.processes.merge(loader.bad_images)
            if new := {name: reason for name, reason in left_out.items() if name not in self._bad_images}:
                self._bad_images |= new
                self.log.bad_images(split, new)

    def _stopped_early(self) -> bool:
        patience = self.recipe.schedule.early_stopping_patience
        if patience is None or self.progress.stale_epochs < patience:
            return False
        self.log.print(
            f"stopped: {self.best.key} has not improved for {patience} epochs (--early-stopping-patience)"
        )
        return True

    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint holds: tensors and plain values only."""
        return {
            "epoch": self.progress.epoch,
            "best_prec1": self.progress.best_top1,
            "arch": self.recipe.model.arch,
            "state_dict": self.model.state_dict(),
            **({"state_dict_ema": self.ema.module.state_dict()} if self.ema is not None else {}),
            "optimizer": self.optimizer.state_dict(),
            "loss_scaler": self.precision.scaler.state_dict(),
            "progress": asdict(self.progress),
            "loader": self.loader.state_dict(),
            "random_states": random_states(),
            "recipe": self.given_recipe.to_dict(),
            "resolved_recipe": self.recipe.to_dict(),
            "metadata": dict(self.metadata),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's content, the weights included.

        Raises:
            UserError: it is no checkpoint of such a training.
        """
        if is_foreign(state):
            assert isinstance(self.model, EfficientNet)
            self.log.print(describe(state, averages=self.ema is not None))
            updates = -(-self.steps_per_epoch // self.accumulation)
            foreign = training_state(state, self.model, self.optimizer.state_dict(), updates)
            state = {**self.state_dict(), **foreign}
        missing = {"state_dict", "optimizer", "progress", "loader"} - state.keys()
        if missing:
            raise UserError(
                f"no training state to resume ({', '.join(sorted(missing))} missing); "
                "for weights alone use --pretrained-from-file"
            )
        self.model.load_state_dict(state["state_dict"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state.get("state_dict_ema", state["state_dict"]))
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state["loss_scaler"])
        self.progress = Progress(**self.best.resumed(state["progress"]))
        if self.ema is not None:
            self.ema.set_step(self.progress.step - self.progress.skipped_steps)
        self.loader.load_state_dict(state["loader"])
        restore_random_states(state["random_states"])

    @staticmethod
    def _prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
        return {f"{prefix}.{name}": value for name, value in metrics.items()}


def _epoch_line(epoch: int, epochs: int, metrics: Mapping[str, float]) -> str:
    shown = {
        "train.loss": "train loss {:.4f}",
        "val.loss": "val loss {:.4f}",
        "val.top1": "top-1 {:.2f} %",
        "val.top5": "top-5 {:.2f} %",
        "val_ema.top1": "EMA top-1 {:.2f} %",
        "train.total_ips": "{:.0f} images/s",
    }
    parts = [words.format(metrics[name]) for name, words in shown.items() if name in metrics]
    return f"epoch {epoch}/{epochs}: {', '.join(parts)}"
