"""A small real data set without a download: scikit-learn's handwritten digits as JPEG files."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command
from effnet.runtime.files import atomic_folder
from effnet.runtime.temporary import remove_stale_temporaries

SIDE = 32
"""side of the images in pixels; scikit-learn's have 8"""
_VAL_EVERY = 5


def prepare_sample(out: Path) -> dict[str, int]:
    """Write 1,797 handwritten digits (UCI ML, from scikit-learn) as ``<split>/<digit>/<n>.jpg``.

    Images are 32 x 32 px. Of each digit every fifth image is for validation, the others are for training. The
    folder appears when it is complete; if it is already, nothing is written.

    Returns:
        number of images per split.

    Raises:
        UserError: scikit-learn is missing, or `out` holds something else or can't be written.
    """
    images = dict(_images())
    counts = {split: sum(name.startswith(split) for name in images) for split in ("train", "val")}
    if _is_complete(out, images):
        return counts
    remove_stale_temporaries(out.parent)
    try:
        with atomic_folder(out) as unfinished:
            for name, image in images.items():
                path = unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path, quality=95)
    except FileExistsError:
        # Another process was faster, and may have written the same.
        if not _is_complete(out, images):
            raise _other_content(out) from None
    return counts


def _is_complete(out: Path, images: Collection[str]) -> bool:
    """Return True if `out` is the sample, and False if it is empty or absent.

    Raises:
        UserError: it is something else.
    """
    present = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} if out.is_dir() else set()
    if present == set(images):
        return True
    if present or (out.exists() and not out.is_dir()):
        raise _other_content(out)
    return False


def _other_content(out: Path) -> UserError:
    return UserError(f"{out} exists and is not the complete sample; remove it or name another folder")


def _images() -> Iterator[tuple[str, Image.Image]]:
    """Relative path and pixels of every image."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(f"the sample comes from scikit-learn: {install_command('sample')}") from None
    digits = load_digits()
    seen = dict.fromkeys(range(10), 0)
    for n, (strokes, digit) in enumerate(zip(digits.images, digits.target.tolist(), strict=True)):
        split = "val" if seen[digit] % _VAL_EVERY == _VAL_EVERY - 1 else "train"
        seen[digit] += 1
        pixels = np.round(strokes * (255 / 16)).astype(np.uint8)  # strokes: 0..16
        image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield f"{split}/{digit}/{n:04d}.jpg", image.convert("RGB")
