"""The form of a tracker of experiments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

PointKind = Literal["iteration", "epoch", "summary"]
"""the part of a run that the metrics of a point belong to"""
Ending = Literal["finished", "interrupted", "failed"]
"""the end of a run"""
MACHINE = "machine"
"""group of the parameters that are no settings: facts about data, machine and versions"""


@dataclass(frozen=True)
class TrackedRun:
    """A run, as far as a tracker needs to know it.

    Attributes:
        name: of the run, for people.
        workspace: its folder, for the files of a tracker that keeps some there.
        identity: the tracker's name of the same run, which goes on; None for a new one.
        parameters: plain values by group and name: the resolved recipe, and those of `MACHINE`.
        recipe: the resolved recipe as YAML.
    """

    name: str
    workspace: Path
    identity: str | None
    parameters: Mapping[str, Mapping[str, Any]]
    recipe: str


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of a validation.

    Attributes:
        name: of the matrix, which names the validated weights.
        cells: true class, predicted class and images of each cell that has images.
        csv: the whole matrix.
        pixels: its picture, uint8 (H, W, 3); None without the package that draws.
    """

    name: str
    cells: Sequence[tuple[str, str, int]]
    csv: str
    pixels: npt.NDArray[np.uint8] | None


class Connection(Protocol):
    """A run at a tracker. Any method may raise any `Exception`.

    Attributes:
        identity: the tracker's name of the run. Another than `TrackedRun`'s is a new run without points.
        where: words that say where to look at it.
    """

    identity: str
    where: str

    def written(self) -> Mapping[PointKind, int] | None:
        """Return the last step of the points that the tracker has, -1 for none; None if it can't tell."""

    def rewind(self, step: int) -> bool:
        """Take back all points of this step and later ones; return False, and do nothing, if the tracker can't."""

    def points(self, kind: PointKind, values: Mapping[str, float], step: int, time: float) -> None:
        """Add a point to the curve of each metric.

        Args:
            kind: what they belong to; of each kind the steps rise, and so do they over all kinds.
            values: finite numbers by metric, such as ``val/top1``.
            step: batches of each process since the start of the training.
            time: seconds since 1970.
        """

    def picture(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Add a picture, uint8 (H, W, 3), at the start of the run."""

    def confusion(self, matrix: Confusion, step: int) -> None:
        """Add a confusion matrix, at the step of the last point."""

    def model(self, path: Path) -> None:
        """Add the best model, where the tracker keeps files; `path` stays as it is meanwhile."""

    def close(self, ending: Ending) -> None:
        """End the run, with all that was added."""


@dataclass(frozen=True)
class Tracker:
    """A tracker."""

    name: str
    """value of ``--track``, and the extra that brings the package"""
    summary: str
    """where it writes, for the documentation's table"""
    package: str
    """package that it imports"""
    open: Callable[[TrackedRun], Connection]
    """begins a run, or goes on with one, and imports the package"""

    def check_installed(self) -> None:
        """Check that the package is there, without importing it.

        Raises:
            UserError: it is not; the message names the command that installs it.
        """
        found = find_spec(self.package)
        # A folder of this name, as trackers make them, is no package.
        if found is None or found.origin is None:
            raise UserError(f"--track {self.name} needs {self.package}: {install_command(self.name)}")
