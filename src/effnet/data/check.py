"""Problems and oddities of a data set, found before a training."""

import hashlib
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from effnet.data.decode import BadImageError, EncodedImage
from effnet.data.limits import FORMATS, MAX_PIXELS, LimitError
from effnet.data.position import Indices
from effnet.data.quiet import quiet
from effnet.data.sources import SourceImages, open_for_check
from effnet.data.survey import surveyed
from effnet.data.workers import worker_count
from effnet.recipe import DataSettings
from effnet.runtime.progress import ProgressBar

SMALL = 32
"""shorter side in pixels below which an image is reported as an oddity"""
LARGE = 25_000_000
"""pixels above which an image is reported as an oddity"""
LONG = 4.0
"""longer by shorter side above which an image is reported: validation's centre crop shows little of it"""

# Oddities, none of which hinders training. An image has a bit for each in this order.
ODDITIES = {
    "grayscale": "one channel, which is repeated",
    "cmyk": "printing colours, converted without a profile",
    "palette": "colours from a table",
    "transparent": "has transparent parts, whose colours are taken as they are",
    "16-bit": "more than 8 bits a channel, of which the upper 8 are taken",
    "animated": "several frames, of which the first is taken",
    "rotated": "stored on its side or mirrored, turned upright by its EXIF tag",
    "small": f"shorter side below {SMALL} px",
    "large": f"more than {LARGE // 10**6} million pixels",
    "long": f"longer side more than {LONG:g} times the shorter one",
    "wrong extension": "of another format than its name says",
}
_FIELDS = [("digest", "S32"), ("height", "i4"), ("width", "i4"), ("bytes", "i8"), ("odd", "u2")]
_Facts = npt.NDArray[Any]
"""of an image each: SHA-256 and size of the file, size of the image (0 if it is broken), oddities"""


@dataclass
class SplitReport:
    """Findings about one split. Files are named by their paths."""

    images: int
    bytes: int
    images_per_class: dict[str, int]
    broken: dict[str, str]
    """files that can't be decoded, and why"""
    odd: dict[str, list[str]]
    """files by oddity, see `ODDITIES`"""
    duplicates: list[list[str]]
    """files with the same content"""
    width: dict[str, float]
    """smallest, 5 %, median, 95 % and largest in pixels"""
    height: dict[str, float]

    @property
    def empty_classes(self) -> list[str]:
        """Return the class folders without images."""
        return [name for name, count in self.images_per_class.items() if not count]


@dataclass
class Report:
    """Findings about a data set."""

    splits: dict[str, SplitReport]
    leakage: list[list[str]]
    """files whose content is in both ``train/`` and ``val/``"""
    unknown_classes: list[str] = field(default_factory=list)
    """class folders in ``val/`` that ``train/`` lacks"""
    classes_without_val: list[str] = field(default_factory=list)
    """class folders in ``train/`` without images in ``val/``; no problem, but not measured either"""

    @property
    def problems(self) -> list[str]:
        """Return the problems to fix before training, one line each."""
        counts = {
            "broken images": sum(len(split.broken) for split in self.splits.values()),
            "class folders without images": sum(len(split.empty_classes) for split in self.splits.values()),
            "classes in val/ that train/ lacks": len(self.unknown_classes),
            "images in both train/ and val/": len(self.leakage),
        }
        return [f"{what}: {count}" for what, count in counts.items() if count]


def check(
    path: Path,
    *,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    show_progress: bool = False,
    settings: DataSettings | None = None,
) -> Report:
    """Decode every image of a data set, and compare them all.

    Args:
        path: a data source (`effnet.data.sources`).
        workers: processes [default: one per core, at most 16]; 0 to work in this process.
        max_pixels: pixels that an image may have; larger ones are broken.
        show_progress: draw a progress bar.
        settings: the kind of source, and the columns of a table; None for the defaults.

    Raises:
        UserError: a source that can't be found or read, or a folder without class folders.
    """
    images = open_for_check(path, replace(settings or DataSettings(), max_pixels=max_pixels))
    facts, broken = _examined(images, worker_count(workers), show_progress)
    report = Report(
        {split: _split_report(images[split], facts[split], broken[split]) for split in images},
        leakage=_leakage(images, facts),
    )
    if images.keys() >= {"train", "val"}:
        train, val = (report.splits[split].images_per_class for split in ("train", "val"))
        report.unknown_classes = [name for name in val if name not in train]
        report.classes_without_val = [name for name in train if not val.get(name)]
    return report


def _examined(
    images: dict[str, SourceImages], workers: int, show_progress: bool
) -> tuple[dict[str, _Facts], dict[str, dict[int, str]]]:
    """Return facts about every image by split, and the errors of the broken ones."""
    facts = {split: np.zeros(len(of_split), _FIELDS) for split, of_split in images.items()}
    broken: dict[str, dict[int, str]] = {split: {} for split in images}
    with ProgressBar("checking", sum(map(len, images.values())), show=show_progress) as progress:
        for split, of_split in images.items():
            for part, (found, flaws) in surveyed(
                _examine, of_split, np.arange(len(of_split)), workers=workers
            ):
                facts[split][part] = found
                broken[split] |= flaws
                progress.advance(len(part))
    return facts, broken


def _examine(images: SourceImages, indices: Indices) -> tuple[_Facts, dict[int, str]]:
    facts, flaws = np.zeros(len(indices), _FIELDS), {}
    for row, index in zip(facts, indices.tolist(), strict=True):
        path = Path(images.file(index))
        try:
            data = images.content(index)
            row["bytes"] = len(data)
            row["digest"] = (
                hashlib.sha256(data).digest() if data else b""
            )  # empty files are broken, not equal
            image = EncodedImage(path, data, images.max_pixels)
            image.verify()
        except BadImageError as error:
            flaws[index] = error.reason
        except (OSError, LimitError) as error:
            flaws[index] = f"can't be read: {getattr(error, 'strerror', None) or error}"
        else:
            row["height"], row["width"] = image.height, image.width
            row["odd"] = sum(1 << bit for bit, name in enumerate(ODDITIES) if name in _oddities(path, data))
    return facts, flaws


def _oddities(path: Path, data: bytes) -> set[str]:
    """Yield the oddities of an image that can be decoded."""
    with quiet(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        mode, (width, height) = image.mode, image.size
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        except Exception:  # malformed EXIF says nothing
            turned = False
        found = {
            "grayscale": mode in ("1", "L", "LA") or mode.startswith(("I", "F")),
            "cmyk": mode == "CMYK",
            "palette": mode in ("P", "PA"),
            "transparent": image.has_transparency_data,
            "16-bit": mode.startswith(("I", "F")),
            "animated": getattr(image, "is_animated", False) and image.format != "MPO",
            "rotated": turned,
            "small": min(width, height) < SMALL,
            "large": width * height > LARGE,
            "long": max(width, height) > LONG * min(width, height),
            "wrong extension": _format_of_name(path)
            not in (None, image.format, {"MPO": "JPEG"}.get(image.format or "")),
        }
    return {name for name, applies in found.items() if applies}


def _format_of_name(path: Path) -> str | None:
    """Return Pillow's name of the format of a file extension."""
    return Image.registered_extensions().get(path.suffix.lower())


def _split_report(images: SourceImages, facts: _Facts, broken: dict[int, str]) -> SplitReport:
    targets = images.targets
    counts = np.bincount(targets, minlength=len(images.classes)) if targets.ndim == 1 else targets.sum(0)
    sound = facts[facts["height"] > 0]
    return SplitReport(
        images=len(images),
        bytes=int(facts["bytes"].sum()),
        images_per_class=dict(zip(images.classes, counts.tolist(), strict=True)),
        broken={images.file(index): flaw for index, flaw in sorted(broken.items())},
        odd={
            name: [images.file(index) for index in np.flatnonzero(facts["odd"] & (1 << bit)).tolist()]
            for bit, name in enumerate(ODDITIES)
            if (facts["odd"] & (1 << bit)).any()
        },
        duplicates=[[images.file(i) for i in group] for group in _groups(facts["digest"])],
        width=_spread(sound["width"]),
        height=_spread(sound["height"]),
    )


def _spread(lengths: npt.NDArray[np.int32]) -> dict[str, float]:
    shares = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}
    return (
        {name: float(np.quantile(lengths, share)) for name, share in shares.items()} if len(lengths) else {}
    )


def _groups(digests: npt.NDArray[Any]) -> list[list[int]]:
    """Return the positions of equal digests, two and more; empty files do not count."""
    order = np.argsort(digests, kind="stable")
    starts = np.flatnonzero(np.append(True, digests[order][1:] != digests[order][:-1]))
    groups = np.split(order, starts[1:]) if len(order) else []
    return sorted(group.tolist() for group in groups if len(group) > 1 and digests[group[0]])


def _leakage(images: dict[str, SourceImages], facts: dict[str, _Facts]) -> list[list[str]]:
    """Return all files of each content that several splits have."""
    splits = list(images)
    digests = np.concatenate([facts[split]["digest"] for split in splits])
    owner = np.repeat(np.arange(len(splits)), [len(facts[split]) for split in splits])
    place = np.concatenate([np.arange(len(facts[split])) for split in splits])
    return [
        [images[splits[owner[n]]].file(int(place[n])) for n in group]
        for group in _groups(digests)
        if len(set(owner[group])) > 1
    ]
