"""Input throughput of every backend and of other libraries, on the same images in the same run.

Each pipeline reads the whole shuffled training set once per round; rounds are interleaved. Two figures are reported:
images per second, and images per second of processor time of the pipeline's process and workers, which depends less on
other work on the machine. A pipeline is a row in `PIPELINES`.
"""

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from effnet.benchmark.data_pipelines import BASELINES, PIPELINES, SPLIT, Setup, UnavailableError
from effnet.benchmark.environment import environment
from effnet.benchmark.passes import Pass, Round, interleaved_passes
from effnet.data import Preprocessing
from effnet.data.files import LocalFiles
from effnet.data.folder import list_images
from effnet.data.image_files import ImageFiles
from effnet.data.pack import PackSettings, pack
from effnet.data.packed import is_packed
from effnet.data.packed_index import PackedIndex
from effnet.data.sources import SourceImages, open_splits
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.training.facts import facts_of

AUGMENTATIONS = ("none", "autoaugment")


@dataclass(frozen=True)
class DataBenchmark:
    """Settings of the benchmark.

    Attributes:
        path: folder with ``train/<class>/``, or with class folders only; or another data source.
        packed: folders of packed sets; if empty, the images are packed, as JPEG and raw, into a temporary folder.
        images: images in a round; the set is repeated or subsampled to about as many.
        image_size, interpolation, batch_size: side of the images in pixels, their interpolation, images in a batch.
        workers: processes or threads that load images; None for one per core.
        repeats: rounds, of which the median is taken.
        only: names of the pipelines to run; None for all.
        device: device that batches are copied to.
        source: columns of a table and the like; None for the defaults.
    """

    path: Path
    packed: Sequence[Path] = ()
    images: int = 2000
    image_size: int = 224
    interpolation: str = "bicubic"
    batch_size: int = 64
    workers: int | None = None
    repeats: int = 5
    only: Sequence[str] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    source: Recipe | None = None


def benchmark_data(settings: DataBenchmark) -> dict[str, Any]:
    """Measure every pipeline.

    Returns:
        Settings, a row for each pipeline and augmentation, and the environment, as plain values for JSON.

    Raises:
        UserError: a folder can't be used, or `only` names an unknown pipeline.
    """
    if settings.repeats < 1 or settings.images < 1:
        raise UserError("--repeats and --images must be at least 1")
    unknown = set(settings.only or ()) - PIPELINES.keys()
    if unknown:
        raise UserError(f"--only must be of {', '.join(PIPELINES)}, not {', '.join(sorted(unknown))}")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="effnet-benchmark-")))
        setup = _setup(settings, scratch)
        passes, skipped = _opened(setup, settings.only or list(PIPELINES))
        rounds = interleaved_passes(passes, settings.repeats)
        images = len(list_images(setup.root, SPLIT))
    return {
        "benchmark": "data",
        "images": images,
        "image_size": settings.image_size,
        "interpolation": settings.interpolation,
        "batch_size": settings.batch_size,
        "workers": setup.workers,
        "repeats": settings.repeats,
        "device": str(settings.device),
        "rows": _rows(rounds),
        "skipped": skipped,
        "environment": environment(),
    }


def _opened(setup: Setup, names: Sequence[str]) -> tuple[dict[tuple[str, str], Pass], dict[str, str]]:
    """Open pipelines; return them by name and augmentation, and the reasons of those that can't run."""
    passes, skipped = {}, {}
    for augmentation in AUGMENTATIONS:
        augmented = replace(setup, recipe=setup.recipe.replace({"augmentation": augmentation}))
        for name in names:
            if augmentation != "none" and not PIPELINES[name].augments:
                continue
            try:
                passes[name, augmentation] = PIPELINES[name].open(augmented)
            except UnavailableError as error:
                skipped[name] = str(error)
    return passes, skipped


def _setup(settings: DataBenchmark, scratch: Path) -> Setup:
    given = Recipe().replace(
        {
            "workers": settings.workers,
            "batch_size": settings.batch_size,
            "interpolation": settings.interpolation,
            "image_size": settings.image_size,
        }
    )
    recipe = given.resolve(facts_of(given, precision="fp32", num_classes=1000))
    root = scratch / "images"
    _repeat(settings.path, root, max(settings.images, settings.batch_size), settings.source)
    preprocessing = Preprocessing(settings.image_size, settings.image_size, settings.interpolation)
    return Setup(recipe, root, _packs(settings, root, scratch), preprocessing, settings.device)


def _listed(path: Path, recipe: Recipe | None) -> SourceImages:
    """Return the training images of a source that is no folder."""
    return open_splits(recipe or Recipe(), path, ("train",)).images["train"]


def _repeat(path: Path, root: Path, wanted: int, recipe: Recipe | None = None) -> None:
    """Make a training set of about `wanted` links to the images of `path`: all equally often, or evenly spaced ones."""
    source, split = (
        (path, SPLIT) if (path / SPLIT).is_dir() else (path.absolute().parent, path.absolute().name)
    )
    images: SourceImages
    images = list_images(source, split) if path.is_dir() else _listed(path, recipe)
    times = max(1, round(wanted / len(images)))
    chosen = np.arange(len(images)) if len(images) <= wanted else np.linspace(0, len(images) - 1, wanted)
    folders = [root / SPLIT / name.replace("/", "_") for name in images.classes]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for index in np.unique(chosen.astype(int)).tolist():
        name = Path(images.file(index)).name if path.is_dir() else f"{index}.jpg"
        for n in range(times):
            _place(images, index, folders[_class_of(images, index)] / f"{n}_{name}")
    for folder in (root / SPLIT).iterdir():
        if not any(folder.iterdir()):
            folder.rmdir()


def _class_of(images: SourceImages, index: int) -> int:
    """Return the position of an image's class, or of the first of its labels."""
    target = images.targets[index]
    return int(target if images.targets.ndim == 1 else np.argmax(target))


def _place(images: SourceImages, index: int, path: Path) -> None:
    """Make a link to an image, or a copy of one that is no file."""
    if isinstance(images, ImageFiles):
        path.symlink_to(images.path(index).absolute())
    else:
        path.write_bytes(images.content(index))


def _packs(settings: DataBenchmark, root: Path, scratch: Path) -> dict[str, Path]:
    if settings.packed:
        return {_encoding(path): path for path in settings.packed}
    wanted = settings.only or list(PIPELINES)
    packs = {}
    for name, encoding, quality in (("packed, JPEG", "jpeg", 95), ("packed, raw", "raw", None)):
        if name in wanted:
            packs[encoding] = scratch / encoding
            how = PackSettings(quality=quality)
            pack(root, packs[encoding], how, workers=settings.workers, show_progress=True)
    return packs


def _encoding(path: Path) -> str:
    if not is_packed(path, SPLIT):
        raise UserError(f"{path}: no packed {SPLIT} images; effnet prepare pack makes them")
    return "raw" if PackedIndex.read(LocalFiles(path / SPLIT)).quality is None else "jpeg"


def _rows(rounds: dict[tuple[str, str], list[Round]]) -> list[dict[str, Any]]:
    rates = {key: statistics.median(r.timed / r.seconds for r in of) for key, of in rounds.items()}
    rows = []
    for (name, augmentation), of in rounds.items():
        busy = sum(r.processor_seconds for r in of)
        row = {
            "name": name,
            "augmentation": augmentation,
            "images_per_second": rates[name, augmentation],
            "images_per_second_per_core": sum(r.timed for r in of) / busy if busy else None,
            "rounds": [r.timed / r.seconds for r in of],
        }
        for baseline in BASELINES:
            if (baseline, augmentation) in rates:
                row[f"ratio_to_{baseline}"] = rates[name, augmentation] / rates[baseline, augmentation]
        rows.append(row)
    return rows


def print_table(result: dict[str, Any]) -> None:
    """Print the rows, and the reasons for pipelines that were left out."""
    title = (
        f"{result['images']} images of {result['image_size']} px, {result['workers']} workers, "
        f"median of {result['repeats']}"
    )
    table = Table(title=title, box=None)
    table.add_column("input", no_wrap=True)
    table.add_column("augmentation")
    for heading in ("images/s", "per core", "x PIL", "x PIL, uint8", "x DALI"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        per_core = row["images_per_second_per_core"]
        ratios = [row.get(f"ratio_to_{baseline}") for baseline in BASELINES]
        table.add_row(
            row["name"],
            row["augmentation"],
            f"{row['images_per_second']:.0f}",
            "" if per_core is None else f"{per_core:.0f}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    console = Console()
    console.print(table)
    for name, reason in result["skipped"].items():
        console.print(f"left out: {name}: {reason}", markup=False, highlight=False)
