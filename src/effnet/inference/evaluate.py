"""Accuracy and speed of a model on a validation set."""

import json
from pathlib import Path

from effnet.errors import UserError
from effnet.inference.confusion import ConfusionMatrix
from effnet.recipe import Recipe
from effnet.training.checkpoint import prepare_workspace
from effnet.training.distributed import joined_processes
from effnet.training.log import RunLog
from effnet.training.run import Opened, open_run


def evaluate(recipe: Recipe, path: Path | None, *, as_json: bool = False) -> dict[str, float]:
    """Validate what `recipe` names: a checkpoint (`resume`), a weight file or published weights.

    Args:
        recipe: settings.
        path: folder with ``val/<class>/``; None with synthetic images.
        as_json: print one JSON object in place of lines.

    Returns:
        `val.loss`, `val.top1`, `val.top5` (percent), `val.images`, rates and latencies; `val_ema.*` beside them
        where the checkpoint holds averaged weights.

    Raises:
        UserError, ModelError: settings, weights or data that can't be used.
    """
    workspace = Path(recipe.run.workspace)
    prepare_workspace(workspace)
    with joined_processes(recipe.compute.device) as processes:
        opened = open_run(recipe, path, processes, ("val",))
        matrix = ConfusionMatrix(opened.data.classes, processes.device) if _wants_matrix(recipe) else None
        metrics = _validate(opened, matrix)
        with RunLog(workspace / recipe.run.report_file, append=True, is_main=processes.is_main) as log:
            log.record("parameters", {"recipe": opened.recipe.to_dict()})
            log.record("summary", metrics)
            if opened.data.val is not None and (left_out := processes.merge(opened.data.val.bad_images)):
                log.bad_images("val", left_out)
            if matrix is not None:
                _write_matrix(recipe, matrix, opened)
            if as_json:
                log.print(json.dumps({"model": opened.recipe.model.arch, **metrics}))
            else:
                for name, value in metrics.items():
                    log.print(f"{name} {value:.6g}")
    return metrics


def _wants_matrix(recipe: Recipe) -> bool:
    return recipe.run.per_class is not None or recipe.run.confusion is not None


def _validate(opened: Opened, matrix: ConfusionMatrix | None) -> dict[str, float]:
    """Metrics of the weights and, where a checkpoint has them, of their average; the former fill `matrix`."""
    validator = opened.validator()
    assert validator is not None
    checkpoint = opened.origin.checkpoint
    if checkpoint is not None:
        opened.model.load_state_dict(checkpoint["state_dict"])
    metrics = validator(opened.model, matrix.add if matrix is not None else None)
    named = {f"val.{name}": value for name, value in metrics.items()}
    if checkpoint is not None and "state_dict_ema" in checkpoint:
        opened.model.load_state_dict(checkpoint["state_dict_ema"])
        named |= {f"val_ema.{name}": value for name, value in validator(opened.model).items()}
    return named


def _write_matrix(recipe: Recipe, matrix: ConfusionMatrix, opened: Opened) -> None:
    matrix.sum_over(opened.processes)
    if not opened.processes.is_main:
        return
    try:
        if recipe.run.per_class is not None:
            matrix.write_per_class(Path(recipe.run.per_class))
        if recipe.run.confusion is not None:
            matrix.write(Path(recipe.run.confusion))
    except OSError as error:
        raise UserError(f"{error.filename}: can't be written: {error.strerror}") from None
