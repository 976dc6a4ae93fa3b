"""Accuracy and speed of a model on a validation set."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from effnet.data import DataPlace, DataRequest, DataSource, find_classes, open_data
from effnet.data.preprocessing import Preprocessing
from effnet.data.views import views_of
from effnet.export.trained import ModelChoice, TrainedModel
from effnet.inference.auto.choose import Work
from effnet.inference.by_class import ClassMetrics, class_metrics, write_per_class
from effnet.inference.engine import AUTO, Engine, engine_of, open_engine
from effnet.inference.engines import is_exported
from effnet.inference.reliability import Reliability
from effnet.inference.views import Averaged
from effnet.quantization.model import build
from effnet.recipe import Recipe, ResolvedRecipe
from effnet.runtime.disk import cannot_write
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.precision import Precision, resolve_precision
from effnet.runtime.processes import Processes, joined_processes
from effnet.runtime.progress import silent
from effnet.runtime.text import to_json
from effnet.training.class_map import read_class_map
from effnet.training.confidence import Calibrated
from effnet.training.confusion import ConfusionMatrix
from effnet.training.content import resuming
from effnet.training.facts import check_classes, facts_of
from effnet.training.foreign_checkpoint import with_our_names
from effnet.training.origin import Origin
from effnet.training.reporter import prefixed
from effnet.training.setup import Opened, open_run
from effnet.training.validate import Observer, Validator, settings_of, together
from effnet.training.workspace import prepare_workspace
from effnet.weights.confidence import Confidence
from effnet.weights.files import CONFIDENCE_OF_EMA


@dataclass(frozen=True)
class Opening:
    """Models and data to evaluate.

    Attributes:
        recipe: resolved settings.
        data: its validation set.
        models: network and validator by the prefix of their metrics: `val` and, for averaged weights, `val_ema`.
        confidence: confidence of a model's answers, by the same prefix, where it is known.
    """

    recipe: ResolvedRecipe
    data: DataSource
    models: dict[str, tuple[nn.Module, Validator]]
    confidence: dict[str, Confidence]


def evaluate(recipe: Recipe, path: DataPlace | None, *, as_json: bool = False) -> dict[str, float]:
    """Validate a recipe's model: a checkpoint (`resume`), published weights, a weight file or an exported one.

    Args:
        recipe: settings.
        path: folder with ``val/<class>/``; None with synthetic images.
        as_json: print one JSON object in place of lines.

    Returns:
        `val.loss`, `val.top1`, `val.top5` (percent), `val.images`, rates and latencies; `val_ema.*` beside them
        where the checkpoint holds averaged weights. Where the weights bring a confidence, `val.temperature`,
        `val.calibrated_loss` and `val.calibrated_ece` are those of logits with that temperature; `val.loss` is of raw
        logits.

    Raises:
        UserError: settings, weights or data that can't be used.
    """
    workspace = prepare_workspace(recipe.run)
    with (
        silent(recipe.run.quiet or as_json),
        joined_processes(recipe.compute.device, timeout=recipe.compute.collective_timeout) as processes,
    ):
        opened = open_evaluation(recipe, path, processes)
        several = opened.recipe.task.task == "multi"
        if several and (recipe.run.confusion or recipe.run.reliability) is not None:
            flag = "--reliability" if recipe.run.confusion is None else "--confusion"
            raise UserError(f"{flag} needs images with one label each; --per-class takes several")
        wanted = _wants_matrix(recipe) and not several
        matrix = ConfusionMatrix(opened.data.classes, processes.device) if wanted else None
        reliability = None if recipe.run.reliability is None else _reliability(opened, processes)
        metrics = _validate(opened, [each for each in (matrix, reliability) if each is not None])
        by_class = _by_class(opened) if recipe.run.per_class is not None else None
        log_path, quiet = workspace / recipe.run.report_file, recipe.run.quiet and not as_json
        with RunLog(log_path, append=True, is_main=processes.is_main, quiet=quiet) as log:
            log.record("parameters", {"recipe": opened.recipe.to_dict()})
            log.record("summary", metrics)
            if opened.data.val is not None and (left_out := processes.merge(opened.data.val.bad_images)):
                log.bad_images("val", left_out)
            _write(recipe, matrix, by_class, reliability, processes)
            if as_json:
                per_class = {} if by_class is None else {"per_class": by_class}
                log.print(to_json({"model": opened.recipe.model.arch, **metrics, **per_class}))
            else:
                for name, value in metrics.items():
                    log.print(f"{name} {value:.6g}")
    return metrics


def _reliability(opened: Opening, processes: Processes) -> Reliability:
    """Return the observer of the first weights' confidence, with their temperature beside raw logits."""
    known = opened.confidence.get(next(iter(opened.models)))
    return Reliability(processes, 1.0 if known is None else known.temperature)


def _wants_matrix(recipe: Recipe) -> bool:
    return recipe.run.per_class is not None or recipe.run.confusion is not None


def open_evaluation(recipe: Recipe, path: DataPlace | None, processes: Processes) -> Opening:
    """Open the models and the validation set of a recipe, as `evaluate` describes them.

    Raises:
        UserError: settings, weights or data that can't be used.
    """
    file = recipe.model.pretrained_from_file
    if is_exported(Path(file) if file else None):
        return _open_exported(recipe, path, processes)
    opened = open_run(recipe, path, processes, ("val",), build=build)
    if recipe.run.engine is None:
        models = {prefix: (model, _own_validator(opened)) for prefix, model in _weights(opened).items()}
    else:
        on_engine = {prefix: _on_engine(opened, model) for prefix, model in _weights(opened).items()}
        models = {
            prefix: (engine.network, _validator(opened.recipe, opened.data, processes, engine))
            for prefix, engine in on_engine.items()
        }
    return _with_views(Opening(opened.recipe, opened.data, models, _confidence(opened.origin)))


def _with_views(opening: Opening) -> Opening:
    """Return the models over the views of each image that the recipe asks for."""
    recipe, views = opening.recipe, views_of(opening.recipe.run.tta)
    if not views.are_several:
        return opening
    models: dict[str, tuple[nn.Module, Validator]] = {}
    for prefix, (model, validator) in opening.models.items():
        confidence = opening.confidence.get(prefix, Confidence())
        averaged = Averaged(
            model,
            views,
            recipe.model.image_size,
            temperature=confidence.temperature,
            several_labels=recipe.task.task == "multi",
        )
        models[prefix] = averaged, validator
    return replace(opening, models=models)


def _confidence(origin: Origin) -> dict[str, Confidence]:
    """Return the confidence that is stored with weights and, in a checkpoint, with their average."""
    stored = (origin.checkpoint or {}).get(CONFIDENCE_OF_EMA)
    known = {
        "val": origin.metadata.confidence if origin.metadata else None,
        "val_ema": Confidence.from_dict(stored) if stored else None,
    }
    return {prefix: confidence for prefix, confidence in known.items() if confidence is not None}


def _weights(opened: Opened) -> dict[str, nn.Module]:
    """Return the model with the weights of a run and, where a checkpoint has it, with their average."""
    checkpoint = opened.origin.checkpoint
    if checkpoint is None:
        return {"val": opened.model}
    models: dict[str, nn.Module] = {"val": opened.model}
    with resuming(opened.origin.resume):
        checkpoint = with_our_names(checkpoint, opened.model)
        opened.model.load_state_dict(checkpoint["state_dict"])
        if checkpoint.get("state_dict_ema") is not None:
            models["val_ema"] = copy.deepcopy(opened.model)
            models["val_ema"].load_state_dict(checkpoint["state_dict_ema"])
    return models


def _own_validator(opened: Opened) -> Validator:
    validator = opened.validator()
    assert validator is not None
    return validator


def _on_engine(opened: Opened, model: nn.Module) -> Engine:
    assert opened.recipe.run.engine is not None
    trained = TrainedModel(model, opened.metadata)
    place = opened.processes.device, opened.precision.name
    return engine_of(trained, opened.recipe.run.engine, *place, _work(opened.data))


def _work(data: DataSource) -> Work:
    """Return the images of this process."""
    assert data.val is not None
    return Work(data.val.batch_size, len(data.val) * data.val.batch_size)


def _open_exported(recipe: Recipe, path: DataPlace | None, processes: Processes) -> Opening:
    choice = ModelChoice(
        weights=Path(recipe.model.pretrained_from_file or ""),
        image_size=recipe.model.image_size,
        device=processes.device.type,
        precision=recipe.compute.precision or "fp32",
    )
    if recipe.run.engine != AUTO:
        return open_for(open_engine(choice, recipe.run.engine), recipe, path, processes)
    # The data, of which the choice depends on the number of images, is opened for the file first.
    return open_for(
        open_engine(choice),
        recipe,
        path,
        processes,
        lambda data: open_engine(choice, AUTO, work=_work(data)),
    )


def open_for(
    engine: Engine,
    recipe: Recipe,
    path: DataPlace | None,
    processes: Processes,
    choose: Callable[[DataSource], Engine] | None = None,
) -> Opening:
    """Open the validation set with the preprocessing of an engine's model.

    Args:
        engine: the model.
        recipe: data settings; sizes and interpolation that it leaves open are the model's.
        path: folder with ``val/<class>/``; None with synthetic images.
        processes: the processes that share the set.
        choose: returns another engine for the same model and the data.

    Raises:
        UserError: data that can't be used, or has other classes than the model.
    """
    classes = _classes(recipe, engine, path)
    check_classes(recipe, len(classes), f"{engine.metadata.model} on {engine.name}")
    own = "tf32" if engine.network.precision == "tf32" else "fp32"
    own_preprocessing = Preprocessing.from_dict(engine.metadata.preprocessing)
    given = recipe.replace({"arch": engine.metadata.model, "image_size": own_preprocessing.image_size})
    facts = facts_of(
        given,
        precision=resolve_precision(recipe.compute.precision or own, processes.device),
        num_classes=len(classes),
        world_size=processes.world_size,
        metadata=engine.metadata,
        several_labels=engine.metadata.several_labels,
    )
    resolved = given.resolve(facts)
    preprocessing = views_of(resolved.run.tta).preprocessing(
        _before(engine, own_preprocessing, resolved.data.resize, resolved.data.interpolation)
    )
    place = processes.device, processes.rank, processes.world_size
    data = open_data(DataRequest(resolved, path or Path(), preprocessing, *place, ("val",), classes))
    if choose is not None:
        engine = choose(data)
    known = engine.metadata.confidence
    return _with_views(
        Opening(
            resolved,
            data,
            {"val": (engine.network, _validator(resolved, data, processes, engine))},
            {} if known is None else {"val": known},
        )
    )


def _before(engine: Engine, own: Preprocessing, resize: int, interpolation: str) -> Preprocessing:
    """Return the preprocessing of images before an engine's network, with the recipe's resize and interpolation.

    Raises:
        UserError: they are others than those of a network that resizes itself.
    """
    wanted = replace(own, resize=resize, interpolation=interpolation)
    if not engine.network.resizes:
        return wanted
    if wanted != own:
        raise UserError(
            f"--resize {resize}, --interpolation {interpolation}: the file resizes images itself, to {own.resize} px, "
            f"{own.interpolation}; export it with --decode none"
        )
    return engine.network.preprocessing


def _classes(recipe: Recipe, engine: Engine, path: DataPlace | None) -> list[str]:
    """Return the classes of the data in the order of the logits."""
    known = list(engine.metadata.class_folders())
    if recipe.data.class_map is None:
        return known or find_classes(recipe, path or Path(), ("val",))
    classes = read_class_map(recipe.data.class_map)
    if known and len(known) != len(classes):
        raise UserError(
            f"--class-map names {len(classes)} classes, {engine.metadata.model} on {engine.name} has {len(known)}"
        )
    return classes


def _validator(recipe: ResolvedRecipe, data: DataSource, processes: Processes, engine: Engine) -> Validator:
    """Return the validator of an engine's network, which has its own precision."""
    assert data.val is not None
    return Validator(
        data.val,
        engine.preprocessing,
        Precision("tf32" if engine.network.precision == "tf32" else "fp32", processes.device),
        processes,
        **settings_of(recipe, data.val.num_images, engine.metadata.thresholds),
        prepare=engine.prepare,
    )


def _validate(opened: Opening, of_first: list[Observer]) -> dict[str, float]:
    """Return the metrics of all weights; `of_first` observe the first ones."""
    named: dict[str, float] = {}
    for prefix, (model, validator) in opened.models.items():
        observers = [] if named else of_first
        confidence = opened.confidence.get(prefix)
        if confidence is None:
            metrics = validator(model, together(observers))
        else:
            calibrated = Calibrated(validator.processes, confidence.temperature)
            metrics = validator(model, together([*observers, calibrated]))
            metrics |= {"temperature": confidence.temperature, **calibrated.metrics()}
        named |= prefixed(prefix, metrics)
    return named


def _by_class(opened: Opening) -> dict[str, dict[str, float]]:
    """Return the metrics of each class that has images, of the first weights."""
    _, validator = next(iter(opened.models.values()))
    assert validator.results is not None
    return class_metrics(validator.results, opened.data.classes)


def _write(
    recipe: Recipe,
    matrix: ConfusionMatrix | None,
    by_class: ClassMetrics | None,
    reliability: Reliability | None,
    processes: Processes,
) -> None:
    if matrix is not None:
        matrix.sum_over(processes)
    if reliability is not None:
        reliability.sum_over()
    if not processes.is_main:
        return
    try:
        if recipe.run.per_class is not None and by_class is not None:
            write_per_class(Path(recipe.run.per_class), by_class, matrix)
        if recipe.run.confusion is not None and matrix is not None:
            matrix.write(Path(recipe.run.confusion))
        if recipe.run.reliability is not None and reliability is not None:
            reliability.write(Path(recipe.run.reliability))
    except OSError as error:
        raise cannot_write(error.filename, error) from None
