"""A trained classifier for programs: images of any kind in, labelled probabilities out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from effnet.data.decode import BadImageError, Pixels
from effnet.data.transforms import ValTransform
from effnet.export.trained import ModelChoice
from effnet.inference.auto.choose import Work
from effnet.inference.engine import Engine, open_engine
from effnet.inference.engines import is_exported
from effnet.inference.heat_maps import DEFAULT_LAYER, DEFAULT_METHOD
from effnet.inference.images import ImageLike, NamedImage, is_single, named_images
from effnet.models import list_models
from effnet.runtime.errors import UserError
from effnet.training.run_weights import averaged_is_better, best_checkpoint
from effnet.weights import list_weights
from effnet.weights.hub import WEIGHTS_FILE, local_source
from effnet.weights.published import metadata_of_tag

_TOPK = 5


@dataclass(frozen=True)
class Prediction:
    """One predicted class, or one label of several.

    Attributes:
        index: position among the model's classes.
        folder: the class's folder name in a data set, ImageNet's wnid for instance; empty if unknown.
        name: the class's name for people.
        probability: in [0, 1].
    """

    index: int
    folder: str
    name: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """The predictions for one image.

    Attributes:
        image: path of the image; empty for pixels.
        predictions: the most probable first. Where an image may have several labels, those that reach their thresholds,
            which may be none.
        is_unknown: the image is of none of the classes, by the rule of the weights; False if that was not asked for.
    """

    image: str
    predictions: tuple[Prediction, ...]
    is_unknown: bool = False

    @property
    def best(self) -> Prediction:
        """The most probable class.

        Raises:
            UserError: no label reaches its threshold.
        """
        if not self.predictions:
            raise UserError(
                f"{self.image or 'the image'} has no label whose probability reaches its threshold"
            )
        return self.predictions[0]


class Classifier:
    """A model on an engine, for images of any kind; `effnet.load` opens one.

    Args:
        engine: the model.
        batch_size: images in a batch.
        unknown: tell images of none of the classes, `Answer.is_unknown`.

    Attributes:
        engine: the model on its engine.
        batch_size: images in a batch.
        unknown: as given.

    Raises:
        UserError: `unknown`, and the weights hold no rule for it.
    """

    def __init__(self, engine: Engine, *, batch_size: int = 16, unknown: bool = False) -> None:
        self.engine = engine
        self.batch_size = batch_size
        self.unknown = unknown
        if unknown:
            engine.known(torch.empty(0, 1))
        # All of an image for a network that resizes.
        self._transform = None if engine.network.resizes else ValTransform(engine.preprocessing)
        self._names = engine.metadata.class_names()
        self._folders = engine.metadata.class_folders()
        self._thresholds = np.array(engine.metadata.thresholds, dtype=np.float32)

    @property
    def arch(self) -> str:
        """Name of the model, as `effnet.list_models` has it."""
        return self.engine.metadata.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the probabilities; empty where the weights have none."""
        return self._names

    def __repr__(self) -> str:
        known = f"{len(self._names)} classes" if self._names else "classes without names"
        return (
            f"Classifier({self.arch}, {self.engine.preprocessing.image_size} px, {known}, {self.engine.name})"
        )

    def __call__(self, images: ImageLike | Sequence[ImageLike], *, topk: int | None = None) -> Any:
        """Classify images.

        Args:
            images: see `effnet.inference.images.ImageLike`, or a list of these.
            topk: most predictions for each image; None for 5, or for all labels where an image may have several.

        Returns:
            An `Answer` for one image; a list of them for a folder, a pattern, a batch or a list.

        Raises:
            UserError: an argument that names no image, or an image that can't be decoded.
        """
        answers = [self.answer(image, row, topk) for image, row in self._decoded_rows(images)]
        return answers[0] if is_single(images) else answers

    def probabilities(self, images: ImageLike | Sequence[ImageLike]) -> npt.NDArray[np.float32]:
        """Return the probabilities of all classes, (N, classes), also for a single image.

        Args:
            images: as for a call.

        Raises:
            UserError: as for a call.
        """
        return np.stack([self._finite(image, row).probabilities for image, row in self._decoded_rows(images)])

    def explain(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        label: str | int | None = None,
        method: str = DEFAULT_METHOD,
        layer: str = DEFAULT_LAYER,
    ) -> Any:
        """Return heat maps: the parts of images that speak for a class.

        Args:
            images: as for a call.
            label: the class: its name, its folder's name or its index; None for each image's most probable one.
            method: ``grad-cam`` or ``layer-cam``.
            layer: ``features``, the head, or an earlier part with a finer grid: ``stem``, ``layer1``, ``layer2``, ...

        Returns:
            An `effnet.inference.explain.Explanation` for one image; a list of them for a folder, a pattern, a batch or
            a list.

        Raises:
            UserError: as for a call; an engine other than PyTorch; no such class, method or layer.
        """
        from effnet.inference.explain import Explainer  # which needs this module

        explanations = []
        for found in Explainer(self, label=label, method=method, layer=layer).each(named_images(images)):
            if isinstance(found, BadImageError):
                raise UserError(str(found))
            explanations.append(found)
        return explanations[0] if is_single(images) else explanations

    def prediction(self, index: int, probability: float) -> Prediction:
        """Return the prediction of a class by its position among the logits."""
        return Prediction(
            index=index,
            folder=self._folders[index] if self._folders else "",
            name=self._names[index] if self._names else f"class {index}",
            probability=probability,
        )

    def _decoded_rows(self, images: ImageLike | Sequence[ImageLike]) -> Iterator[tuple[NamedImage, "Row"]]:
        """Yield each image with its probabilities; raise `UserError` for one that can't be decoded."""
        for image, row in self._rows(named_images(images)):
            if isinstance(row, BadImageError):
                raise UserError(str(row))
            yield image, row

    def each(
        self, images: Iterable[NamedImage], *, topk: int | None = None
    ) -> Iterator[tuple[NamedImage, Answer | BadImageError]]:
        """Yield each image with its answer or with the reason why it can't be decoded, in order.

        Args:
            images: read batch by batch, so that any number of them needs the memory of one batch.
            topk: as for a call.

        Raises:
            UserError: the model's answer for an image is not finite.
        """
        for image, row in self._rows(images):
            yield image, row if isinstance(row, BadImageError) else self.answer(image, row, topk)

    def _rows(self, images: Iterable[NamedImage]) -> Iterator[tuple[NamedImage, "Row | BadImageError"]]:
        remaining = iter(images)
        while batch := list(islice(remaining, self.batch_size)):
            pixels = [self.prepare(image) for image in batch]
            good = [each for each in pixels if not isinstance(each, BadImageError)]
            rows = iter(self.rows(good))
            for image, each in zip(batch, pixels, strict=True):
                yield image, each if isinstance(each, BadImageError) else next(rows)

    def prepare(self, image: NamedImage) -> Pixels | BadImageError:
        """Return the pixels of an image for `rows`, or the reason why it can't be decoded.

        They are uint8 (S, S, 3), or (H, W, 3) for a network that resizes.
        """
        try:
            opened = image.open()
            return opened.decode() if self._transform is None else self._transform(opened)
        except BadImageError as error:
            return error

    def rows(self, images: Sequence[Pixels]) -> list["Row"]:
        """Return the classifier's row for each image, of what `prepare` returned; those of one size in one batch."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(index)
        rows: dict[int, Row] = {}
        for indices in by_size.values():
            rows |= zip(indices, self._rows_of_batch(np.stack([images[i] for i in indices])), strict=True)
        return [rows[index] for index in range(len(images))]

    def _rows_of_batch(self, images: Pixels) -> list["Row"]:
        logits = self.engine.logits(images)
        probabilities = self.engine.probabilities(logits)
        known = self.engine.known(logits).tolist() if self.unknown else [True] * len(probabilities)
        return [Row(row, not is_known) for row, is_known in zip(probabilities, known, strict=True)]

    def answer(self, image: NamedImage, row: "Row", topk: int | None = None) -> Answer:
        """Return the answer for an image.

        Args:
            image: the image.
            row: what `rows` returned for it.
            topk: as for a call.

        Raises:
            UserError: the probabilities are not finite.
        """
        probabilities = self._finite(image, row).probabilities
        return Answer(image.name, tuple(self._best(probabilities, topk)), row.is_unknown)

    def _finite(self, image: NamedImage, row: "Row") -> "Row":
        if not np.isfinite(row.probabilities).all():
            raise UserError(
                f"{image.name or 'an image'}: the logits of {self.arch} are not finite for it; check the weights "
                "(were they taken from a training that diverged?), or give --precision fp32"
            )
        return row

    def _best(self, probabilities: npt.NDArray[np.float32], topk: int | None) -> list[Prediction]:
        order = np.argsort(-probabilities, kind="stable")
        if len(self._thresholds):
            order = order[(probabilities >= self._thresholds)[order]]
        elif topk is None:
            topk = _TOPK
        return [self.prediction(int(index), float(probabilities[index])) for index in order[:topk]]


class Row(NamedTuple):
    """The classifier's answer for an image, probabilities float32 (classes,)."""

    probabilities: npt.NDArray[np.float32]
    is_unknown: bool


def load(
    source: str | PathLike[str],
    *,
    arch: str | None = None,
    ema: bool | None = None,
    engine: str | None = None,
    device: str = "auto",
    image_size: int | None = None,
    precision: str = "fp32",
    batch_size: int = 16,
    unknown: bool = False,
    tta: str = "none",
) -> Classifier:
    """Open a trained classifier.

    Args:
        source: a weight file, a checkpoint or the folder of a run (its best checkpoint), a file of `effnet export`, the
            name of a model (its published weights), the tag of published weights, ``publisher/name``, or a repository
            on the hub, ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision``.
        arch: the model; None for the one that the weights name or look like.
        ema: take a checkpoint's averaged weights; None for those that were the better ones in validation.
        engine: as ``effnet classify --engine``; None for the file's own, which is PyTorch for weights. ``auto``
            measures engines for some seconds, once for each model, batch size and machine.
        device: ``auto``, ``cuda`` or ``cpu``.
        image_size: side of the input in pixels; None for the weights'.
        precision: arithmetic in PyTorch: ``fp32``, ``tf32``, ``fp16``, ``bf16`` or ``amp``.
        batch_size: images in a batch.
        unknown: tell images of none of the classes, `Answer.is_unknown`.
        tta: average the probabilities over views of each image: ``flip``, ``five`` or ``ten``, as ``effnet classify
            --tta``.

    Returns:
        A function of images; see `Classifier`.

    Raises:
        UserError: weights that can't be found, downloaded or read, or don't fit; an engine that is not installed.

    Example:
        >>> classifier = load("efficientnet-lite0")
        >>> classifier.classes[:2]
        ('tench', 'goldfish')
    """
    choice = replace(choice_of(source, ema), device=device, image_size=image_size, precision=precision)
    if arch is not None:
        choice = replace(choice, arch=arch)
    opened = open_engine(choice, engine, tta, Work(batch_size))
    return Classifier(opened, batch_size=batch_size, unknown=unknown)


def choice_of(source: str | PathLike[str], ema: bool | None = None) -> ModelChoice:
    """Return the choice of a model for the arguments of `load`.

    Raises:
        UserError: a folder without a checkpoint, or a file that can't be read.
    """
    choice = named_choice(source)
    if choice.weights is None or is_exported(choice.weights):
        return choice
    return replace(choice, ema=averaged_is_better(choice.weights) if ema is None else ema)


def named_choice(source: str | PathLike[str]) -> ModelChoice:
    """Return the choice of a model for the source of `load`, without a look into its file.

    Raises:
        UserError: a folder without a checkpoint.
    """
    name = fspath(source)
    path = Path(local_source(source))
    if path.is_dir():
        pushed = path / WEIGHTS_FILE
        return ModelChoice(weights=pushed if pushed.is_file() else best_checkpoint(path))
    if path.exists() or not isinstance(source, str):
        return ModelChoice(weights=path)
    if name in list_models():
        return ModelChoice(arch=name)
    if any(row.tag == name for row in list_weights()):
        return ModelChoice(arch=metadata_of_tag(name).model, publisher=name)
    return ModelChoice(weights=path)
