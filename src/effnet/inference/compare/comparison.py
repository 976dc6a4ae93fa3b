"""Findings of two models on the same images: figures over all of them, by class and by image."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.data.sources import SourceImages
from effnet.data.workers import worker_count
from effnet.inference.classifier import Classifier
from effnet.inference.compare.answers import AnswerPairs, Best, answer_pairs
from effnet.inference.compare.classes import Classes, common_classes
from effnet.inference.compare.images import open_compared
from effnet.recipe import Recipe

_MOST_CHANGES = 50
"""pairs of answers that are listed at most"""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ModelFacts:
    """One of the models.

    Attributes:
        name: as the command line has it.
        arch: name of the network.
        engine: engine that runs it.
        precision: its arithmetic.
        image_size: side of its input in pixels.
        file_bytes: size of its file; None for published weights.
    """

    name: str
    arch: str
    engine: str
    precision: str
    image_size: int
    file_bytes: int | None


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        models: facts about each.
        classifiers: the models.
        classes: of both.
        images: the source.
        targets: int64 (N,) true classes of the images that can be decoded; None without labels.
        pairs: the answers.
    """

    models: tuple[ModelFacts, ModelFacts]
    classifiers: tuple[Classifier, Classifier]
    classes: Classes
    images: SourceImages
    targets: npt.NDArray[np.int64] | None
    pairs: AnswerPairs

    def summary(self) -> dict[str, Any]:
        """Return the figures over all images: accuracy and agreement in percent."""
        pairs = self.pairs
        agree = pairs.agree
        found: dict[str, Any] = {
            "images": len(agree),
            "bad_images": len(pairs.bad),
            "agreement": _percent(agree),
            "disagreements": int((~agree).sum()),
            "mean_moved": float(pairs.moved.mean()),
            "mean_divergence": float(pairs.divergence.mean()),
            "mean_logit_difference": float(pairs.logits.mean()),
            "largest_logit_difference": float(pairs.logits.max()),
        }
        if self.targets is not None:
            first, second = self.right()
            found |= {
                "first_top1": _percent(first),
                "second_top1": _percent(second),
                "only_first_right": int((first & ~second).sum()),
                "only_second_right": int((second & ~first).sum()),
            }
        return found

    def right(self) -> tuple[Flags, Flags]:
        """Return True where a model's answer is the true class, (N,) for each model."""
        assert self.targets is not None
        first, second = self.pairs.first.classes[:, 0], self.pairs.second.classes[:, 0]
        return first == self.targets, second == self.targets

    def by_class(self) -> list[dict[str, Any]]:
        """Return the figures of each class that has images, those in which the models differ most first.

        Without labels, a class's images are those for which the first model answers with it.
        """
        groups = self.pairs.first.classes[:, 0] if self.targets is None else self.targets
        agree = self.pairs.agree
        rows = []
        for position in np.unique(groups).tolist():
            of_class = groups == position
            row = {
                "class": self.classes.name(position),
                "images": int(of_class.sum()),
                "agreement": _percent(agree[of_class]),
            }
            if self.targets is not None:
                first, second = (_percent(right[of_class]) for right in self.right())
                row |= {"first_top1": first, "second_top1": second, "difference": second - first}
            rows.append(row)
        return sorted(
            rows, key=lambda row: (-abs(row.get("difference", 0.0)), row["agreement"], row["class"])
        )

    def changes(self) -> list[dict[str, Any]]:
        """Return the pairs of different answers with their counts, the most frequent first."""
        differ = ~self.pairs.agree
        answers = zip(
            self.pairs.first.classes[differ, 0].tolist(),
            self.pairs.second.classes[differ, 0].tolist(),
            strict=True,
        )
        name = self.classes.name
        return [
            {"first": name(first), "second": name(second), "images": count}
            for (first, second), count in Counter(answers).most_common(_MOST_CHANGES)
        ]

    def most_different(self, count: int) -> list[int]:
        """Return places in the arrays of `pairs`: images with different answers first, then by `moved`."""
        order = np.lexsort((-self.pairs.moved, self.pairs.agree))
        return [int(place) for place in order[:count]]

    def image(self, place: int) -> dict[str, Any]:
        """Return what is known of an image as plain values.

        Args:
            place: of the image in the arrays of `pairs`.
        """
        pairs = self.pairs
        label = {} if self.targets is None else {"label": self.classes.name(int(self.targets[place]))}
        return {
            "image": self.images.file(int(pairs.indices[place])),
            **label,
            "first": self._best(pairs.first, place),
            "second": self._best(pairs.second, place),
            "moved": float(pairs.moved[place]),
            "divergence": float(pairs.divergence[place]),
            "logit_difference": float(pairs.logits[place]),
        }

    def _best(self, best: Best, place: int) -> list[dict[str, Any]]:
        return [
            {"class": self.classes.name(int(position)), "probability": float(probability)}
            for position, probability in zip(best.classes[place], best.probabilities[place], strict=True)
        ]

    def to_dict(self, shown: int) -> dict[str, Any]:
        """Return plain values for JSON.

        Args:
            shown: images to list.
        """
        first, second = (dict(vars(facts)) for facts in self.models)
        return {
            "first": first,
            "second": second,
            **self.summary(),
            "classes": self.by_class(),
            "changes": self.changes(),
            "most_different": [self.image(place) for place in self.most_different(shown)],
        }


def compare(
    models: tuple[Classifier, Classifier],
    names: tuple[str, str],
    path: Path,
    recipe: Recipe,
    *,
    labelled: bool = True,
    batch_size: int = 32,
    workers: int | None = None,
) -> Comparison:
    """Compare two models on the images of a source: those of ``val/`` where there is one, else all.

    Args:
        models: two classifiers, on any engine.
        names: of the models, to be shown.
        path: the source, with labels or without.
        recipe: settings of the source.
        labelled: take the labels of the source where it has any.
        batch_size: images in a batch.
        workers: processes that decode; None for one a core, at most 16.

    Raises:
        UserError: models with different classes, several labels for an image, images that can't be used.
    """
    first, second = (model.engine for model in models)
    classes = common_classes(first, second)
    compared = open_compared(path, recipe, classes, labelled=labelled)
    batches = -(-len(compared.images) // batch_size)
    pairs = answer_pairs(
        *(first, second, classes, compared.images),
        batch_size=batch_size,
        workers=min(worker_count(workers), batches - 1),
    )
    targets = None if compared.targets is None else compared.targets[pairs.indices]
    facts = tuple(_facts(name, model) for name, model in zip(names, models, strict=True))
    return Comparison((facts[0], facts[1]), models, classes, compared.images, targets, pairs)


def _facts(name: str, model: Classifier) -> ModelFacts:
    engine, path = model.engine, Path(name)
    return ModelFacts(
        name,
        model.arch,
        engine.name,
        engine.network.precision,
        engine.preprocessing.image_size,
        path.stat().st_size if path.is_file() else None,
    )


def _percent(flags: Flags) -> float:
    return 100 * float(flags.mean())
