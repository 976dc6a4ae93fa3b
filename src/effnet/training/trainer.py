"""The training loop."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from effnet.data import Batch
from effnet.data.mixup import Mix, epoch_mixes
from effnet.data.sizes import training_sizes
from effnet.runtime.log import RunLog
from effnet.runtime.processes import data_parallel
from effnet.runtime.signals import Interrupted, Signals
from effnet.runtime.spinning import CoreWatch
from effnet.training.best import Best
from effnet.training.buffers import StepBuffers
from effnet.training.checkpoint import CheckpointFiles
from effnet.training.compilation import compiled, takes_cuda_graphs
from effnet.training.content import resuming
from effnet.training.divergence import DivergedError, Divergence, check_validation, check_weights
from effnet.training.ema import ModelEMA
from effnet.training.evidence import EvidenceFinder
from effnet.training.foreign_checkpoint import describe, is_foreign, training_state, with_our_names
from effnet.training.freezing import freeze, frozen_parts, held_parts, parts_of, set_modes
from effnet.training.generators import StepGenerators
from effnet.training.in_epoch import InEpoch
from effnet.training.last_average import LastAverage
from effnet.training.moments import Moments
from effnet.training.objective import build_loss, loss_of_a_guess
from effnet.training.optimizer import FlatOptimizer
from effnet.training.rates import Rates, over_epochs, peak_memory_of
from effnet.training.reporter import Reporter, prefixed
from effnet.training.rollback import Rollback
from effnet.training.schedule import learning_rate
from effnet.training.setup import Opened, distillation_of
from effnet.training.skipped import SkippedSteps, Trained, read_back
from effnet.training.state import TrainingState
from effnet.training.step import TrainStep, empty_batch
from effnet.training.validations import Validations

# Of a static graph it learns the order of the gradients in the second step.
_UNSETTLED_STEPS = 2


class Trainer:
    """Trains the model of an opened run as its recipe says.

    Args:
        opened: the run, whose training set must be open; without an open validation set there is no validation.
        log: where the training reports.
        files: where checkpoints go; None writes none.
        moments: when to write checkpoints within epochs and when to stop; None for neither.

    Attributes:
        state: everything that changes while the model is trained.
        step: the training step: images and targets in, loss out.
        loss: what the training lowers.
        accumulation: batches of each process in a step of the optimizer.
        steps_per_epoch: batches of each process in an epoch.
        best: metric that decides which epoch is the best.
        files: where checkpoints go.
        validations: what is validated after an epoch.
    """

    def __init__(
        self,
        opened: Opened,
        log: RunLog,
        files: CheckpointFiles | None = None,
        moments: Moments | None = None,
    ) -> None:
        recipe, model, loader = opened.recipe, opened.model, opened.data.train
        assert loader is not None, "the training set is not open"
        self.opened = opened
        self.recipe = recipe
        self.processes = opened.processes
        self.precision = opened.precision
        self.validations = Validations(opened)
        self.loader = loader
        self.accumulation = recipe.optimizer.accumulation(self.processes.world_size)
        self.steps_per_epoch = min(len(loader), recipe.run.prof or len(loader))
        self.files = files
        self._sizes = training_sizes(recipe)
        self._moments = moments or Moments(self.processes, Signals(), None)
        self._generators = StepGenerators(self.processes.device, recipe.compute.seed, self.processes.rank)
        self._report = Reporter(
            log,
            epochs=recipe.schedule.epochs,
            steps_per_epoch=self.steps_per_epoch,
            compiled=recipe.compute.compile,
        )
        finder = EvidenceFinder(self.processes, recipe.compute.seed, opened.data.names.get("train"))
        self._cores = CoreWatch(on_cpu=self.processes.device.type == "cpu")
        self._skipped = SkippedSteps(log, recipe.compute.max_bad_steps, finder)
        self.loss = build_loss(recipe, opened.data.labels.get("train"), opened.data.classes)
        self._divergence = Divergence(log, loss_of_a_guess(recipe), recipe.compute.divergence_factor)
        self._rollback = Rollback(log) if recipe.compute.on_nan == "rollback" else None
        self._cuda_graphs = takes_cuda_graphs(
            recipe.compute, self.processes.device, self.processes.world_size
        )
        self._parallel: DistributedDataParallel | None = None
        self._distillation = distillation_of(opened)
        held = [] if recipe.model.unfreeze_every is None else held_parts(model, recipe.model)
        optimizer = FlatOptimizer(model, recipe.optimizer, parts_of(model), held)
        if held:
            freeze(model, frozen_parts(model, recipe.model, epoch=0))
            optimizer.follow()
        self.step = self._build_step(starts=True)
        self._buffers = StepBuffers(model)
        # The average starts after the processes have taken over the first one's weights.
        ema = None if recipe.optimizer.use_ema is None else ModelEMA(model, recipe.optimizer.use_ema)
        last = recipe.schedule.average_last
        mean = LastAverage(model, max(0, recipe.schedule.epochs - last)) if last else None
        self.best = Best.of(recipe.schedule.best_metric, recipe.run.topk)
        self.state = TrainingState(
            model, ema, mean, optimizer, self.precision, loader, self.best, self.processes, self._layout()
        )

        self._settle_buckets()

    def _settle_buckets(self) -> None:
        """Run the steps after which DistributedDataParallel has sorted the gradients into buckets; drop the results.

        The order in which the processes' gradients are summed, and so the last bit of a sum, depends on its place in a
        bucket. Without this the first steps of a resumed run would differ from those of an uninterrupted one.
        """
        parallel = self._parallel
        # A sum of two is the same in any order.
        if parallel is None or self.processes.world_size <= 2:
            return
        buffers = {name: buffer.clone() for name, buffer in parallel.named_buffers()}
        batch = empty_batch(self.recipe, self.processes.device, self.opened.data.labels.get("train"))
        self.step.train()
        for _ in range(_UNSETTLED_STEPS):
            self._backward(batch, self.mixes(0, steps=1)[0], number=1)
        for parameter in parallel.parameters():
            parameter.grad = None
        for name, buffer in parallel.named_buffers():
            buffer.copy_(buffers[name])

    def _layout(self) -> dict[str, int]:
        return {
            "processes": self.processes.world_size,
            "images in a batch": self.recipe.optimizer.batch_size,
            "batches in a step": self.accumulation,
            "batches in an epoch": self.steps_per_epoch,
        }

    def _build_step(self, *, starts: bool) -> nn.Module:
        recipe = self.recipe
        step: nn.Module = TrainStep(
            self.opened.model,
            self.opened.preprocessing,
            num_classes=recipe.model.num_classes,
            loss=self.loss,
            precision=self.precision,
            mixes=recipe.data.mixup > 0 or recipe.data.cutmix > 0,
            distillation=self._distillation,
        ).to(self.processes.device)
        if self.processes.world_size > 1:
            step = self._parallel = data_parallel(
                step, bucket_size=recipe.compute.bucket_size, accumulates=self.accumulation > 1, starts=starts
            )
        if not recipe.compute.compile:
            return step
        return compiled(step, cuda_graphs=self._cuda_graphs, sizes=len(self._sizes.all()))

    def run(self) -> dict[str, float]:
        """Train until the epochs of this run are done, and return the metrics of the last epoch.

        Raises:
            DivergedError: the training has diverged, or skips one step after the other, and can't go back.
            UserError: a file can't be read or written.
            Interrupted: a signal asked to stop, and a checkpoint of the last step is written.
        """
        schedule, state = self.recipe.schedule, self.state
        end = min(schedule.epochs, state.progress.epoch + schedule.run_epochs)
        if self.recipe.run.prof is not None:
            end = min(end, state.progress.epoch + 1)
        epochs: list[dict[str, float]] = []
        if self._rollback is not None:
            self._rollback.remember(state)
        while state.progress.epoch < end and not self._stopped_early():
            try:
                epochs.append(self._run_epoch())
            except DivergedError as error:
                self._roll_back(error)
        self._moments.close()
        self._cores.close()
        self._flush()
        progress = state.progress
        summary = {**over_epochs(epochs or [state.metrics]), "best_top1": progress.best_top1}
        if progress.best_value is not None:
            summary[f"best_{self.best.key}"] = progress.best_value
        self._report.log.record("summary", summary, epoch=progress.epoch)
        if progress.epoch == schedule.epochs:
            check_validation(progress.bad_validations)
        return state.metrics

    def _run_epoch(self) -> dict[str, float]:
        metrics = prefixed("train", self.state.in_epoch.metrics or self.train_epoch())
        progress = self.state.progress
        check_weights(self.state.floating_tensors(), self.processes, progress.epoch)
        self._add_to_mean()
        if self.validations.validator is not None:
            metrics |= self.validations.run(self.state, self._checkpoint_if_due)
        progress.bad_validations = self._divergence.validated(
            metrics, progress.bad_validations, epoch=progress.epoch
        )
        self._finish_epoch(metrics)
        if self._rollback is not None and progress.divergence == 0 == progress.bad_validations:
            self._rollback.remember(self.state)
        return metrics

    def _add_to_mean(self) -> None:
        """Add the weights to the mean of the last epochs', if this is one of them."""
        last, epoch = self.state.last, self.state.progress.epoch
        if last is not None and last.takes(epoch):
            self.state.average_buffers()
            last.add(epoch)

    def _write_mean(self) -> None:
        if (
            self.files is None
            or not self.processes.is_main
            or not self.validations.mean_is_complete(self.state)
        ):
            return
        assert self.state.last is not None
        self.files.save_averaged(self.state.last.weights, self.validations.metadata_of_mean())

    def _roll_back(self, reason: DivergedError) -> None:
        """Go back to the last good state with a lower learning rate, or raise the error again."""
        self._report.end_epoch()
        self._flush()
        if self._rollback is None:
            raise reason
        self._rollback.go_back(self.state, reason)
        self.validations.confidence.clear()
        # Of a step that was under way.
        self.step.zero_grad(set_to_none=True)
        self._buffers.forget()
        self._save()

    def train_epoch(self) -> dict[str, float]:
        """Train on the training set once, or on the rest of an epoch that was interrupted.

        Returns:
            `loss`, the mean over all batches whose loss is finite, `lr` at the end, `skipped_steps`, the skipped steps,
            `grad_scale`, the loss scale at the end (with loss scaling only), and the metrics of `Rates`.
        """
        self._train_mode()
        self.validations.confidence.clear()
        state, epoch = self.state, self.state.progress.epoch
        if state.in_epoch.metrics:
            state.in_epoch = InEpoch()
        done = state.in_epoch
        state.buffers_differ = self.processes.world_size > 1
        self._report.begin_epoch(epoch)
        if not done.batches and (epoch == 0 or self._sizes.at(epoch) != self._sizes.at(epoch - 1)):
            self._report.image_size(epoch, self._sizes)
        mixes = self.mixes(epoch)
        rates = Rates(self.processes.device, self.processes.world_size)
        for batch in rates.over(self._batches()):
            self._report.trains_on(batch.images)
            with rates.compute():
                done.unreported.append(self.train_on(batch, mixes[done.batches], done.batches + 1))
            if self._cores.look() and self._cores.is_crowded:
                self._report.crowded_cores()
            done.batches += 1
            is_last = done.batches == self.steps_per_epoch
            if done.batches % self.recipe.run.print_freq == 0 or is_last:
                self._read_and_report(rates)
            if self._ends_step(done.batches) and not is_last:
                self._checkpoint_if_due()
        self._report.end_epoch()
        done.metrics = {
            "loss": done.mean_loss,
            "lr": self._lr(self.steps_per_epoch),
            "skipped_steps": done.skipped_steps,
            **self._grad_scale(),
            **rates.summary(),
        }
        self._checkpoint_if_due()
        return done.metrics

    def _train_mode(self) -> None:
        model, epoch = self.state.model, self.state.progress.epoch
        if self.recipe.model.unfreeze_every is not None:
            self._unfreeze()
        self.step.train()
        set_modes(model, self.recipe, epoch)

    def _unfreeze(self) -> None:
        """Freeze the parts that are to be frozen in this epoch, and no others."""
        model = self.state.model
        if freeze(model, frozen_parts(model, self.recipe.model, self.state.progress.epoch)):
            self.state.optimizer.follow()
            # DistributedDataParallel expects gradients of the parameters that required them when it was made.
            self._parallel = None
            self.step = self._build_step(starts=False)
            self._settle_buckets()

    def _batches(self) -> Iterator[Batch]:
        # Only a run to its end takes the loader on to the next epoch; --prof is not resumed.
        return islice(iter(self.loader), self.recipe.run.prof)

    def train_on(self, batch: Batch, mix: Mix, number: int) -> Trained:
        """Train on a batch: accumulate its gradients, and update the weights when a step is due.

        Args:
            batch: uint8 images and their targets on the device.
            mix: mixture of the batch, on the device; one of `mixes`.
            number: position of the batch in the epoch, from 1.

        Returns:
            The loss, BatchNorm's statistics, and the outcome of the optimizer's step if there was one, all still on the
            device. If one of them is not finite, the step is skipped and the model's buffers are as before it.
        """
        self._generators.seed(self.state.progress.epoch, number)
        self._buffers.keep()
        updates = self._ends_step(number)
        if not updates and self._parallel is not None:
            with self._parallel.no_sync():
                return self._backward(batch, mix, number)
        trained = self._backward(batch, mix, number)
        return trained._replace(taken=self._update(number)) if updates else trained

    def _ends_step(self, number: int) -> bool:
        return number % self.accumulation == 0 or number == self.steps_per_epoch

    def _backward(self, batch: Batch, mix: Mix, number: int) -> Trained:
        if self._cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        # Drawn as often as its weight says, an image counts once each time.
        weights = None if self.recipe.task.sampler == "weighted" else batch.weights
        loss = self.step(batch.images, batch.targets, mix, weights)
        statistics = self._buffers.sum()
        # 1, or NaN in all gradients of all processes if the loss or a statistic is not finite in this one.
        guard = 1 + 0 * (loss.detach() + statistics)
        self.precision.scale(loss * guard / self._group_size(number)).backward()
        # The next replay of a graph overwrites the output of this one.
        own_loss = loss.detach().clone() if self._cuda_graphs else loss.detach()
        # A copy: a worker's tensor would keep its shared memory.
        return Trained(own_loss, statistics, indices=None if batch.indices is None else batch.indices.clone())

    def _update(self, number: int) -> Tensor:
        state = self.state
        state.optimizer.set_lr(self._lr(number - 1))
        taken = state.optimizer.step(self.precision.scaler)
        self._buffers.settle(taken)
        self.precision.update_scale()
        if state.ema is not None:
            state.ema.update(taken)
        state.progress.step += 1
        return taken

    def _group_size(self, number: int) -> int:
        """Return the batches whose gradients are averaged with those of batch `number`; fewer at the epoch's end."""
        first = (number - 1) // self.accumulation * self.accumulation
        return min(self.accumulation, self.steps_per_epoch - first)

    def mixes(self, epoch: int, steps: int | None = None) -> list[Mix]:
        """Return the mixtures of an epoch's first `steps` batches, None for all, on the device."""
        return epoch_mixes(
            self.recipe.data.mixup,
            self.recipe.compute.seed,
            epoch,
            rank=self.processes.rank,
            steps=self.steps_per_epoch if steps is None else steps,
            batch_size=self.recipe.optimizer.batch_size,
            device=self.processes.device,
            cutmix=self.recipe.data.cutmix,
        )

    def _lr(self, steps_done: int) -> float:
        progress = self.state.progress
        epoch = progress.epoch + steps_done / self.steps_per_epoch
        return progress.lr_factor * learning_rate(self.recipe.schedule, self.recipe.optimizer.lr, epoch)

    def _grad_scale(self) -> dict[str, float]:
        scale = self.precision.loss_scale()
        return {} if scale is None else {"grad_scale": scale}

    def _read_and_report(self, rates: Rates) -> None:
        """Report the batches since the last report, and count their losses and skipped steps.

        Here, and where a checkpoint is written, the loop waits for the device; nowhere else.
        """
        progress, done = self.state.progress, self.state.in_epoch
        batches = read_back(done.unreported, self.processes, done.batches)
        done.unreported.clear()
        skipped = sum(batch.is_skipped for batch in batches)
        progress.skipped_steps += skipped
        done.skipped_steps += skipped
        done.add_losses(batch.loss for batch in batches)
        scale = self._grad_scale()
        self._report.steps(
            batches,
            epoch=progress.epoch,
            lr=self._lr(done.batches - 1),
            loss_scale=scale,
            rates=rates.window(),
        )
        # After the report, so that a run which ends here has reported its last steps.
        progress.bad_steps = self._skipped.watch(
            batches, progress.bad_steps, epoch=progress.epoch, loss_scale=scale.get("grad_scale")
        )
        progress.divergence = self._divergence.watch(
            [batch.loss for batch in batches], progress.divergence, epoch=progress.epoch, last=done.batches
        )

    def _checkpoint_if_due(self) -> None:
        """Write a checkpoint if one is due, and stop if a signal asks for it.

        All processes must call this equally often.

        Raises:
            Interrupted: the run is to stop.
        """
        due = self._moments.look(self.state.progress.step)
        if due.checkpoint:
            self._save()
        if due.signal is not None:
            self._stop(due.signal)

    def _save(self, *, is_best: bool = False, ends_epoch: bool = False) -> None:
        if self.files is not None:
            content = self.checkpoint()
            if self.processes.is_main:
                self.files.save(content, is_best=is_best, gathered=ends_epoch)
        self._moments.written(self.state.progress.step)

    def _flush(self) -> None:
        if self.files is not None and self.processes.is_main:
            self.files.flush()
        # A process that ends makes the launcher end the others, which must not happen to the one that writes.
        self.processes.barrier()

    def _stop(self, signal: int) -> NoReturn:
        self._flush()
        place = f"after epoch {self.state.progress.epoch + 1} step {self.state.in_epoch.batches}"
        if self.files is None:
            raise Interrupted(signal, f"{place}; no checkpoint, as asked for")
        raise Interrupted(signal, f"{place}; checkpoint: {self.files.latest}; go on with --resume auto")

    def _finish_epoch(self, metrics: dict[str, float]) -> None:
        state = self.state
        self._write_mean()
        is_best = state.progress.finish_epoch(metrics, self.best)
        state.metrics, state.in_epoch = metrics, InEpoch()
        state.thresholds = self.validations.better_thresholds(metrics, self.best)
        if self.recipe.data.on_bad_image == "skip":
            validator = self.validations.validator
            validated = {"val": validator.loader} if validator else {}
            self._report.bad_images({"train": self.loader, **validated}, self.processes, state.progress)
        # Beside the metrics: a resumed run has another one.
        memory = {"train.peak_memory": peak_memory_of(self.processes.device)}
        self._report.epoch({**metrics, **memory}, state.progress)
        self._save(is_best=is_best, ends_epoch=True)
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
        """Return the content of a checkpoint: tensors and plain values only.

        Every process must call this; the main one's is complete.
        """
        log = {"log": self._report.log.position()}
        description = self.opened.description(self.validations.confidence, self.state.thresholds)
        return {**self.state.state_dict(), **log, **description}

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's content, the weights included.

        Raises:
            UserError: it is no checkpoint of such a training.
        """
        with resuming(self.opened.origin.resume):
            self.state.load_state_dict(self._as_ours(checkpoint))
        progress = self.state.progress
        self._moments.written(progress.step)
        self._report.resumed(self.opened.origin.resume, progress, self.state.in_epoch.batches)

    def _as_ours(self, checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a checkpoint in the form of ours, with weights that fit the model."""
        model, now = self.state.model, self.state.state_dict()
        if not is_foreign(checkpoint):
            return with_our_names(checkpoint, model)
        updates = -(-self.steps_per_epoch // self.accumulation)
        taken = training_state(checkpoint, model, now["optimizer"], updates)
        self._report.log.print(describe(checkpoint, averages=self.state.ema is not None))
        return {**now, **taken}
