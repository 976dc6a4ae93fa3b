"""The training loop."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from effnet.data import Batch
from effnet.data.mixup import Mix, epoch_mixes
from effnet.runtime.log import RunLog
from effnet.runtime.processes import data_parallel
from effnet.training.best import Best
from effnet.training.checkpoint import CheckpointFiles
from effnet.training.compilation import compiled, takes_cuda_graphs
from effnet.training.content import resuming
from effnet.training.ema import ModelEMA
from effnet.training.foreign_checkpoint import describe, is_foreign, training_state, with_our_names
from effnet.training.optimizer import FlatOptimizer
from effnet.training.rates import Rates, over_epochs
from effnet.training.reporter import Reporter, prefixed
from effnet.training.schedule import learning_rate
from effnet.training.setup import Opened
from effnet.training.skipped import SkippedSteps, Trained, read_back
from effnet.training.state import TrainingState
from effnet.training.step import TrainStep


class Trainer:
    """Trains the model of an opened run as its recipe says.

    Args:
        opened: the run, whose training set must be open; without an open validation set there is no validation.
        log: where the training reports.
        files: where checkpoints go; None writes none.

    Attributes:
        state: everything that changes while the model is trained.
        step: the training step: images and targets in, loss out.
        accumulation: batches of each process in a step of the optimizer.
        steps_per_epoch: batches of each process in an epoch.
        best: metric that decides which epoch is the best.
        files: where checkpoints go.
    """

    def __init__(self, opened: Opened, log: RunLog, files: CheckpointFiles | None = None) -> None:
        recipe, model, loader = opened.recipe, opened.model, opened.data.train
        assert loader is not None, "the training set is not open"
        self.opened = opened
        self.recipe = recipe
        self.processes = opened.processes
        self.precision = opened.precision
        self.validator = opened.validator()
        self.loader = loader
        self.accumulation = recipe.optimizer.accumulation(self.processes.world_size)
        self.steps_per_epoch = min(len(loader), recipe.run.prof or len(loader))
        self.files = files
        self._report = Reporter(
            log,
            epochs=recipe.schedule.epochs,
            steps_per_epoch=self.steps_per_epoch,
            compiled=recipe.compute.compile,
        )
        self._skipped = SkippedSteps(log, recipe.compute.max_bad_steps)
        self._cuda_graphs = takes_cuda_graphs(
            recipe.compute, self.processes.device, self.processes.world_size
        )
        self._parallel: DistributedDataParallel | None = None
        optimizer = FlatOptimizer(model, recipe.optimizer, model.get_classifier())
        self.step = self._build_step()
        # The average starts after the processes have taken over the first one's weights.
        ema = None if recipe.optimizer.use_ema is None else ModelEMA(model, recipe.optimizer.use_ema)
        self.best = Best.of(recipe.schedule.best_metric, recipe.run.topk)
        self.state = TrainingState(model, ema, optimizer, self.precision, loader, self.best)

    def _build_step(self) -> nn.Module:
        recipe = self.recipe
        step: nn.Module = TrainStep(
            self.opened.model,
            self.opened.preprocessing,
            num_classes=recipe.model.num_classes,
            label_smoothing=recipe.optimizer.label_smoothing,
            precision=self.precision,
            mixes=recipe.data.mixup > 0,
        ).to(self.processes.device)
        if self.processes.world_size > 1:
            step = self._parallel = data_parallel(
                step, bucket_size=recipe.compute.bucket_size, accumulates=self.accumulation > 1
            )
        return compiled(step, cuda_graphs=self._cuda_graphs) if recipe.compute.compile else step

    def run(self) -> dict[str, float]:
        """Train until the epochs of this run are done, and return the metrics of the last epoch."""
        schedule, progress = self.recipe.schedule, self.state.progress
        end = min(schedule.epochs, progress.epoch + schedule.run_epochs)
        if self.recipe.run.prof is not None:
            end = min(end, progress.epoch + 1)
        metrics: dict[str, float] = {}
        epochs: list[dict[str, float]] = []
        while progress.epoch < end and not self._stopped_early():
            metrics = prefixed("train", self.train_epoch())
            if self.validator is not None:
                metrics |= self.validate()
            self._finish_epoch(metrics)
            epochs.append(metrics)
        summary = {**over_epochs(epochs), "best_top1": progress.best_top1}
        if progress.best_value is not None:
            summary[f"best_{self.best.key}"] = progress.best_value
        self._report.log.record("summary", summary, epoch=progress.epoch)
        return metrics

    def train_epoch(self) -> dict[str, float]:
        """Train on the training set once.

        Returns:
            `loss`, the mean over all batches, `lr` at the end, `skipped_steps`, the skipped steps,
            `grad_scale`, the loss scale at the end (with loss scaling only), and the metrics of `Rates`.
        """
        self._train_mode()
        progress = self.state.progress
        self._report.begin_epoch(progress.epoch)
        mixes = self.mixes(progress.epoch)
        rates = Rates(self.processes.device, self.processes.world_size)
        trained: list[Trained] = []
        total, skipped_before = 0.0, progress.skipped_steps
        for number, batch in enumerate(rates.over(self._batches()), start=1):
            with rates.compute():
                trained.append(self.train_on(batch, mixes[number - 1], number))
            if number % self.recipe.run.print_freq == 0 or number == self.steps_per_epoch:
                total += self._read_and_report(trained, rates, number)
                trained.clear()
        self._report.end_epoch()
        return {
            "loss": total / self.steps_per_epoch,
            "lr": self._lr(self.steps_per_epoch),
            "skipped_steps": progress.skipped_steps - skipped_before,
            **self._grad_scale(),
            **rates.summary(),
        }

    def _train_mode(self) -> None:
        self.step.train()
        model = self.state.model
        if self.recipe.model.freeze == "backbone":
            # A frozen backbone's BatchNorm keeps its statistics, and dropping its blocks would teach nothing.
            model.eval()
            model.classifier.train()
        if self.state.progress.epoch >= self.recipe.schedule.epochs - self.recipe.quantization.freeze_bn:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _batches(self) -> Iterator[Batch]:
        # Only a run to its end takes the loader on to the next epoch; --prof is not resumed.
        return islice(iter(self.loader), self.recipe.run.prof)

    def train_on(self, batch: Batch, mix: Mix, number: int) -> Trained:
        """Train on a batch: accumulate its gradients, and update the weights when a step is due.

        Args:
            batch: uint8 images and int64 targets on the device.
            mix: weight and partners of mixup, on the device; one of `mixes`.
            number: position of the batch in the epoch, from 1.

        Returns:
            The loss, and the outcome of the optimizer's step if there was one; both still on the device.
        """
        updates = number % self.accumulation == 0 or number == self.steps_per_epoch
        if not updates and self._parallel is not None:
            with self._parallel.no_sync():
                return Trained(self._backward(batch, mix, number))
        loss = self._backward(batch, mix, number)
        return Trained(loss, self._update(number) if updates else None)

    def _backward(self, batch: Batch, mix: Mix, number: int) -> Tensor:
        if self._cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        loss = self.step(batch.images, batch.targets, mix)
        self.precision.scale(loss / self._group_size(number)).backward()
        # The next replay of a graph overwrites the output of this one.
        return loss.detach().clone() if self._cuda_graphs else loss.detach()

    def _update(self, number: int) -> Tensor:
        state = self.state
        state.optimizer.set_lr(self._lr(number - 1))
        taken = state.optimizer.step(self.precision.scaler)
        self.precision.update_scale()
        if state.ema is not None:
            state.ema.update(taken)
        state.progress.step += 1
        return taken

    def _group_size(self, number: int) -> int:
        """Return the batches whose gradients are averaged with those of batch `number`; fewer at the epoch's end."""
        first = (number - 1) // self.accumulation * self.accumulation
        return min(self.accumulation, self.steps_per_epoch - first)

    def mixes(self, epoch: int) -> list[Mix]:
        """Return the mixtures of an epoch's batches, on the device."""
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
        epoch = self.state.progress.epoch + steps_done / self.steps_per_epoch
        return learning_rate(self.recipe.schedule, self.recipe.optimizer.lr, epoch)

    def _grad_scale(self) -> dict[str, float]:
        scale = self.precision.loss_scale()
        return {} if scale is None else {"grad_scale": scale}

    def _read_and_report(self, trained: list[Trained], rates: Rates, number: int) -> float:
        """Report the batches since the last report, and return the sum of their losses.

        Here, and only here, the loop waits for the device.

        Args:
            trained: results of the batches.
            rates: measures them.
            number: position of the last batch in the epoch, from 1.
        """
        progress = self.state.progress
        batches = read_back(trained, self.processes, number)
        progress.skipped_steps += sum(batch.is_skipped for batch in batches)
        scale = self._grad_scale()
        self._report.steps(
            batches,
            epoch=progress.epoch,
            lr=self._lr(number - 1),
            loss_scale=scale,
            rates=rates.window(),
        )
        # After the report, so that a run which ends here has reported its last steps.
        progress.bad_steps = self._skipped.watch(
            batches, progress.bad_steps, epoch=progress.epoch, loss_scale=scale.get("grad_scale")
        )
        return sum(batch.loss for batch in batches)

    def validate(self) -> dict[str, float]:
        """Validate, and return metrics `val.*` and, with an average of the weights, `val_ema.*`."""
        assert self.validator is not None, "the validation set is not open"
        model, ema = self.state.model, self.state.ema
        self.processes.average_buffers(model)
        metrics = prefixed("val", self.validator(model))
        if ema is not None:
            self.processes.average_buffers(ema.module)
            metrics |= prefixed("val_ema", self.validator(ema.module))
        return metrics

    def _finish_epoch(self, metrics: Mapping[str, float]) -> None:
        is_best = self.state.progress.finish_epoch(metrics, self.best)
        if self.recipe.data.on_bad_image == "skip":
            validated = {"val": self.validator.loader} if self.validator else {}
            self._report.bad_images({"train": self.loader, **validated}, self.processes)
        self._report.epoch(metrics, self.state.progress)
        if self.files is not None and self.processes.is_main:
            self.files.save(self.checkpoint(), is_best=is_best)
        self.processes.barrier()

    def _stopped_early(self) -> bool:
        patience = self.recipe.schedule.early_stopping_patience
        if patience is None or self.state.progress.stale_epochs < patience:
            return False
        self._report.log.print(
            f"stopped: {self.best.key} has not improved for {patience} epochs (--early-stopping-patience)"
        )
        return True

    def checkpoint(self) -> dict[str, Any]:
        """Return the content of a checkpoint: tensors and plain values only."""
        return {**self.state.state_dict(), **self.opened.description()}

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's content, the weights included.

        Raises:
            UserError: it is no checkpoint of such a training.
        """
        with resuming(self.opened.origin.resume):
            self.state.load_state_dict(self._as_ours(checkpoint))

    def _as_ours(self, checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a checkpoint in the form of ours, with weights that fit the model."""
        model, now = self.state.model, self.state.state_dict()
        if not is_foreign(checkpoint):
            return with_our_names(checkpoint, model)
        updates = -(-self.steps_per_epoch // self.accumulation)
        taken = training_state(checkpoint, model, now["optimizer"], updates)
        self._report.log.print(describe(checkpoint, averages=self.state.ema is not None))
        return {**now, **taken}
