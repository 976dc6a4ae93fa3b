"""Input throughput: every backend beside what others use, on the same images in the same run.

Each contender goes through the whole training set, shuffled, once a round; rounds are interleaved. The clock starts
after the first quarter, when nothing is left of what threads and workers had prepared ahead, and before its turn
a contender waits until the one before it has come to rest. Two figures
come of it: images a second, and images a second of one core, from the processor time that the contender's process
and workers took, which other work on the machine disturbs less. A contender is a row in `CONTENDERS`.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode

from effnet.benchmark.environment import environment
from effnet.data import DataRequest, Preprocessing, open_data
from effnet.data.decode import EncodedImage
from effnet.data.folder import list_images
from effnet.data.pack import PackSettings, pack
from effnet.data.packed import INDEX
from effnet.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from effnet.data.workers import worker_count
from effnet.errors import UserError
from effnet.recipe import Recipe

PEER = "ImageFolder, PIL"
UINT8_PEER = "ImageFolder, PIL, uint8"
DALI_PEER = "DALI, documented"
PEERS = (PEER, UINT8_PEER, DALI_PEER)
AUGMENTATIONS = ("none", "autoaugment")
SPLIT = "train"
_AT_REST = 0.02  # processor seconds in a tenth of a second; the system counts in hundredths


@dataclass(frozen=True)
class DataBenchmark:
    """What to measure.

    Attributes:
        path: folder with ``train/<class>/``, or with class folders only.
        packed: folders of packed sets [default: the images are packed, as JPEG and raw, in a temporary folder].
        images: images in a round; the set is repeated or thinned out to about as many.
        image_size, interpolation, batch_size: of the batches.
        workers: processes or threads that load images; None for one a core.
        repeats: rounds, of which the median is taken.
        only: names of the contenders to run; None for all.
        device: where batches are to lie.
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


class UnavailableError(Exception):
    """A contender can't run here; the message says why."""


@dataclass(frozen=True)
class Setup:
    """What a contender is to do."""

    recipe: Recipe
    """backend aside, the settings of all"""
    root: Path
    """folder with ``train/<class>/``"""
    packed: dict[str, Path]
    """packed sets of the same images, by encoding: jpeg, raw"""
    preprocessing: Preprocessing
    device: torch.device

    @property
    def workers(self) -> int:
        """Processes or threads."""
        assert self.recipe.data.workers is not None
        return self.recipe.data.workers


Pass = Callable[[], Iterator[int]]
"""Goes through the training set once and gives every batch's number of images"""


@dataclass(frozen=True)
class Contender:
    """A way to read the images."""

    open: Callable[[Setup], Pass]
    """raises `UnavailableError` where it can't run"""
    augments: bool = True
    """whether automatic augmentation makes a difference"""


def _backend(name: str, setup: Setup, *, path: Path | None = None) -> Pass:
    """One of this project's backends."""
    recipe = setup.recipe.replace({"data_backend": name})
    try:
        request = DataRequest(recipe, path or setup.root, setup.preprocessing, setup.device, splits=(SPLIT,))
        source = open_data(request)
    except UserError as error:
        raise UnavailableError(str(error)) from None
    loader = source.train
    assert loader is not None
    return lambda: (len(batch.targets) for batch in loader)


def _packed(encoding: str, setup: Setup) -> Pass:
    if encoding not in setup.packed:
        raise UnavailableError(f"no packed set given with --packed is {encoding}")
    return _backend("packed", setup, path=setup.packed[encoding])


def _image_folder(output: Sequence[Any], setup: Setup) -> Pass:
    """What torchvision's classification references do: transforms of Pillow images in a DataLoader."""
    data, chain = setup.recipe.data, setup.preprocessing
    steps: list[Any] = [
        transforms.RandomResizedCrop(
            chain.image_size, data.crop_scale, data.crop_ratio, InterpolationMode(chain.interpolation)
        ),
        transforms.RandomHorizontalFlip(data.hflip),
    ]
    if data.augmentation == "autoaugment":
        # as this project's own, so that both do the same work
        steps.append(transforms.AutoAugment(interpolation=InterpolationMode.BILINEAR, fill=[128] * 3))
    images = ImageFolder(setup.root / SPLIT, transforms.Compose([*steps, transforms.PILToTensor(), *output]))
    loader = _loader(images, setup, shuffle=True, drop_last=True)

    def once() -> Iterator[int]:
        for pixels, targets in loader:
            pixels.to(setup.device, non_blocking=True)
            yield len(targets.to(setup.device, non_blocking=True))

    return once


class _Decoded(Dataset[Any]):
    """Decodes whole images and throws the pixels away."""

    def __init__(self, root: Path) -> None:
        self.images = list_images(root, SPLIT)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> int:
        EncodedImage(self.images.path(index)).decode()
        return 1


def _decoding(setup: Setup) -> Pass:
    loader = _loader(_Decoded(setup.root), setup)
    return lambda: (len(ones) for ones in loader)


def _loader(images: Dataset[Any], setup: Setup, **options: Any) -> "DataLoader[Any]":
    return DataLoader(
        images,
        batch_size=setup.recipe.optimizer.batch_size,
        num_workers=setup.workers,
        prefetch_factor=setup.recipe.data.prefetch if setup.workers else None,
        persistent_workers=setup.workers > 0,
        pin_memory=setup.device.type == "cuda",
        **options,
    )


_NORMALISED = (
    transforms.ConvertImageDtype(torch.float),
    transforms.Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD),
)


def _documented_dali(setup: Setup) -> Pass:
    """The training pipeline of DALI's documentation, on the CPU."""
    try:
        from effnet.data.dali import documented_pipeline
    except UserError as error:
        raise UnavailableError(str(error)) from None
    loader = documented_pipeline(
        setup.root / SPLIT,
        setup.recipe.optimizer.batch_size,
        max(1, setup.workers),
        setup.preprocessing.image_size,
        interpolation=setup.preprocessing.interpolation,
        augment=setup.recipe.data.augmentation == "autoaugment",
    )

    def once() -> Iterator[int]:
        for (batch,) in loader:
            batch["data"].to(setup.device, non_blocking=True)
            yield len(batch["label"].to(setup.device, non_blocking=True))

    return once


CONTENDERS: dict[str, Contender] = {
    "decoding alone": Contender(_decoding, augments=False),
    # torchvision's references normalise in the workers, timm after the copy to the device
    PEER: Contender(partial(_image_folder, _NORMALISED)),
    UINT8_PEER: Contender(partial(_image_folder, ())),
    "pytorch": Contender(partial(_backend, "pytorch")),
    "dali-cpu": Contender(partial(_backend, "dali-cpu")),
    "dali-gpu": Contender(partial(_backend, "dali-gpu")),
    DALI_PEER: Contender(_documented_dali),
    "packed, JPEG": Contender(partial(_packed, "jpeg")),
    "packed, raw": Contender(partial(_packed, "raw")),
}


class Round(NamedTuple):
    """One contender's way through the set."""

    images: int
    timed: int
    """images that the seconds are of"""
    seconds: float
    processor_seconds: float


def benchmark_data(settings: DataBenchmark) -> dict[str, Any]:
    """Measure; gives what `write` stores: the settings, a row per contender and augmentation, the environment.

    Raises:
        UserError: a folder that can't be used, or an unknown contender.
    """
    if settings.repeats < 1 or settings.images < 1:
        raise UserError("--repeats and --images must be at least 1")
    unknown = set(settings.only or ()) - CONTENDERS.keys()
    if unknown:
        raise UserError(f"--only must be of {', '.join(CONTENDERS)}, not {', '.join(sorted(unknown))}")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="effnet-benchmark-")))
        setup = _setup(settings, scratch)
        passes, skipped = _opened(setup, settings.only or list(CONTENDERS))
        rounds = _interleaved(passes, settings.repeats)
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
    """Contenders by name and augmentation, and what can't run and why."""
    passes, skipped = {}, {}
    for augmentation in AUGMENTATIONS:
        augmented = replace(setup, recipe=setup.recipe.replace({"augmentation": augmentation}))
        for name in names:
            if augmentation != "none" and not CONTENDERS[name].augments:
                continue
            try:
                passes[name, augmentation] = CONTENDERS[name].open(augmented)
            except UnavailableError as error:
                skipped[name] = str(error)
    return passes, skipped


def _setup(settings: DataBenchmark, scratch: Path) -> Setup:
    recipe = Recipe().replace(
        {
            "workers": worker_count(settings.workers),
            "batch_size": settings.batch_size,
            "interpolation": settings.interpolation,
            "image_size": settings.image_size,
        }
    )
    root = scratch / "images"
    _repeat(settings.path, root, max(settings.images, settings.batch_size))
    preprocessing = Preprocessing(settings.image_size, settings.image_size, settings.interpolation)
    return Setup(recipe, root, _packs(settings, root, scratch), preprocessing, settings.device)


def _repeat(path: Path, root: Path, wanted: int) -> None:
    """A training set of about `wanted` links to the images of `path`, all equally often, or evenly chosen."""
    source, split = (
        (path, SPLIT) if (path / SPLIT).is_dir() else (path.absolute().parent, path.absolute().name)
    )
    images = list_images(source, split)
    times = max(1, round(wanted / len(images)))
    chosen = np.arange(len(images)) if len(images) <= wanted else np.linspace(0, len(images) - 1, wanted)
    for name in images.classes:
        (root / SPLIT / name).mkdir(parents=True)
    for index in np.unique(chosen.astype(int)).tolist():
        file = images.path(index)
        for n in range(times):
            (root / SPLIT / file.parent.name / f"{n}_{file.name}").symlink_to(file.absolute())
    for folder in (root / SPLIT).iterdir():
        if not any(folder.iterdir()):
            folder.rmdir()


def _packs(settings: DataBenchmark, root: Path, scratch: Path) -> dict[str, Path]:
    if settings.packed:
        return {_encoding(path): path for path in settings.packed}
    wanted = settings.only or list(CONTENDERS)
    packs = {}
    for name, encoding, quality in (("packed, JPEG", "jpeg", 95), ("packed, raw", "raw", None)):
        if name in wanted:
            packs[encoding] = scratch / encoding
            how = PackSettings(quality=quality)
            pack(root, packs[encoding], how, workers=settings.workers, show_progress=True)
    return packs


def _encoding(path: Path) -> str:
    try:
        index = json.loads((path / SPLIT / INDEX).read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{path}: no packed {SPLIT} images; effnet prepare pack makes them") from None
    return "raw" if index["settings"]["quality"] is None else "jpeg"


def _interleaved(passes: dict[tuple[str, str], Pass], repeats: int) -> dict[tuple[str, str], list[Round]]:
    # the first time round starts the workers and fills the page cache
    quarters = {key: sum(go()) // 4 for key, go in passes.items()}
    rounds: dict[tuple[str, str], list[Round]] = {key: [] for key in passes}
    for _ in range(repeats):
        for key, go in passes.items():
            _settle()
            rounds[key].append(_timed(go(), quarters[key]))
    return rounds


def _timed(batches: Iterator[int], untimed: int) -> Round:
    """One pass, of which about the first `untimed` images only count as seen."""
    before = 0
    while before < untimed:
        before += next(batches)
    busy, start = _processor_seconds(), time.perf_counter()
    timed = sum(batches)
    return Round(before + timed, timed, time.perf_counter() - start, _processor_seconds() - busy)


def _settle(most: float = 5.0) -> None:
    """Wait, at most so many seconds, until this process and its children have stopped working."""
    deadline, busy = time.monotonic() + most, _processor_seconds()
    while time.monotonic() < deadline:
        time.sleep(0.1)
        busy, before = _processor_seconds(), busy
        if busy - before < _AT_REST:
            return


def _processor_seconds() -> float:
    """Of this process and its children; 0 where the system does not tell."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    own = os.getpid()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(stat.parent.name) == own or int(fields[1]) == own:
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


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
        for peer in PEERS:
            if (peer, augmentation) in rates:
                row[f"ratio_to_{peer}"] = rates[name, augmentation] / rates[peer, augmentation]
        rows.append(row)
    return rows


def print_table(result: dict[str, Any]) -> None:
    """Print the rows, and what was left out and why."""
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
        ratios = [row.get(f"ratio_to_{peer}") for peer in PEERS]
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
