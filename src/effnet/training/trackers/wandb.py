"""Weights & Biases: a run on its server, or, without a key or a network, in files that `wandb sync` uploads."""

import os
import secrets
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from effnet.training.trackers.form import Confusion, Ending, PointKind, TrackedRun, Tracker

PROJECT = "effnet"
BATCH = "batch"
"""the metric over which the others are drawn"""
_CHART = "wandb/confusion_matrix/v1"
_COLUMNS = ("Actual", "Predicted", "nPredictions")
"""fields of this chart"""
_KINDS = typing.get_args(PointKind)
_ROWS = len(_KINDS) + 1
"""rows of a batch: one for each kind, and one for the confusion matrix"""


class _Run:
    """A run at Weights & Biases.

    Its server takes one row of metrics for a step, in rising order. Points of several kinds share a batch, so that rows
    are numbered more densely than batches.
    """

    def __init__(self, run: TrackedRun) -> None:
        # It would report its own errors to its makers.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb = wandb
        self.identity = run.identity or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or run.name,
            dir=os.environ.get("WANDB_DIR") or run.workspace,
            id=self.identity,
            resume="allow",
            reinit="create_new",
            mode=_mode(),
            config=None
            if run.identity
            else {group: dict(values) for group, values in run.parameters.items()},
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self._run.define_metric("*", step_metric=BATCH)
        self.where = self._run.url or f"wandb sync {self._run.settings.sync_dir}"

    def written(self) -> None:
        return None

    def rewind(self, step: int) -> bool:
        return False

    def points(self, kind: PointKind, values: Mapping[str, float], step: int, time: float) -> None:
        row = _ROWS * step + _KINDS.index(kind)
        self._run.log({**values, BATCH: step, "_timestamp": time}, step=row, commit=True)

    def picture(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        self._run.log({name: self._wandb.Image(pixels)}, commit=False)

    def confusion(self, matrix: Confusion, step: int) -> None:
        table = self._wandb.Table(columns=list(_COLUMNS), data=[list(cell) for cell in matrix.cells])
        fields = dict(zip(_COLUMNS, _COLUMNS, strict=True))
        chart = self._wandb.plot_table(_CHART, table, fields, {"title": matrix.name})
        self._run.log({matrix.name: chart, BATCH: step}, step=_ROWS * step + len(_KINDS), commit=False)

    def model(self, path: Path) -> None:
        artifact = self._wandb.Artifact(f"model-{self.identity}", type="model")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self, ending: Ending) -> None:
        self._run.finish(exit_code=0 if ending == "finished" else 1)


def _mode() -> Literal["offline"] | None:
    """Return the mode of a run: what `WANDB_MODE` says, or offline without a key, which wandb would ask for."""
    from requests.utils import get_netrc_auth

    given = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    server = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    return None if any(map(os.environ.get, given)) or get_netrc_auth(server) else "offline"


TRACKER = Tracker(
    "wandb",
    "Weights & Biases; without a key, files in the folder `wandb` of the workspace, for `wandb sync`",
    "wandb",
    _Run,
)
