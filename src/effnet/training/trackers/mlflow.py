"""MLflow: a run on the server, or in the local store, that MLflow's own environment variables name."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.training.trackers.form import Confusion, Ending, PointKind, TrackedRun, Tracker

EXPERIMENT = "effnet"
_MOST_PARAMETERS = 100  # in a request
_LONGEST_PARAMETER = 500  # characters, what the oldest servers take
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_TOLD_BY: Mapping[PointKind, str] = {"iteration": "step/lr", "epoch": "train/lr", "summary": "best/top1"}
"""a metric of every point of a kind"""


class _Run:
    """A run at MLflow."""

    def __init__(self, run: TrackedRun) -> None:
        # It would report its use to its makers.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self._client = MlflowClient()
        known = None if run.identity is None else self._known(run.identity)
        self.identity = self._new(run) if known is None else known
        self.where = f"run {self.identity} in {self._client.tracking_uri}"

    def _known(self, identity: str) -> str | None:
        """Return the identity of a run that goes on; None if this server or store does not know it."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(identity, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return identity

    def _new(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_RUN_NAME") or run.name
        identity: str = self._client.create_run(self._experiment(), run_name=name).info.run_id
        parameters = [
            Param(f"{group}.{name}", str(value)[:_LONGEST_PARAMETER])
            for group, values in run.parameters.items()
            for name, value in values.items()
        ]
        for start in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(identity, params=parameters[start : start + _MOST_PARAMETERS])
        self._client.log_text(identity, run.recipe, "recipe.yaml")
        return identity

    def _experiment(self) -> str:
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        identity: str = self._client.create_experiment(name) if found is None else found.experiment_id
        return identity

    def written(self) -> dict[PointKind, int]:
        return {kind: self._last_step(metric) for kind, metric in _TOLD_BY.items()}

    def _last_step(self, metric: str) -> int:
        history: list[Any] = self._client.get_metric_history(self.identity, metric)
        return max((point.step for point in history), default=-1)

    def rewind(self, step: int) -> bool:
        return False

    def points(self, kind: PointKind, values: Mapping[str, float], step: int, time: float) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, int(1000 * time), step) for name, value in values.items()]
        self._client.log_batch(self.identity, metrics=metrics)

    def picture(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        self._client.log_image(self.identity, pixels, f"{name}.png")

    def confusion(self, matrix: Confusion, step: int) -> None:
        self._client.log_text(self.identity, matrix.csv, f"{matrix.name}.csv")
        if matrix.pixels is not None:
            self.picture(matrix.name, matrix.pixels)

    def model(self, path: Path) -> None:
        self._client.log_artifact(self.identity, str(path), "model")

    def close(self, ending: Ending) -> None:
        self._client.set_terminated(self.identity, _STATUS[ending])


TRACKER = Tracker(
    "mlflow",
    "The server or the store of `MLFLOW_TRACKING_URI`, by default a database in the current folder",
    "mlflow",
    _Run,
)
