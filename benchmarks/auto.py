"""``--engine auto`` beside every engine alone, torchvision, and torchvision compiled.

Every engine alone runs with its default settings, as ``--engine NAME`` does. All take turns in one process; `auto`
measures first, whatever the cache holds.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from effnet.benchmark.environment import environment
from effnet.benchmark.inference import baseline_step, random_model
from effnet.benchmark.measure import Step, interleaved
from effnet.benchmark.tables import markdown
from effnet.export.reference import example_images
from effnet.inference.auto.cases import case_of_weights
from effnet.inference.auto.choose import Chooser, Work
from effnet.inference.auto.race import spread
from effnet.inference.auto.step import engine_step
from effnet.inference.engines import Candidate, for_weights
from effnet.runtime.processes import choose_device

AUTO = "effnet auto"
EAGER, COMPILED = "torchvision", "torchvision compiled"
MOST_BEHIND = 0.03
"""share by which `auto` may be slower than the best engine alone"""
MOST_SPREAD = 0.15
"""of the baseline; a run above it is to be repeated"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of the measurement.

    Attributes:
        arch: model.
        batch_sizes: images in a batch.
        image_size: side in pixels; None for the model's own.
        device: `auto`, `cuda` or `cpu`.
        rounds: rounds, of which the median is taken.
        seconds: length of a turn.
        compiled: run compiled PyTorch and torchvision, too.
    """

    arch: str = "efficientnet-b0"
    batch_sizes: Sequence[int] = (1, 8)
    image_size: int | None = None
    device: str = "auto"
    rounds: int = 9
    seconds: float = 1.0
    compiled: bool = True


def benchmark_auto(plan: Plan) -> dict[str, Any]:
    """Measure each batch size in FP32.

    Returns:
        Plain values for JSON: a run for each batch size, and the environment.

    Raises:
        UserError: a model or device is not available.
    """
    device = choose_device(plan.device)
    with tempfile.TemporaryDirectory() as folder:
        runs = [_run(plan, batch_size, device, Path(folder)) for batch_size in plan.batch_sizes]
    return {"benchmark": "auto", "runs": runs, "environment": environment()}


def _run(plan: Plan, batch_size: int, device: torch.device, folder: Path) -> dict[str, Any]:
    torch.compiler.reset()
    trained = random_model(plan.arch, plan.image_size)
    images = example_images(trained.preprocessing, batch_size, takes_bytes=False)
    work = Work(batch_size, again=True)
    case = case_of_weights(trained, device, "fp32", folder, work)
    chosen = Chooser().choose(case, work)
    steps: dict[str, Step] = {AUTO: engine_step(chosen.network, images)}
    for kind in for_weights(device):
        if plan.compiled or kind.name != "torch-compiled":
            steps[f"effnet {kind.name}"] = engine_step(case.open(Candidate(kind.name)), images)
    for name, compiles in ((EAGER, False), (COMPILED, True)):
        if plan.compiled or not compiles:
            steps[name] = baseline_step(EAGER, plan.arch, images, "fp32", device, compiles=compiles)
    timings = interleaved(
        steps,
        images=batch_size,
        device=device,
        rounds=plan.rounds,
        steps=10_000,
        warmup=3,
        settle=1,
        seconds=plan.seconds,
    )
    engines = [name for name in timings if name.startswith("effnet ") and name != AUTO]
    best = max(engines, key=lambda name: timings[name].images_per_second)
    return {
        "arch": plan.arch,
        "image_size": trained.preprocessing.image_size,
        "batch_size": batch_size,
        "chosen": str(chosen.candidate),
        "best_engine": best,
        "ratio_to_best_engine": timings[AUTO].ratio_to(timings[best]),
        "baseline_spread": spread(timings[EAGER].rounds),
        "rows": {
            name: {
                **timing.to_dict(),
                "ratio_to_torchvision": timing.ratio_to(timings[EAGER]),
                "spread": spread(timing.rounds),
                **({"ratio_to_compiled": timing.ratio_to(timings[COMPILED])} if plan.compiled else {}),
            }
            for name, timing in timings.items()
        },
    }


def report(result: dict[str, Any]) -> str:
    """Return the tables as Markdown, each with its verdict."""
    parts = []
    for run in result["runs"]:
        header = ("", "images/s", "latency", "x torchvision", "x compiled", "spread")
        rows = [_cells(name, row) for name, row in run["rows"].items()]
        title = f"{run['arch']}, {run['image_size']} px, batch {run['batch_size']}, FP32"
        parts.append(f"{title}: auto took {run['chosen']}\n\n{markdown(header, rows)}\n\n{_verdict(run)}")
    return "\n\n".join(parts)


def _verdict(run: dict[str, Any]) -> str:
    ratio = run["ratio_to_best_engine"]
    holds = "within" if ratio >= 1 - MOST_BEHIND else "NOT within"
    text = (
        f"auto is {ratio:.3f} times the best engine alone ({run['best_engine']}): {holds} {MOST_BEHIND:.0%}"
    )
    if run["baseline_spread"] > MOST_SPREAD:
        text += f"; torchvision's rounds vary by {run['baseline_spread']:.0%}: repeat it on a quiet machine"
    return text


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    compiled = row.get("ratio_to_compiled")
    return [
        name,
        f"{row['images_per_second']:.1f}",
        f"{1000 * row['latency']:.2f} ms",
        f"{row['ratio_to_torchvision']:.2f}",
        "-" if compiled is None else f"{compiled:.2f}",
        f"{row['spread']:.0%}",
    ]
