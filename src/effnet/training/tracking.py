"""Trackers of experiments (``--track``), which follow the log of a run."""

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from torch import Tensor

from effnet.runtime.errors import one_line
from effnet.runtime.log import RunLog, read_records
from effnet.runtime.signals import Interrupted
from effnet.training.confusion import ConfusionMatrix
from effnet.training.trackers import TRACKERS, TrackedRun
from effnet.training.trackers.form import MACHINE, Confusion, Ending
from effnet.training.trackers.thread import Points, TrackerThread, read_memory

_LOG = logging.getLogger("effnet")
FOLDER = "trackers"
"""folder in the workspace that remembers the trackers' runs"""
PICTURE = "training images"
_COLUMNS = 8  # of the picture
_PATIENCE_AT_START_S = 30.0
_PATIENCE_S = 600.0
"""time at the end of a training for what waits, the model among it"""
_PATIENCE_WHEN_STOPPED_S = 5.0


class Tracking:
    """Follower of a run's log that passes on to trackers what is written: a `with` block around the training.

    The log itself is where a tracker of a resumed run, or one that is added to it, takes what it lacks.

    Args:
        names: values of ``--track``; none for processes other than the main one.
        log: the log, to which nothing was written yet but the run's parameters.
        path: its file, in the workspace.
        steps_per_epoch: batches of each process in an epoch.
        position: batches since the start of the training after which a run goes on; None for a new run.
    """

    def __init__(
        self, names: Sequence[str], log: RunLog, path: Path, steps_per_epoch: int, position: int | None
    ) -> None:
        self._log = log
        self._trackers: list[TrackerThread] = []
        self.wants_pictures = bool(names) and position is None
        if not names:
            return
        kept = read_records(path, "iteration", "epoch", "summary", "event")
        parameters = _parameters(path)
        for name in dict.fromkeys(names):
            memory = path.parent / FOLDER / f"{name}.json"
            if position is None:
                with suppress(OSError):
                    memory.unlink()
            run = TrackedRun(
                name=path.parent.resolve().name,
                workspace=path.parent,
                identity=read_memory(memory)["id"],
                parameters=parameters,
                recipe=yaml.safe_dump({k: v for k, v in parameters.items() if k != MACHINE}, sort_keys=False),
            )
            tracker = TrackerThread(TRACKERS[name], run, memory, steps_per_epoch, log.print)
            tracker.put(partial(Points.go_on, kept=kept, position=position or 0))
            self._trackers.append(tracker)
        # Before the workers of the input start: a process that is forked while modules are imported may never get them.
        for tracker in self._trackers:
            tracker.wait_until_open(_PATIENCE_AT_START_S)

    def __enter__(self) -> "Tracking":
        if self._trackers:
            self._log.follower = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.follower = None
        ending: Ending = "finished" if error is None else "failed"
        if isinstance(error, Interrupted | KeyboardInterrupt):
            ending = "interrupted"
        for tracker in self._trackers:
            tracker.put(lambda points: points.connection.close(ending))
        for tracker in self._trackers:
            tracker.close(_PATIENCE_S if error is None else _PATIENCE_WHEN_STOPPED_S)

    def record(self, line: Mapping[str, Any]) -> None:
        """Take a line of the log."""
        for tracker in self._trackers:
            tracker.put(lambda points: points.take(line))

    def pictures(self, images: Tensor) -> None:
        """Take training images as the network gets them, uint8 (N, 3, H, W)."""
        self.wants_pictures = False
        pixels = grid(images.permute(0, 2, 3, 1).cpu().numpy())
        for tracker in self._trackers:
            tracker.put(lambda points: points.connection.picture(PICTURE, pixels))

    def confusion(self, matrices: Mapping[str, ConfusionMatrix], step: int) -> None:
        """Take the confusion matrices of the last epoch.

        Args:
            matrices: counts over all processes, by the prefix of the metrics of the validated weights.
            step: batches since the start of the training.
        """
        if not self._trackers:
            return
        for prefix, matrix in matrices.items():
            shown = Confusion(f"confusion matrix {prefix}", matrix.cells(), matrix.as_csv(), _picture(matrix))
            for tracker in self._trackers:
                tracker.put(partial(Points.confusion, matrix=shown, step=step))

    def model(self, path: Path) -> None:
        """Take the best model, if it is there."""
        if path.is_file():
            for tracker in self._trackers:
                tracker.put(lambda points: points.connection.model(path))


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are there.

    Raises:
        UserError: one is missing.
    """
    for name in names:
        TRACKERS[name].check_installed()


def grid(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return images, uint8 (N, H, W, 3), in rows on one picture, uint8 (height, width, 3)."""
    count, height, width, channels = images.shape
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    filled = np.zeros((rows * columns, height, width, channels), np.uint8)
    filled[:count] = images
    cells = filled.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return cells.reshape(rows * height, columns * width, channels)


def _picture(matrix: ConfusionMatrix) -> npt.NDArray[np.uint8] | None:
    """Return the picture of a matrix; None, and a warning, where it can't be drawn, as without the package."""
    try:
        return matrix.drawn()
    except Exception as error:  # no tracker ends a training
        _LOG.warning("--track: %s", one_line(str(error)))
        return None


def _parameters(path: Path) -> dict[str, dict[str, Any]]:
    """Return the groups of the recipe that the log holds, and in `MACHINE` its facts about data and machine."""
    records = read_records(path, "parameters")
    data = dict(records[-1]["data"]) if records else {}
    recipe = data.pop("recipe", {})
    machine = {
        **data,
        "effnet": version("effnet"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
    }
    return {**recipe, MACHINE: machine}
