"""Source, model and columns: all that decides the bytes of a table."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from effnet.data.sources import SourceImages
from effnet.export.trained import ModelChoice
from effnet.inference.auto.choose import Work
from effnet.inference.engine import AUTO, Engine, open_engine
from effnet.inference.predict.answers import Answers
from effnet.inference.predict.listing import open_source
from effnet.recipe import Recipe
from effnet.runtime.files import sha256_of

_PART = 1024
"""images of a part at least: so many are computed again after a kill"""
_VERSION = 1


@dataclass(frozen=True)
class PredictJob:
    """A source, a model and the columns wanted. It can be pickled.

    Attributes:
        source: the images: a folder, a table of paths, or another data source.
        data: settings of the source by name, such as `path_column`.
        choice: the model.
        engine: as for `effnet.inference.engine.open_engine`.
        batch_size: images in a batch.
        topk: classes to name for each image.
        probabilities: write the probabilities of all classes.
        features: write the pooled features.
        tta: views of each image, as ``--tta``.
        part_images: images of a part at least.
    """

    source: Path
    choice: ModelChoice
    data: Mapping[str, Any] = field(default_factory=dict)
    engine: str | None = None
    batch_size: int = 32
    topk: int = 5
    probabilities: bool = False
    features: bool = False
    tta: str = "none"

    part_images: int = field(default_factory=lambda: _PART)

    @property
    def part(self) -> int:
        """Images of a part: whole batches, since the bits of an answer may depend on the batch."""
        return -(-self.part_images // self.batch_size) * self.batch_size

    def images(self) -> SourceImages:
        """List the source.

        Raises:
            UserError: a setting, or a source that can't be read or holds no images.
        """
        return open_source(self.source, Recipe().replace(self.data))

    def open(self, images: int = 1, *, is_shared: bool = False) -> Answers:
        """Open the model.

        Args:
            images: number of images, which decides whether ``auto`` measures engines.
            is_shared: others compute parts, too, perhaps on machines that differ; all need the same engine.

        Raises:
            UserError: see `effnet.inference.engine.open_engine`.
        """
        work = Work(self.batch_size, images, measures=not is_shared)
        engine = open_engine(self.choice, self.engine, self.tta, work)
        return Answers(engine, topk=self.topk, probabilities=self.probabilities, features=self.features)

    def continuing(self, header: Mapping[str, Any] | None) -> "PredictJob":
        """Return the job with the engine of a table that has been begun, where it leaves the engine to ``auto``."""
        found = header["model"].get("engine") if header and isinstance(header.get("model"), dict) else None
        return replace(self, engine=found) if self.engine == AUTO and isinstance(found, str) else self

    def header(self, images: SourceImages, answers: Answers) -> dict[str, Any]:
        """Return what identifies the table: plain values, which `same_table` compares."""
        engine = answers.engine
        return {
            "version": _VERSION,
            "source": {
                "images": len(images),
                "sha256": images.fingerprint(),
                "max_pixels": images.max_pixels,
            },
            "model": {
                "arch": engine.metadata.model,
                **_weights(self.choice, engine),
                "engine": str(engine.candidate),
                "device": engine.device.type,
                "precision": engine.network.precision,
                "preprocessing": engine.preprocessing.to_dict(),
                **({} if self.tta == "none" else {"tta": self.tta}),
            },
            "batch_size": self.batch_size,
            "part": self.part,
            "threads": torch.get_num_threads(),
            "topk": self.topk,
            "columns": [asdict(column) for column in answers.columns],
            "classes": list(engine.metadata.class_names()),
        }


def same_table(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Return True for the headers of the same table.

    The number of threads, on which the last bits of an answer may depend, is that of the call that began it.
    """
    return one is not None and other is not None and {**one, "threads": 0} == {**other, "threads": 0}


def _weights(choice: ModelChoice, engine: Engine) -> Mapping[str, Any]:
    if choice.weights is None:
        return {"weights": engine.metadata.tag, "sha256": engine.metadata.sha256}
    return {"sha256": [sha256_of(path) for path in _files(choice.weights)], "ema": choice.ema}


def _files(weights: Path) -> Iterator[Path]:
    yield weights
    if weights.suffix == ".xml":  # OpenVINO keeps the weights beside the graph
        yield weights.with_suffix(".bin")
