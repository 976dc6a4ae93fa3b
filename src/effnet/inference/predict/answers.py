"""Answers of a model as columns of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from effnet.data.decode import Pixels
from effnet.inference.engine import Engine
from effnet.inference.predict.columns import Column, Rows
from effnet.runtime.errors import UserError

PATH = Column("path", "text")


class Answers:
    """The columns of a model's answers.

    Args:
        engine: the model.
        topk: classes to name for each image, at most those that there are.
        probabilities: add a column with the probabilities of all classes.
        features: add a column with the pooled features.

    Attributes:
        columns: `path` and the model's, in order.

    Raises:
        UserError: `features` of an engine that returns logits only.
    """

    def __init__(self, engine: Engine, *, topk: int, probabilities: bool, features: bool) -> None:
        self.engine = engine
        if features and engine.network.features is None:
            raise UserError(
                f"--features: {engine.name} returns logits only; give weights and --engine torch, without --tta"
            )
        self._topk, self._probabilities, self._features = topk, probabilities, features
        confidence = engine.metadata.confidence
        self._has_rule = confidence is not None and confidence.unknown is not None
        self._thresholds = np.array(engine.metadata.thresholds, dtype=np.float32)
        self._names = engine.metadata.class_names()
        self.columns = self._columns()

    def _columns(self) -> tuple[Column, ...]:
        columns = [
            PATH,
            Column("label", "text"),
            Column("index", "integer"),
            Column("probability", "number"),
            Column("topk_labels", "texts"),
            Column("topk_probabilities", "numbers"),
        ]
        if len(self._thresholds):
            columns += [Column("labels", "texts"), Column("label_probabilities", "numbers")]
        if self._has_rule:
            columns.append(Column("known", "flag"))
        if self._probabilities:
            columns.append(Column("probabilities", "numbers"))
        if self._features:
            columns.append(Column("features", "numbers"))
        return tuple(columns)

    def __call__(self, pixels: Pixels, paths: Sequence[str]) -> Rows:
        """Return the rows of a batch.

        Args:
            pixels: RGB uint8 (N, image_size, image_size, 3).
            paths: N names of the images.

        Raises:
            UserError: the logits of an image are not finite.
        """
        logits, features = self._computed(pixels)
        probabilities = self.engine.probabilities(logits)
        self._check_finite(probabilities, paths)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : self._topk]
        highest = np.take_along_axis(probabilities, best, axis=1)
        rows: dict[str, Any] = {
            "path": list(paths),
            "label": [self._name(index) for index in best[:, 0]],
            "index": best[:, 0].astype(np.int32),
            "probability": highest[:, 0],
            "topk_labels": [[self._name(index) for index in row] for row in best],
            "topk_probabilities": highest,
        }
        if len(self._thresholds):
            rows |= self._above_thresholds(probabilities)
        if self._has_rule:
            rows["known"] = self.engine.known(logits)
        if self._probabilities:
            rows["probabilities"] = probabilities
        if features is not None:
            rows["features"] = features
        return rows

    def _above_thresholds(self, probabilities: npt.NDArray[np.float32]) -> Rows:
        """Return the labels of images that may have none or several, the most probable first."""
        labels, of_labels = [], []
        for row in probabilities:
            order = np.argsort(-row, kind="stable")
            reached = order[(row >= self._thresholds)[order]]
            labels.append([self._name(index) for index in reached])
            of_labels.append(row[reached])
        return {"labels": labels, "label_probabilities": of_labels}

    @torch.inference_mode()
    def _computed(self, pixels: Pixels) -> tuple[torch.Tensor, npt.NDArray[np.float32] | None]:
        engine = self.engine
        if not self._features:
            return engine.logits(pixels), None
        assert engine.network.features is not None
        with engine.network.features() as taken:
            logits = engine.logits(pixels)
        return logits, taken[0].float().cpu().numpy()

    def _name(self, index: int) -> str:
        return self._names[index] if self._names else f"class {index}"

    def _check_finite(self, probabilities: npt.NDArray[np.float32], paths: Sequence[str]) -> None:
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            raise UserError(
                f"{paths[int(np.argmin(finite))]}: the logits of {self.engine.metadata.model} are not finite for it; "
                "check the weights (were they taken from a training that diverged?), or give --precision fp32"
            )
