"""Another measurement of the engines that ``--engine auto`` takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effnet.benchmark.environment import environment
from effnet.benchmark.inference import InferenceBenchmark, random_model
from effnet.export.trained import ModelChoice
from effnet.inference.auto.choose import Work
from effnet.inference.engine import AUTO, Engine, engine_of, open_engine
from effnet.runtime.precision import resolve_precision
from effnet.runtime.processes import choose_device


def choose_again(settings: InferenceBenchmark, files: Sequence[Path] = ()) -> dict[str, Any]:
    """Choose the engine for each model or file, precision and batch size.

    Args:
        settings: models, precisions, batch sizes, device.
        files: exported files and weights, in place of the models.

    Returns:
        Plain values for JSON: `choices`, and the environment.

    Raises:
        UserError: a model, file, device or precision is not available.
    """
    device = choose_device(settings.device)
    choices = []
    for name in [*map(str, files)] or settings.archs:
        for precision in settings.precisions:
            resolved = resolve_precision(precision, device)
            for batch_size in settings.batch_sizes:
                work = Work(batch_size, again=True)
                if files:
                    choice = ModelChoice(weights=Path(name), device=device.type, precision=resolved)
                    engine = open_engine(choice, AUTO, work=work)
                else:
                    trained = random_model(name, settings.image_size)
                    engine = engine_of(trained, AUTO, device, resolved, work)
                choices.append(_row(name, resolved, batch_size, engine))
    return {"benchmark": "choices", "choices": choices, "environment": environment()}


def report(result: dict[str, Any]) -> str:
    """Return a line for each choice."""
    return "\n".join(
        f"{row['model']}, batch {row['batch_size']}, {row['precision']}: {row['engine']}"
        for row in result["choices"]
    )


def _row(name: str, precision: str, batch_size: int, engine: Engine) -> dict[str, Any]:
    return {
        "model": name,
        "precision": precision,
        "batch_size": batch_size,
        "engine": str(engine.candidate),
    }
