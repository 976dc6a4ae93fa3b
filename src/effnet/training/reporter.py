"""Reports of a training in progress, on the screen and in the run's log."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from effnet.data import Loader
from effnet.data.sizes import Sizes
from effnet.runtime.log import RunLog
from effnet.runtime.processes import Processes
from effnet.training.compilation import Recompilations
from effnet.training.skipped import TrainedBatch
from effnet.training.state import Progress

# Metrics of the line that ends an epoch.
_EPOCH_LINE = {
    "train.loss": "train loss {:.4f}",
    "val.loss": "val loss {:.4f}",
    "val.top1": "top-1 {:.2f} %",
    "val.top5": "top-5 {:.2f} %",
    "val_ema.top1": "EMA top-1 {:.2f} %",
    "val_avg.top1": "mean of the last epochs top-1 {:.2f} %",
    "train.total_ips": "{:.0f} images/s",
}


_PICTURES = 16  # training images that are shown once


class Reporter:
    """Reports the steps and epochs of a training.

    Args:
        log: the run's log.
        epochs: epochs of the training, over all its runs.
        steps_per_epoch: batches of each.
        compiled: the step is compiled, so that compiling it again is worth a line.
    """

    def __init__(self, log: RunLog, *, epochs: int, steps_per_epoch: int, compiled: bool) -> None:
        self.log = log
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._recompilations = Recompilations() if compiled else None
        self._images: Tensor | None = None
        self._told_of_crowd = False

    def begin_epoch(self, epoch: int) -> None:
        """Show the progress of an epoch, counted from 0, until `end_epoch`."""
        self.log.begin_epoch(epoch, self._epochs, self._steps)

    def image_size(self, epoch: int, sizes: Sizes) -> None:
        """Report the size of the images of an epoch, unless it is that of all."""
        if sizes.low == sizes.high:
            return
        side = sizes.at(epoch)
        self.log.print(f"epoch {epoch + 1}: training images of {side} px")
        self.log.record("event", {"event": "image size", "pixels": side}, epoch=epoch)

    def crowded_cores(self) -> None:
        """Say, once, that other programs compute on the training's cores."""
        if not self._told_of_crowd:
            self._told_of_crowd = True
            self.log.print("note: other programs compute on these cores too: both are slower")

    def trains_on(self, images: Tensor) -> None:
        """Keep some images of the first batch for who asks for them; does not wait for the device.

        Args:
            images: of a batch, uint8 (N, 3, H, W).
        """
        if self._images is None and self.log.follower is not None and self.log.follower.wants_pictures:
            self._images = images[:_PICTURES].clone()

    def _show_images(self) -> None:
        if self._images is not None and self.log.follower is not None and self.log.follower.wants_pictures:
            self.log.follower.pictures(self._images)
            self._images = None

    def end_epoch(self) -> None:
        """End what `begin_epoch` began."""
        self.log.end_epoch()

    def steps(
        self,
        batches: Sequence[TrainedBatch],
        *,
        epoch: int,
        lr: float,
        loss_scale: Mapping[str, float],
        rates: Mapping[str, float],
    ) -> None:
        """Report consecutive batches.

        Args:
            batches: results, the last of which is the present one.
            epoch: their epoch, from 0.
            lr: learning rate of the last step.
            loss_scale: `grad_scale`; empty without loss scaling.
            rates: metrics of `effnet.training.rates.Rates`.
        """
        self._show_images()
        number = batches[-1].number
        self._report_recompilations(epoch, number)
        data = {
            "loss": batches[-1].loss,
            "lr": lr,
            "skipped_steps": sum(batch.is_skipped for batch in batches),
            **loss_scale,
            **rates,
        }
        self.log.iteration(prefixed("train", data), epoch=epoch, step=number, steps=self._steps)

    def _report_recompilations(self, epoch: int, number: int) -> None:
        if self._recompilations is None:
            return
        if graphs := self._recompilations.since_last_time():
            self.log.print(f"epoch {epoch + 1} step {number}: compiled again ({graphs} graphs)")
            event = {"event": "recompilation", "graphs": graphs}
            self.log.record("event", event, epoch=epoch, step=number)

    def epoch(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Report the metrics of the epoch that `progress` has counted last."""
        self.log.record("epoch", metrics, epoch=progress.epoch - 1, step=progress.step)
        parts = [words.format(metrics[name]) for name, words in _EPOCH_LINE.items() if name in metrics]
        self.log.print(f"epoch {progress.epoch}/{self._epochs}: {', '.join(parts)}")

    def bad_images(self, loaders: Mapping[str, Loader], processes: Processes, progress: Progress) -> None:
        """Report skipped images that `progress` does not list yet, and list them; every process must call this."""
        for split, loader in loaders.items():
            left_out = processes.merge(loader.bad_images)
            known = set(progress.bad_images)
            if new := {name: reason for name, reason in left_out.items() if name not in known}:
                progress.bad_images += new
                self.log.bad_images(split, new)

    def resumed(self, checkpoint: str | None, progress: Progress, batches: int) -> None:
        """Report where a run goes on.

        Args:
            checkpoint: path of the checkpoint.
            progress: as it was when the checkpoint was written.
            batches: batches trained in the epoch that goes on.
        """
        self.log.print(f"resumed after epoch {progress.epoch}, step {batches} of the next: {checkpoint}")
        event = {"event": "resumed", "checkpoint": checkpoint}
        self.log.record("event", event, epoch=progress.epoch, step=batches)


def prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics under ``prefix.name``."""
    return {f"{prefix}.{name}": value for name, value in metrics.items()}
