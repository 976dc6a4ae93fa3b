"""The figures beside their predictions, and what was left without a result."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gpu_day.predictions import (
    MACHINES,
    PASSES,
    PREDICTIONS,
    Prediction,
    copy_rate,
    image_bytes,
    machine_of,
)
from benchmarks.gpu_day.stages import STAGES
from effnet.benchmark.tables import markdown


def read_results(out: Path) -> dict[str, dict[str, Any]]:
    """Return the content of the stages' files, by stage, of those that ran."""
    found = {}
    for stage in STAGES:
        path = out / f"{stage.name}.json"
        if path.exists():
            found[stage.name] = json.loads(path.read_text())
    return found


def print_summary(results: Mapping[str, Mapping[str, Any]]) -> int:
    """Print figures, predictions and failures.

    Args:
        results: as of `read_results`.

    Returns:
        Number of figures that deviate from their prediction, and of parts without a result.
    """
    console = Console()
    table = Table(box=None)
    table.add_column("figure")
    for heading in ("measured", "predicted", ""):
        table.add_column(heading, justify="right")
    troubles = 0
    for stage in STAGES:
        result = results.get(stage.name)
        if result is None:
            continue
        machine = machine_of(result["gpu"]) if not result["smallest"] else None
        for name, value in result["figures"].items():
            prediction = PREDICTIONS.get(name)
            verdict = "" if prediction is None else prediction.verdict(value, machine)
            troubles += verdict in ("BELOW", "ABOVE")
            table.add_row(name, _number(value), _range(prediction, machine), verdict)
        missing = [] if machine is None else sorted(_expected(stage.name) - result["figures"].keys())
        for name in missing:
            troubles += 1
            table.add_row(name, "", _range(PREDICTIONS[name], machine), "MISSING")
    console.print(table)
    for stage_name, result in results.items():
        for part, done in result["parts"].items():
            if done["failure"]:
                troubles += 1
                console.print(f"{stage_name}, {part}: {done['failure']}", highlight=False, markup=False)
    return troubles


def _expected(stage: str) -> set[str]:
    return {name for name, prediction in PREDICTIONS.items() if prediction.stage == stage}


def predictions_table(results: Sequence[Mapping[str, Mapping[str, Any]]] = ()) -> str:
    """Return the predictions as a Markdown table, with what was measured so far.

    Args:
        results: of each machine that ran stages, as of `read_results`.
    """
    measured: dict[str, list[str]] = {}
    for result in results:
        for stage in result.values():
            machine = machine_of(stage["gpu"])
            for name, value in stage["figures"].items() if machine is not None else ():
                measured.setdefault(name, []).append(f"{machine}: {_number(value)}")
    rows = [
        [
            prediction.stage,
            name,
            _range(prediction, "H100"),
            _range(prediction, "H200"),
            prediction.goal,
            prediction.reason,
            ", ".join(measured.get(name, [])),
        ]
        for name, prediction in PREDICTIONS.items()
    ]
    return markdown(["stage", "figure", "H100", "H200", "goal", "because of", "measured"], rows)


def bytes_table() -> str:
    """Return the bytes that each implementation moves for an image as a Markdown table, with images a second."""
    rows = []
    for arch in ("efficientnet-b0", "efficientnet-b4"):
        for implementation in ("training", "inference", *PASSES):
            moved = image_bytes(arch, implementation)
            passes = PASSES.get(implementation)
            rows.append(
                [
                    arch,
                    implementation if passes else f"{implementation}, floor",
                    f"{passes[0]} + {passes[1]}" if passes else "",
                    f"{moved / 1e6:,.0f}",
                    *(f"{copy_rate(machine) / moved:,.0f}" for machine in MACHINES),
                ]
            )
    return markdown(["model", "implementation", "passes over E + F", "MB an image", *MACHINES], rows)


def _range(prediction: Prediction | None, machine: str | None) -> str:
    if prediction is None or machine is None:
        return ""
    low, high = prediction.ranges[machine]
    if low is not None and low == high:
        return _number(low)
    if high is None:
        return f"at least {_number(low or 0)}"
    return f"at most {_number(high)}" if low is None else f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
