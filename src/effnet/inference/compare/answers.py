"""The answers of two models for the same images, and how far they are apart."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from effnet.data.sources import SourceImages
from effnet.inference.compare.classes import Classes
from effnet.inference.decoded import Decoded, decoded_batches
from effnet.inference.engine import Engine
from effnet.runtime.errors import UserError
from effnet.runtime.progress import ProgressBar

KEPT = 5
"""most probable classes of an image that are kept"""


class Best(NamedTuple):
    """A model's most probable classes.

    Attributes:
        classes: int64 (N, K), positions in `Classes`, the most probable first.
        probabilities: float32 (N, K), with the temperature of the model.
    """

    classes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class AnswerPairs:
    """The answers of two models for N images.

    Attributes:
        indices: int64 (N,), positions of the images in the source.
        first: the first model's.
        second: the second model's.
        moved: float32 (N,) in [0, 1]: half the sum of the absolute differences of the probabilities, the share of the
            probability that lies on other classes.
        divergence: float32 (N,), Kullback-Leibler divergence of the second model's probabilities from the first's.
        logits: float32 (N,), largest absolute difference of a logit.
        bad: names of images that can't be decoded, and why.
    """

    indices: npt.NDArray[np.int64]
    first: Best
    second: Best
    moved: npt.NDArray[np.float32]
    divergence: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    bad: list[tuple[str, str]]

    @property
    def agree(self) -> npt.NDArray[np.bool_]:
        """True where both models answer with the same class, (N,)."""
        return np.asarray(self.first.classes[:, 0] == self.second.classes[:, 0])


def answer_pairs(
    first: Engine, second: Engine, classes: Classes, images: SourceImages, *, batch_size: int, workers: int
) -> AnswerPairs:
    """Ask two models about every image of a source. Memory grows by some bytes an image.

    Args:
        first: a model.
        second: another one.
        classes: of both.
        images: the source.
        batch_size: images in a batch.
        workers: processes that decode.

    Raises:
        UserError: logits that are not finite, no image that can be decoded, or what `decoded_batches` raises.
    """
    engines = first, second
    # Models of the same preprocessing share their pixels.
    kinds = list(dict.fromkeys(engine.preprocessing for engine in engines))
    places = [kinds.index(engine.preprocessing) for engine in engines]
    rows: list[dict[str, npt.NDArray[Any]]] = []
    bad: list[tuple[str, str]] = []
    with ProgressBar("comparing", len(images)) as bar:
        for batch in decoded_batches(
            images, kinds, [range(len(images))], batch_size=batch_size, workers=workers
        ):
            bad += batch.bad
            if batch.indices:
                logits = [
                    _logits(engine, batch, place) for engine, place in zip(engines, places, strict=True)
                ]
                if classes.order is not None:
                    logits[1] = logits[1][:, list(classes.order)]
                rows.append({"indices": np.array(batch.indices, np.int64), **_compared(engines, logits)})
            bar.advance(batch.images)
    if not rows:
        raise UserError(f"--data: none of the {len(images):,} images can be decoded: {': '.join(bad[0])}")
    found = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    best = [Best(found.pop(f"classes{n}"), found.pop(f"probabilities{n}")) for n in range(2)]
    return AnswerPairs(first=best[0], second=best[1], bad=bad, **found)


def _logits(engine: Engine, batch: Decoded, place: int) -> Tensor:
    """Return logits float64 (N, classes) on the CPU."""
    logits = engine.logits(batch.pixels[place].numpy())
    finite = logits.isfinite().all(1)
    if not bool(finite.all()):
        raise UserError(
            f"{batch.paths[int(finite.int().argmin())]}: the logits of {engine.metadata.model} on {engine.name} are "
            "not finite for it; check the weights"
        )
    return logits.cpu().double()


def _compared(engines: tuple[Engine, Engine], logits: list[Tensor]) -> dict[str, npt.NDArray[Any]]:
    logs = [
        (each / _temperature(engine)).log_softmax(1) for engine, each in zip(engines, logits, strict=True)
    ]
    shares = [each.exp() for each in logs]
    found: dict[str, npt.NDArray[Any]] = {}
    for number, share in enumerate(shares):
        best = share.sort(dim=1, descending=True, stable=True)
        found[f"classes{number}"] = best.indices[:, :KEPT].numpy()
        found[f"probabilities{number}"] = best.values[:, :KEPT].float().numpy()
    found["moved"] = (shares[0] - shares[1]).abs().sum(1).div(2).float().numpy()
    found["divergence"] = (shares[0] * (logs[0] - logs[1])).sum(1).clamp_min(0).float().numpy()
    found["logits"] = (logits[0] - logits[1]).abs().amax(1).float().numpy()
    return found


def _temperature(engine: Engine) -> float:
    confidence = engine.metadata.confidence
    return 1.0 if confidence is None else confidence.temperature
