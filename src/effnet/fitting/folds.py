"""Cross-validation: a run for each fold, and one summary of them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from effnet.data import BACKENDS, DataPlace
from effnet.fitting.figures import metrics_of
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.files import atomic_file
from effnet.runtime.lock import one_writer
from effnet.runtime.processes import joined_processes
from effnet.runtime.text import to_json

SUMMARY = "folds.json"
"""name of the summary in a workspace"""
Compose = Callable[[dict[str, Any]], Recipe]
"""returns the recipe of a run with some settings replaced"""
Work = Callable[[Recipe, DataPlace | None], object]

_OF_SPEED = ("ips", "latency", "_time")


def runs_folds(recipe: Recipe) -> bool:
    """Return True for a recipe that stands for a run of each fold."""
    return recipe.data.folds is not None and recipe.data.fold is None and not recipe.run.evaluate


def cross_validate(
    recipe: Recipe, sources: Mapping[str, str], place: DataPlace | None, compose: Compose, work: Work
) -> dict[str, Any]:
    """Run all folds one after the other; with ``--resume auto`` those that are finished are kept.

    Args:
        recipe: settings, with `folds`.
        sources: source of each setting that does not have its default, as `compose_recipe` returns it.
        place: the data.
        compose: makes the recipe of one fold, which may go on from a checkpoint of its own.
        work: trains.

    Returns:
        The content of the summary: ``{"folds": K, "metrics": {name: {"mean": ..., "std": ...}}, "runs": [{"fold": 0,
        "workspace": ..., "metrics": {...}}, ...]}``. The deviation is a sample's, over K - 1. `val.*` are metrics of
        the last epoch, `best_*` of the best.

    Raises:
        UserError: settings or data that can't be used, or a summary of another number of folds.
    """
    count = recipe.data.folds
    assert count is not None
    if not BACKENDS[recipe.data.data_backend].reads_sources:
        raise UserError(
            f"--folds {count} needs a data source; --data-backend {recipe.data.data_backend} reads none"
        )
    if recipe.run.resume is not None:
        raise UserError(
            f"--folds {count}: {recipe.run.resume} is the checkpoint of one run; take --resume auto and a --workspace "
            "of its own"
        )
    workspace = Path(recipe.run.workspace)
    workspace.mkdir(parents=True, exist_ok=True)
    with (
        joined_processes(recipe.compute.device, timeout=recipe.compute.collective_timeout) as processes,
        one_writer(workspace, processes),
    ):
        resumes = sources.get("resume", "") == "--resume auto"
        done = processes.gather(_finished(workspace / SUMMARY, count) if resumes else {})[0]
        for fold in range(count):
            name = f"fold-{fold}"
            if name not in done:
                work(compose({"fold": fold, "workspace": str(workspace / name)}), place)
                done[name] = processes.gather(_figures(workspace / name / recipe.run.report_file))[0]
            summary = _summary(count, done)
            if processes.is_main:
                with atomic_file(workspace / SUMMARY) as file:
                    file.write((to_json(summary, indent=2) + "\n").encode())
        if processes.is_main and not recipe.run.quiet:
            Console().print(_table(summary))
    return summary


def read_summary(workspace: Path) -> dict[str, Any]:
    """Return the summary in a workspace.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = workspace / SUMMARY
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _summary(content["folds"], {run["workspace"]: run["metrics"] for run in content["runs"]})
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({one_line(error)}); remove it to start from scratch") from None
    assert isinstance(content, dict)
    return content


def _finished(path: Path, count: int) -> dict[str, dict[str, float]]:
    """Return the metrics of the folds that are finished, by folder."""
    if not path.exists():
        return {}
    summary = read_summary(path.parent)
    if summary["folds"] != count:
        raise UserError(f"{path} is of --folds {summary['folds']}, not {count}; take another --workspace")
    return {run["workspace"]: run["metrics"] for run in summary["runs"]}


def _figures(log: Path) -> dict[str, float]:
    """Return the metrics of validation in a log, without those of speed."""
    return {
        name: value
        for name, value in metrics_of(log).items()
        if name.startswith(("val", "best_"))
        and isinstance(value, int | float)
        and not any(part in name for part in _OF_SPEED)
    }


def _summary(count: int, done: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in next(iter(done.values())) if all(name in metrics for metrics in done.values())]
    values = {name: [float(metrics[name]) for metrics in done.values()] for name in names}
    metrics = {
        name: {"mean": fmean(of_all), "std": stdev(of_all) if len(of_all) > 1 else 0.0}
        for name, of_all in values.items()
    }
    runs = [
        {"fold": int(name.removeprefix("fold-")), "workspace": name, "metrics": dict(of_run)}
        for name, of_run in done.items()
    ]
    return {"folds": count, "metrics": metrics, "runs": runs}


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(box=None)
    columns = ["", "mean", "deviation", *(run["workspace"] for run in summary["runs"])]
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for name, figures in summary["metrics"].items():
        of_runs = [run["metrics"][name] for run in summary["runs"]]
        table.add_row(name, *(f"{value:.4g}" for value in (figures["mean"], figures["std"], *of_runs)))
    return table
