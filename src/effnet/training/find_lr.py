"""Learning rate range test: the loss while the learning rate rises from step to step (arXiv 1506.01186)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.data import DataPlace
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text
from effnet.runtime.log import RunLog
from effnet.runtime.plots import new_figure, save_figure
from effnet.runtime.processes import joined_processes
from effnet.runtime.progress import ProgressBar
from effnet.training.setup import open_run
from effnet.training.trainer import Trainer

_SMOOTHING = 0.9
_ENDS = 4.0
"""times the lowest smoothed loss at which the test ends"""

Rates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sweep:
    """Results of a range test.

    Attributes:
        rates: learning rate of each step of the optimizer, ascending.
        losses: training loss of each step.
        smoothed: mean of the losses up to each step, in which earlier ones count less.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls fastest with the rate's logarithm, before its lowest point.

        Raises:
            UserError: the loss falls nowhere.
        """
        end = int(np.argmin(self.smoothed)) + 1
        if end < 3:
            raise UserError("the loss falls at none of the learning rates; give lower ones by --from-lr")
        slopes = np.gradient(np.array(self.smoothed[:end]), np.log(self.rates[:end]))
        return self.rates[int(np.argmin(slopes))]

    def write_csv(self, path: Path) -> None:
        """Write one row for each step."""
        rows = ["lr,loss,smoothed loss"]
        rows += [
            f"{rate:.6g},{loss:.6g},{mean:.6g}"
            for rate, loss, mean in zip(self.rates, self.losses, self.smoothed, strict=True)
        ]
        write_text(path, "\n".join(rows) + "\n")


class _Sweeping(Trainer):
    """A trainer whose learning rate is set from outside."""

    rate = 0.0

    def _lr(self, steps_done: int) -> float:
        return self.rate

    def losses(self, rates: Rates) -> Iterator[float]:
        """Train one step of the optimizer at each rate, and yield its loss."""
        self._train_mode()
        remaining = iter(rates)
        while True:
            mixes = self.mixes(self.loader.state_dict()["epoch"])
            group: list[float] = []
            for number, batch in enumerate(self._batches(), start=1):
                if not group:
                    rate = next(remaining, None)
                    if rate is None:
                        return
                    self.rate = float(rate)
                group.append(float(self.train_on(batch, mixes[number - 1], number).loss))
                if self._ends_step(number):
                    yield sum(group) / len(group)
                    group = []


def find_lr(
    recipe: Recipe, path: DataPlace | None, *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 100
) -> Sweep:
    """Train with a learning rate that grows by the same factor in each step, until the loss explodes.

    Neither a log nor a checkpoint is written.

    Args:
        recipe: settings as given; its learning rate and schedule are not used.
        path: folder of images; None with synthetic ones.
        lowest, highest: first and last rate.
        steps: steps of the optimizer.

    Raises:
        UserError: settings, weights or data that can't be used; several processes.
    """
    settings = recipe.replace(
        {"resume": None, "training_only": True, "no_checkpoints": True, "use_ema": None}
    )
    found = Sweep([], [], [])
    with joined_processes(recipe.compute.device, timeout=recipe.compute.collective_timeout) as processes:
        if processes.world_size > 1:
            raise UserError("the range test runs in one process; start it without a launcher")
        trainer = _Sweeping(open_run(settings, path, processes, ("train",)), RunLog(None, quiet=True))
        rates = np.geomspace(lowest, highest, steps)
        mean = 0.0
        with ProgressBar("trying learning rates", steps) as progress:
            for step, loss in enumerate(trainer.losses(rates), start=1):
                progress.advance(1)
                if not math.isfinite(loss):
                    break
                mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
                found.rates.append(float(rates[step - 1]))
                found.losses.append(loss)
                found.smoothed.append(mean / (1 - _SMOOTHING**step))
                if found.smoothed[-1] > _ENDS * min(found.smoothed):
                    break
    return found


def draw(sweep: Sweep, path: Path) -> None:
    """Draw the losses over the rates, and the suggestion, as a picture; the suffix decides the format.

    Raises:
        UserError: matplotlib is not installed, or does not know the suffix.
    """
    figure = new_figure("a picture of the learning rates")
    axes = figure.add_subplot()
    axes.plot(sweep.rates, sweep.losses, color="0.8")
    axes.plot(sweep.rates, sweep.smoothed)
    axes.axvline(sweep.suggestion, linestyle="--", color="C1")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.set_title(f"steepest at {sweep.suggestion:.2g}")
    save_figure(figure, path, "--plot")
