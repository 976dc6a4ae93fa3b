"""Input pipelines, this project's and others', for `effnet.benchmark.data`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode

from effnet.benchmark.passes import Pass
from effnet.data import DataRequest, Preprocessing, open_data
from effnet.data.decode import EncodedImage
from effnet.data.folder import list_images
from effnet.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from effnet.recipe import ResolvedRecipe
from effnet.runtime.errors import UserError

BASELINE = "ImageFolder, PIL"
UINT8_BASELINE = "ImageFolder, PIL, uint8"
DALI_BASELINE = "DALI, documented"
BASELINES = (BASELINE, UINT8_BASELINE, DALI_BASELINE)
SPLIT = "train"


class UnavailableError(Exception):
    """A pipeline can't run here; the message says why."""


@dataclass(frozen=True)
class Setup:
    """Settings and images for a pipeline."""

    recipe: ResolvedRecipe
    """settings of all pipelines; its backend is replaced"""
    root: Path
    """folder with ``train/<class>/``"""
    packed: dict[str, Path]
    """packed sets of the same images, by encoding: jpeg, raw"""
    preprocessing: Preprocessing
    device: torch.device

    @property
    def workers(self) -> int:
        """Number of processes or threads."""
        return self.recipe.data.workers


@dataclass(frozen=True)
class Pipeline:
    """A way to read the images."""

    open: Callable[[Setup], Pass]
    """opens the pipeline; raises `UnavailableError` where it can't run"""
    augments: bool = True
    """True if it can augment automatically"""


def _backend(name: str, setup: Setup, *, path: Path | None = None) -> Pass:
    """Open one of this project's backends."""
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
        raise UnavailableError(f"none of the packed sets is {encoding}; give one with --packed")
    return _backend("packed", setup, path=setup.packed[encoding])


def _image_folder(output: Sequence[Any], setup: Setup) -> Pass:
    """Open the pipeline of torchvision's classification scripts: transforms of Pillow images in a DataLoader."""
    data, chain = setup.recipe.data, setup.preprocessing
    steps: list[Any] = [
        transforms.RandomResizedCrop(
            chain.image_size, data.crop_scale, data.crop_ratio, InterpolationMode(chain.interpolation)
        ),
        transforms.RandomHorizontalFlip(data.hflip),
    ]
    if data.augmentation == "autoaugment":
        # torchvision's own policy: it lacks NVIDIA's, which this project's backends apply.
        steps.append(transforms.AutoAugment(interpolation=InterpolationMode.BILINEAR, fill=[128] * 3))
    images = ImageFolder(setup.root / SPLIT, transforms.Compose([*steps, transforms.PILToTensor(), *output]))
    loader = _loader(images, setup, shuffle=True, drop_last=True)

    def once() -> Iterator[int]:
        for pixels, targets in loader:
            pixels.to(setup.device, non_blocking=True)
            yield len(targets.to(setup.device, non_blocking=True))

    return once


class _Decoded(Dataset[Any]):
    """Data set that decodes whole images and drops the pixels."""

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
    """Open the training pipeline of DALI's documentation, on the CPU."""
    try:
        from effnet.benchmark.dali_baseline import documented_pipeline
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


PIPELINES: dict[str, Pipeline] = {
    "decoding alone": Pipeline(_decoding, augments=False),
    # torchvision's scripts normalise in the workers, timm after the copy to the device.
    BASELINE: Pipeline(partial(_image_folder, _NORMALISED)),
    UINT8_BASELINE: Pipeline(partial(_image_folder, ())),
    "pytorch": Pipeline(partial(_backend, "pytorch")),
    "dali-cpu": Pipeline(partial(_backend, "dali-cpu")),
    "dali-gpu": Pipeline(partial(_backend, "dali-gpu")),
    DALI_BASELINE: Pipeline(_documented_dali),
    "packed, JPEG": Pipeline(partial(_packed, "jpeg")),
    "packed, raw": Pipeline(partial(_packed, "raw")),
}
