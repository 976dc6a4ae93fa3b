"""Write `docs/choices.md`, the tables of everything that a setting selects by name, from the registries.

python tools/choices.py
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effnet.cli.export import FORMATS
from effnet.data.augmentations import AUGMENTATIONS
from effnet.data.backends import BACKENDS
from effnet.data.sampling import SAMPLERS
from effnet.data.sources import SOURCES
from effnet.data.views import VIEWS
from effnet.inference.engines import ENGINES, EngineKind
from effnet.inference.heat_maps import METHODS
from effnet.inference.predict.formats import FORMATS as OUTPUT_FORMATS
from effnet.quantization.placement import PLACEMENT, Row
from effnet.quantization.targets import TARGETS
from effnet.recipe.choices import (
    AugmentationName,
    BackendName,
    EngineName,
    LossName,
    MetricName,
    OptimizerName,
    SamplerName,
    ScheduleName,
    SourceName,
    TargetName,
    TrackerName,
    ViewsName,
)
from effnet.runtime.registry import Named
from effnet.training.losses import LOSSES
from effnet.training.metrics import METRICS
from effnet.training.optimizers import OPTIMIZERS
from effnet.training.schedule import SCHEDULES
from effnet.training.trackers import TRACKERS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "choices.md"

_HEAD = """# Choices

Everything that a setting selects by name. `make tables` writes this page from the registries; CONTRIBUTING.md says how
to add to one.
"""

_PLACEMENT = """## Placement of quantizers

The end of a quantizer's name in the model, the targets for which it is on, and why; the first row that matches holds.
"""


@dataclass(frozen=True)
class Kind:
    """A kind of thing that a setting selects by name.

    Attributes:
        title: heading of its table.
        flag: the setting's flag; a subcommand for export formats.
        rows: its registry's rows.
        names: type of the names in `effnet.recipe.choices`; None where no recipe names them.
        setting: the recipe's setting; None where no recipe has one.
        note: text above the table.
        further: headings of further columns, and their cells.
    """

    title: str
    flag: str
    rows: Sequence[Named]
    names: Any = None
    setting: str | None = None
    note: str = ""
    further: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """Return the table as Markdown."""
        cells = (
            [f"`{row.name}`", row.summary, *(cell(row) for cell in self.further.values())]
            for row in self.rows
        )
        return _table(["name", "summary", *self.further], cells)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _place(row: Row) -> list[str]:
    return [f"`{row.place}`", _code(row.targets), row.reason]


def _files(engine: EngineKind) -> str:
    return _code(engine.suffixes) or "weights, checkpoints"


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def kinds() -> list[Kind]:
    """Return all kinds in the order of the page."""
    return [
        Kind(
            "Augmentations",
            "--augmentation",
            list(AUGMENTATIONS.values()),
            AugmentationName,
            "augmentation",
            "It follows crop and flip, and its effect on an image depends on the seed, the epoch and the image alone.",
        ),
        Kind("Input backends", "--data-backend", list(BACKENDS.values()), BackendName, "data_backend"),
        Kind(
            "Samplers",
            "--sampler",
            list(SAMPLERS.values()),
            SamplerName,
            "sampler",
            "An epoch has as many images as without one. [tasks.md](tasks.md) says which one suits which data.",
        ),
        Kind("Losses", "--loss", list(LOSSES.values()), LossName, "loss"),
        Kind(
            "Data sources",
            "--source",
            list(SOURCES.values()),
            SourceName,
            "source",
            "`auto` takes the first that a path is. [data.md](data.md) explains each.",
        ),
        Kind("Optimizers", "--optimizer", list(OPTIMIZERS.values()), OptimizerName, "optimizer"),
        Kind(
            "Learning rate schedules",
            "--lr-schedule",
            list(SCHEDULES.values()),
            ScheduleName,
            "lr_schedule",
            "Each follows a linear warm-up.",
        ),
        Kind(
            "Validation metrics",
            "--best-metric",
            list(METRICS.values()),
            MetricName,
            "best_metric",
            "All are measured; `--best-metric` decides which epoch becomes `model_best.pth.tar`, and when "
            "`--early-stopping-patience` stops.",
            {"better": lambda metric: "higher" if metric.higher_is_better else "lower"},
        ),
        Kind(
            "Quantization targets",
            "--target",
            list(TARGETS.values()),
            TargetName,
            "target",
            "The summary says how activations are stored; [quantization.md](quantization.md) explains the rest.",
            {"ONNX opset": lambda target: str(target.opset or "-")},
        ),
        Kind(
            "Engines",
            "--engine",
            list(ENGINES.values()),
            EngineName,
            "engine",
            "`auto` takes the one that a measurement on the machine finds the fastest, and where nothing is measured "
            "the first one here that runs ([deployment.md](deployment.md)).",
            {"reads": _files, "needs": lambda engine: engine.needs},
        ),
        Kind(
            "Views of an image",
            "--tta",
            list(VIEWS.values()),
            ViewsName,
            "tta",
            "Of `effnet evaluate`, `effnet classify` and `effnet predict`: probabilities are averaged over them.",
        ),
        Kind(
            "Heat maps",
            "--explain-method",
            list(METHODS.values()),
            note="Of `effnet classify --explain DIR`; [explain.md](explain.md) says how to read them.",
        ),
        Kind(
            "Trackers of experiments",
            "--track",
            list(TRACKERS.values()),
            TrackerName,
            "track",
            "One or several; each needs the extra of its name. [trackers.md](trackers.md) says what they show.",
        ),
        Kind("Export formats", "effnet export", FORMATS),
        Kind(
            "Tables of predictions",
            "--out",
            list(OUTPUT_FORMATS.values()),
            note="Of `effnet predict`: the suffix of the file. [predict.md](predict.md) describes the columns.",
        ),
    ]


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for kind in kinds():
        parts.append(f"## {kind.title}\n\n`{kind.flag} NAME`. {kind.note}".rstrip() + "\n")
        parts.append(kind.table())
    parts += [_PLACEMENT, _table(["quantizer", "targets", "reason"], map(_place, PLACEMENT))]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
