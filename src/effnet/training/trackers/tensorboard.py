"""TensorBoard: event files in the workspace."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.training.trackers.form import MACHINE, Confusion, Ending, PointKind, TrackedRun, Tracker

FOLDER = "tensorboard"
"""folder of the event files in a workspace"""
_FILES = "events.out.tfevents.*"


class _Events:
    """Event files of a run. A number is stored as float32.

    A file that begins with a step takes back the points of earlier files from this step on.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._folder = run.workspace / FOLDER
        goes_on = run.identity is not None and (self._folder / run.identity).is_file()
        if not goes_on:
            for old in self._folder.glob(_FILES):
                old.unlink()
        self._begin_file(None)
        self.identity = min(path.name for path in self._folder.glob(_FILES))
        self.where = f"tensorboard --logdir {run.workspace}"
        if not goes_on:
            facts = run.parameters.get(MACHINE, {}).items()
            rows = [f"| {name} | {value} |" for name, value in facts]
            self._writer.add_text(MACHINE, "\n".join(["| fact | value |", "| --- | --- |", *rows]), 0)
            self._writer.add_text("recipe", f"```yaml\n{run.recipe}```", 0)

    def _begin_file(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=purge_step)

    def written(self) -> None:
        return None

    def rewind(self, step: int) -> bool:
        self._writer.close()
        self._begin_file(step)
        return True

    def points(self, kind: PointKind, values: Mapping[str, float], step: int, time: float) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, walltime=time)
        self._writer.flush()

    def picture(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        self._writer.add_image(name, pixels, 0, dataformats="HWC")
        self._writer.flush()

    def confusion(self, matrix: Confusion, step: int) -> None:
        if matrix.pixels is not None:
            self._writer.add_image(matrix.name, matrix.pixels, step, dataformats="HWC")
            self._writer.flush()

    def model(self, path: Path) -> None:
        """Do nothing: TensorBoard keeps no files."""

    def close(self, ending: Ending) -> None:
        self._writer.close()


TRACKER = Tracker(
    "tensorboard", "Event files in the folder `tensorboard` of the workspace", "tensorboard", _Events
)
