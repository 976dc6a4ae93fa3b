"""DALI pipeline of its documentation, the baseline of ``dali-cpu``."""

import warnings
from pathlib import Path
from typing import Any

from effnet.data.dali.library import (
    INTERPOLATIONS,
    DALIClassificationIterator,
    LastBatchPolicy,
    auto_augment,
    fn,
    pipeline_def,
    types,
)
from effnet.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD


def documented_pipeline(
    folder: Path,
    batch_size: int,
    threads: int,
    side: int,
    *,
    interpolation: str = "bilinear",
    augment: bool = False,
    seed: int = 0,
) -> Any:
    """Build the training pipeline of DALI's documentation, on the CPU.

    It follows DALI's example "ImageNet training in PyTorch" and, with `augment`, its page on automatic augmentations:
    file reader, random crop while decoding, resize, flip and normalisation.

    Args:
        folder: class folders with images.
        batch_size: images in a batch.
        threads: threads that decode.
        side: side of the output in pixels.
        interpolation: ``bilinear``, as documented, or another one to compare like with like.
        augment: apply AutoAugment with DALI's ImageNet policy.
        seed: seed of the random choices.

    Returns:
        Iterator over one epoch at a time, of batches as ``[{"data": float32 (N, 3, side, side), "label": (N, 1)}]``.
    """
    with warnings.catch_warnings(record=True):
        pipeline = _documented(
            str(folder),
            side,
            INTERPOLATIONS[interpolation],
            augment,
            batch_size=batch_size,
            num_threads=threads,
            device_id=None,
            seed=seed,
        )
        return DALIClassificationIterator(
            pipeline, reader_name="Reader", last_batch_policy=LastBatchPolicy.PARTIAL, auto_reset=True
        )


@pipeline_def(enable_conditionals=True)
def _documented(folder: str, side: int, interpolation: Any, augment: bool) -> Any:
    jpegs, labels = fn.readers.file(file_root=folder, random_shuffle=True, pad_last_batch=True, name="Reader")
    images = fn.decoders.image_random_crop(
        jpegs, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3], num_attempts=100
    )
    images = fn.resize(images, resize_x=side, resize_y=side, interp_type=interpolation)
    mirror = fn.random.coin_flip(probability=0.5)
    if augment:
        images = auto_augment.auto_augment_image_net(fn.flip(images, horizontal=mirror))
        mirror = 0
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mirror=mirror,
        mean=[255 * value for value in IMAGENET_MEAN],
        std=[255 * value for value in IMAGENET_STD],
    )
    return images, labels
