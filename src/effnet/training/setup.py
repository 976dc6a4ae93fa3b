"""From a recipe and a folder to an opened run: settings resolved, model built, data open."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from effnet.data import (
    BACKENDS,
    DataPlace,
    DataRequest,
    Datasets,
    DataSource,
    Labels,
    find_labels,
    open_data,
)
from effnet.data.preprocessing import Preprocessing
from effnet.data.sources import SplitRecord
from effnet.data.sources.folder import has_splits
from effnet.data.views import views_of
from effnet.kernels.accelerate import accelerate
from effnet.kernels.workload import Mode
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import ComputeSettings, Recipe, ResolvedRecipe
from effnet.runtime.affinity import bind_process
from effnet.runtime.errors import UserError
from effnet.runtime.memory import keep_freed_memory
from effnet.runtime.precision import Precision, make_deterministic, resolve_precision, tune_convolutions
from effnet.runtime.processes import Processes
from effnet.training.build import build_model, metadata_of, preprocessing_of, workload_of
from effnet.training.class_map import read_class_map
from effnet.training.confidence import AnswerSample, fit_confidence
from effnet.training.distillation import Distillation, open_teacher
from effnet.training.facts import check_classes, facts_of
from effnet.training.objective import check_task
from effnet.training.origin import Origin, find_origin
from effnet.training.ranking import DEFAULT_THRESHOLD
from effnet.training.recompute import recompute_blocks
from effnet.training.sync_bn import with_sync_batch_norm
from effnet.training.validate import Observer, Validator, Watch, settings_of, together
from effnet.weights import Build, WeightsMetadata
from effnet.weights.confidence import Confidence
from effnet.weights.files import CONFIDENCE_OF_EMA


@dataclass(frozen=True)
class Opened:
    """An opened run.

    Attributes:
        given: settings as given; a resumed run resolves them again.
        recipe: settings resolved.
        origin: where the run starts from.
        model: the network on its device, in its memory format.
        data: the opened splits.
        preprocessing: of the images.
        precision: arithmetic of the forward pass.
        processes: the processes of the run.
        metadata: of the model, for checkpoints.
    """

    given: Recipe
    recipe: ResolvedRecipe
    origin: Origin
    model: EfficientNet
    data: DataSource
    preprocessing: Preprocessing
    precision: Precision
    processes: Processes
    metadata: WeightsMetadata

    def validator(self) -> Validator | None:
        """Return what validates on the run's validation set; None if that is not open."""
        if self.data.val is None:
            return None
        return Validator(
            self.data.val,
            self.preprocessing,
            self.precision,
            self.processes,
            **settings_of(self.recipe, self.data.val.num_images, self.metadata.thresholds),
        )

    def metadata_with(self, confidence: Confidence | None, thresholds: Sequence[float]) -> WeightsMetadata:
        """Return the metadata of weights with their confidence and, unless they are empty, their thresholds."""
        known = tuple(thresholds) or self.metadata.thresholds
        return replace(self.metadata, confidence=confidence, thresholds=known)

    def description(
        self,
        confidence: Mapping[str, Confidence] = MappingProxyType({}),
        thresholds: Sequence[float] = (),
    ) -> dict[str, Any]:
        """Return the entries of a checkpoint that describe the run, as plain values.

        Args:
            confidence: of the weights, `val`, and of their average, `val_ema`, where it is known.
            thresholds: of several labels; empty for those of the metadata.
        """
        average = confidence.get("val_ema")
        return {
            "arch": self.recipe.model.arch,
            "recipe": self.given.to_dict(),
            "resolved_recipe": self.recipe.to_dict(),
            **({"split": self.data.made_split.to_dict()} if self.data.made_split is not None else {}),
            "metadata": self.metadata_with(confidence.get("val"), thresholds).to_dict(),
            **({} if average is None else {CONFIDENCE_OF_EMA: asdict(average)}),
        }

    def validate(
        self,
        validator: Validator,
        model: nn.Module,
        watch: Watch | None = None,
        observers: Sequence[Observer] = (),
    ) -> tuple[dict[str, float], Confidence | None]:
        """Validate a model, and fit its confidence if the recipe says so; see `Validator`.

        Returns:
            The metrics, with those of `Fitted` where a confidence was fitted, and that confidence.
        """
        if not self.recipe.run.calibrate_confidence or self.recipe.task.task == "multi":
            return validator(model, observe=together(observers), watch=watch), None
        sample = AnswerSample(validator.loader.num_images, self.recipe.model.num_classes)
        metrics = validator(model, together([sample, *observers]), watch)
        ask = partial(validator.answers, model)
        fitted = fit_confidence(sample, ask, self.recipe.run.unknown_keep, self.processes)
        return (metrics, None) if fitted is None else (metrics | fitted.metrics, fitted.confidence)


def open_run(
    given: Recipe,
    path: DataPlace | None,
    processes: Processes,
    splits: Sequence[str],
    *,
    build: Build = EfficientNet,
) -> Opened:
    """Resolve a recipe, build its model and open its data.

    Args:
        given: settings as given.
        path: folder of images; None with synthetic ones.
        processes: the processes of the run.
        splits: splits to open.
        build: makes the model of a configuration.

    Raises:
        UserError: settings, weights or data that can't be used.
    """
    device = processes.device
    if device.type == "cpu":
        keep_freed_memory()
    if given.compute.deterministic:
        make_deterministic()
    origin = find_origin(given)
    # Only training may put a new classifier on the weights.
    trains = "train" in splits
    classes = _known_classes(given, origin, keeps_classifier=not trains)
    labels = _found_labels(given, origin, path, splits, classes)
    num_classes = len(classes or labels.classes)
    check_classes(given, num_classes, _classes_source(given, origin) if classes else str(path or "the data"))
    recipe = given.resolve(
        facts_of(
            given,
            precision=resolve_precision(given.compute.precision, device),
            num_classes=num_classes,
            world_size=processes.world_size,
            metadata=origin.metadata,
            resume=origin.resume,
            several_labels=labels.several,
        )
    )
    preprocessing = preprocessing_of(recipe, origin)
    precision = Precision(
        recipe.compute.precision,
        device,
        static_loss_scale=recipe.compute.static_loss_scale,
        initial_loss_scale=recipe.compute.initial_loss_scale,
    )
    model = _build(recipe, origin, processes, build, trains=trains)
    place = device, processes.rank, processes.world_size
    views = views_of("none" if trains else recipe.run.tta)
    data = open_data(
        DataRequest(
            recipe,
            path or Path(),
            views.preprocessing(preprocessing),
            *place,
            splits,
            classes,
            _stored_split(given, path, origin),
        )
    )
    metadata = metadata_of(model, preprocessing, data.classes, _thresholds(recipe, origin, trains=trains))
    for of_split in data.labels.values():
        check_task(recipe, of_split)
    # Last: the workers' share of the cores has been counted among all cores that this machine offers.
    bind_process(recipe.compute.gpu_affinity, device, processes.local_rank, processes.local_world_size)
    return Opened(given, recipe, origin, model, data, preprocessing, precision, processes, metadata)


def _stored_split(recipe: Recipe, path: DataPlace | None, origin: Origin) -> SplitRecord | None:
    """Return the split of the run that the model comes from, for data that may lack one."""
    lacks_own = isinstance(path, Datasets) or (isinstance(path, Path) and not has_splits(path))
    is_read = lacks_own and BACKENDS[recipe.data.data_backend].reads_sources
    return origin.stored_split() if is_read else None


def distillation_of(opened: Opened) -> Distillation | None:
    """Return what blends a run's loss with its teacher's answers; None without a teacher.

    Raises:
        UserError: a teacher that can't be used.
    """
    settings = opened.recipe.optimizer
    if settings.teacher is None:
        return None
    teacher = open_teacher(
        settings.teacher, opened.data.classes, opened.preprocessing, opened.processes.device
    )
    return Distillation(
        teacher,
        weight=settings.teacher_weight,
        temperature=settings.teacher_temperature,
        several_labels=opened.recipe.task.task == "multi",
    )


def _found_labels(
    given: Recipe,
    origin: Origin,
    path: DataPlace | None,
    splits: Sequence[str],
    classes: Sequence[str] | None,
) -> Labels:
    """Return the labels that the weights have been trained on, if they are used as they are, or those of the data."""
    of_weights = origin.metadata if origin.resume or "train" not in splits else None
    if classes and (of_weights is not None or given.task.task != "auto"):
        return Labels(list(classes), of_weights is not None and of_weights.several_labels)
    return find_labels(given, path or Path(), splits)


def _thresholds(recipe: ResolvedRecipe, origin: Origin, *, trains: bool) -> Sequence[float]:
    """Return the thresholds of the weights, or those to start with; none for images with one label."""
    if recipe.task.task == "single":
        return ()
    # A training measures all its epochs alike, before and after a resume, and chooses thresholds at the end of each.
    known = origin.metadata.thresholds if origin.metadata and not trains else ()
    return known or [DEFAULT_THRESHOLD] * recipe.model.num_classes


def _known_classes(recipe: Recipe, origin: Origin, *, keeps_classifier: bool) -> Sequence[str] | None:
    if not BACKENDS[recipe.data.data_backend].reads_path:
        return None
    of_weights = origin.classes(keeps_classifier=keeps_classifier)
    if recipe.data.class_map is None:
        return of_weights
    classes = read_class_map(recipe.data.class_map)
    # Weights that do not fit are refused when the model is built, where their number is known without metadata.
    if origin.checkpoint is not None and of_weights is not None and len(of_weights) != len(classes):
        raise UserError(
            f"--class-map {recipe.data.class_map} names {len(classes)} classes, {origin.name} has {len(of_weights)}"
        )
    return classes


def _classes_source(recipe: Recipe, origin: Origin) -> str:
    return origin.name if recipe.data.class_map is None else f"--class-map {recipe.data.class_map}"


def _build(
    recipe: ResolvedRecipe, origin: Origin, processes: Processes, build: Build, *, trains: bool
) -> EfficientNet:
    """Return the run's model, with this project's kernels if it is to be trained."""
    tune_convolutions(processes.device)
    torch.manual_seed(recipe.compute.seed + processes.rank)
    model = build_model(recipe, origin, processes.device, build=build, keeps_classifier=not trains)
    if recipe.compute.sync_bn and processes.world_size > 1:
        with_sync_batch_norm(model)
    if trains:
        accelerate(model, workload_of(recipe), kernels_of(recipe.compute, processes.device))
        if recipe.compute.recompute:
            recompute_blocks(model)
    return model


def kernels_of(compute: ComputeSettings, device: torch.device) -> Mode:
    """Return the kernels to take on a device; never a choice by measurement where results must repeat."""
    by_measurement = compute.kernels == "auto" and device.type == "cuda"
    return "torch" if compute.deterministic and by_measurement else compute.kernels
