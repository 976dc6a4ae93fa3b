"""Writing packed data sets, in the form that `effnet.data.packed` describes.

A shard holds a fixed stretch of a split's images and is written by one worker, under another name until it is
complete. So a packing that was interrupted, at whatever point, goes on with the shards that are missing, and
what it leaves has the same bytes as one in a single go with any number of workers.
"""

import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from effnet.data.decode import BadImageError, EncodedImage, Pixels
from effnet.data.limits import MAX_PIXELS
from effnet.data.packed_index import FORMAT, INDEX, RECORD, RECORDS, VERSION
from effnet.data.randomness import Stream, generator
from effnet.data.sources import SourceImages, open_splits
from effnet.data.transforms import resized
from effnet.data.watched import WatchedLoader, reading
from effnet.data.workers import worker_count
from effnet.recipe import Recipe
from effnet.runtime.disk import cannot_write
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_file, sha256_of, write_text
from effnet.runtime.lock import exclusive
from effnet.runtime.progress import ProgressBar
from effnet.runtime.temporary import remove_stale_temporaries

IMAGES_PER_SHARD = 1000
_UNFINISHED = ".packing"
# Shrinking while decoding stops at this many times the size wanted: the resize does the rest, as in validation.
_MARGIN = 2
_POLL_S = 0.2


@dataclass(frozen=True)
class PackSettings:
    """The form in which images are packed.

    Raises:
        UserError: a value out of range.
    """

    size: int = 320
    """most pixels of the shorter side; smaller images keep their size"""
    quality: int | None = 95
    """of JPEG, 1 to 100; None keeps the pixels as they are, faster to read and some six times as large"""
    images_per_shard: int = IMAGES_PER_SHARD
    """images in a shard"""

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UserError(f"--size must be at least 32, not {self.size}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"--quality must be 1 to 100, not {self.quality}")
        if self.images_per_shard < 1:
            raise UserError(f"images_per_shard must be at least 1, not {self.images_per_shard}")


def pack(
    path: Path,
    out: Path,
    settings: PackSettings = PackSettings(),
    *,
    workers: int | None = None,
    skip_bad: bool = False,
    max_pixels: int = MAX_PIXELS,
    show_progress: bool = False,
    recipe: Recipe | None = None,
) -> dict[str, int]:
    """Pack the splits of a data source.

    Training images are shuffled once, so that a shard read in order is a mixture of classes. A packing that is
    complete is left alone, an incomplete one finished. Of several processes that pack into the same folder one works
    and the others wait.

    Args:
        path: a data source (`effnet.data.sources`).
        out: folder to write.
        settings: size and encoding.
        workers: processes [default: the cores there are, at most 16]; 0 packs in this one.
        skip_bad: leave out images that can't be decoded and list them in ``index.json``.
        max_pixels: pixels that an image may have; larger ones can't be decoded.
        show_progress: draw a progress bar.
        recipe: the kind of source, the columns of a table, seed and share of a split; None for the defaults.

    Returns:
        number of images per split.

    Raises:
        UserError: no such folder, an image that can't be decoded, or an `out` that holds something else, such as a
            packing of other images or with other settings.
    """
    given = recipe or Recipe()
    images = _opened(path, given.replace({"max_pixels": max_pixels}))
    plans = {split: _Plan(of_split, out / split, split, settings) for split, of_split in images.items()}
    try:
        with exclusive(out):
            for plan in plans.values():
                plan.check_place()
            processes = worker_count(workers)
            with _progress(sum(map(len, images.values())), processes, show_progress) as done:
                return {split: _pack_split(plan, done, processes, skip_bad) for split, plan in plans.items()}
    except OSError as error:
        raise cannot_write(error.filename or out, error) from None


def _opened(path: Path, recipe: Recipe) -> dict[str, SourceImages]:
    """Return the images of the splits that there are."""
    present = [split for split in ("train", "val") if (path / split).is_dir()]
    opened = open_splits(recipe, path, present or ("train", "val"))
    if opened.several_labels:
        raise UserError(f"{path}: a packed set holds one label of each image; train on the source itself")
    if any(images.weights is not None for images in opened.images.values()):
        raise UserError(f"{path}: a packed set holds no weights; train on the source itself")
    return opened.images


class _Plan:
    """The assignment of images to shards."""

    def __init__(self, images: SourceImages, out: Path, split: str, settings: PackSettings) -> None:
        self.images, self.out, self.settings = images, out, settings
        order = np.arange(len(images))
        self.order = generator(Stream.ORDER, 0, 0).permutation(order) if split == "train" else order
        self.header = {
            "format": FORMAT,
            "version": VERSION,
            "settings": asdict(settings),
            "source_sha256": images.fingerprint(),
            "classes": images.classes,
        }

    def __len__(self) -> int:
        return -(-len(self.order) // self.settings.images_per_shard)

    def shard(self, number: int) -> "np.ndarray[Any, Any]":
        """Positions in the folder's index of a shard's images."""
        first = number * self.settings.images_per_shard
        indices: np.ndarray[Any, Any] = self.order[first : first + self.settings.images_per_shard]
        return indices

    @property
    def unfinished(self) -> Path:
        """Folder of what is known of the shards so far."""
        return self.out / _UNFINISHED

    def check_place(self) -> None:
        """Refuse to write over anything but this plan's own work."""
        for found in (self.out / INDEX, self.unfinished / INDEX):
            if found.exists():
                if any(_read_json(found).get(name) != value for name, value in self.header.items()):
                    raise UserError(
                        f"{self.out} is a packing of other images or with other settings; "
                        "remove it or name another folder"
                    )
                return
        # A packing that was killed before it wrote its first file is nothing else.
        if self.out.exists() and any(entry.name != _UNFINISHED for entry in self.out.iterdir()):
            raise UserError(f"{self.out} holds something else; remove it or name another folder")


def _pack_split(plan: _Plan, done: torch.Tensor, workers: int, skip_bad: bool) -> int:
    if not (plan.out / INDEX).exists():
        plan.unfinished.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(plan.out)
        remove_stale_temporaries(plan.unfinished)
        _write_json(plan.unfinished / INDEX, plan.header)
        missing = [n for n in range(len(plan)) if not (plan.unfinished / f"{n:06d}.json").exists()]
        done[-1] += sum(len(plan.shard(n)) for n in range(len(plan)) if n not in set(missing))
        _write_shards(plan, missing, done, min(workers, len(missing)), skip_bad)
        _write_index(plan)
    else:
        done[-1] += len(plan.order)
    shutil.rmtree(plan.unfinished, ignore_errors=True)
    return sum(shard["images"] for shard in _read_json(plan.out / INDEX)["shards"])


def _write_shards(plan: _Plan, numbers: list[int], done: torch.Tensor, workers: int, skip_bad: bool) -> None:
    shards = WatchedLoader(
        _Shards(plan, numbers, done, skip_bad),
        workers=workers,
        name_of=plan.images.file,
        batch_size=None,
        prefetch_factor=1 if workers else None,
        in_order=False,
    )
    failure = next((result for result in shards if result is not None), None)
    if isinstance(failure, BadImageError):
        raise UserError(f"{failure}; fix or remove it, or give --on-bad-image skip")
    if failure is not None:
        raise failure


class _Shards(Dataset[Any]):
    """Shards by number: each is written when it is read, and yields an error or None."""

    def __init__(self, plan: _Plan, numbers: list[int], done: torch.Tensor, skip_bad: bool) -> None:
        self.plan, self.numbers, self.done, self.skip_bad = plan, numbers, done, skip_bad

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> BadImageError | UserError | OSError | None:
        worker = get_worker_info()
        slot = self.done[worker.id if worker else 0 :][:1]
        try:
            with reading() as note:
                _write_shard(self.plan, self.numbers[position], slot, self.skip_bad, note)
        except (BadImageError, UserError, OSError) as error:
            # Raised in a worker, it would reach the user with a traceback around it.
            return error
        return None


def _write_shard(
    plan: _Plan, number: int, done: torch.Tensor, skip_bad: bool, note: Callable[[int], None]
) -> None:
    bad: dict[str, str] = {}
    tar = plan.out / f"{number:06d}.tar"
    # Unfinished files lie in the folder that is removed at the end.
    with atomic_file(tar, scratch=plan.unfinished) as file:
        shard = _Shard(file, "npy" if plan.settings.quality is None else "jpg")
        first = number * plan.settings.images_per_shard
        for place, index in enumerate(plan.shard(number).tolist(), start=first):
            note(index)
            target = int(plan.images.targets[index])
            try:
                shard.add(f"{place:08d}", target, _encoded(plan.images.image(index), plan.settings))
            except BadImageError as error:
                if not skip_bad:
                    raise
                bad[plan.images.name(index)] = error.reason
            done += 1
        shard.close()
    facts = {
        "name": tar.name,
        "images": len(shard.records),
        "bytes": tar.stat().st_size,
        "sha256": sha256_of(tar),
    }
    with atomic_file(tar.with_suffix(".idx"), "w", scratch=plan.unfinished) as file:
        file.write(shard.dali_index())
    # last, since it is by this that the shard counts as written
    _write_json(
        plan.unfinished / f"{number:06d}.json", {"shard": facts, "bad": bad, "records": shard.records}
    )


@dataclass
class _Encoded:
    """An image as it goes into a shard."""

    content: bytes
    pixels_at: int
    """bytes before the encoded image or the pixels"""
    height: int
    width: int
    original: tuple[int, int]


class _Shard:
    """A tar in WebDataset's form, without anything that differs from run to run."""

    def __init__(self, file: IO[bytes], suffix: str) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._suffix = suffix
        self.records: list[tuple[int, ...]] = []
        """per image the fields of `RECORD` but the shard"""
        self._lines: list[str] = []

    def add(self, key: str, target: int, image: _Encoded) -> None:
        """Append an image and its target."""
        members = {self._suffix: image.content, "cls": str(target).encode()}
        starts = {suffix: self._append(f"{key}.{suffix}", content) for suffix, content in members.items()}
        start, size = starts[self._suffix] + image.pixels_at, len(image.content) - image.pixels_at
        self.records.append((target, start, size, image.height, image.width, *image.original))
        parts = (f"{s} {starts[s]} {len(content)} {key}.{s}" for s, content in members.items())
        self._lines.append(" ".join(parts))

    def _append(self, name: str, content: bytes) -> int:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        start = self._tar.offset + tarfile.BLOCKSIZE  # past the member's header
        self._tar.addfile(member, io.BytesIO(content))
        return start

    def dali_index(self) -> str:
        """The index of DALI's webdataset reader, as its `wds2idx` writes it."""
        return "\n".join([f"v1.2 {len(self._lines)}", *self._lines]) + "\n"

    def close(self) -> None:
        """Write the end of the tar."""
        self._tar.close()


def _encoded(image: EncodedImage, settings: PackSettings) -> _Encoded:
    original = image.height, image.width
    pixels = image.decode(_MARGIN * settings.size, _MARGIN * settings.size)
    if min(original) > settings.size:
        height, width = (settings.size * n // min(original) for n in original)
        pixels = resized(pixels, height, width, "bicubic")
    elif settings.quality is not None and (content := image.plain_jpeg) is not None:
        return _Encoded(content, 0, *original, original)  # encoding it again could only lose
    content = _as_npy(pixels) if settings.quality is None else _as_jpeg(image.path, pixels, settings.quality)
    pixels_at = 0 if settings.quality is not None else len(content) - pixels.nbytes
    return _Encoded(content, pixels_at, pixels.shape[0], pixels.shape[1], original)


def _as_npy(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(pixels))
    return buffer.getvalue()


def _as_jpeg(path: Path | str, pixels: Pixels, quality: int) -> bytes:
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    except OSError as error:  # more than 65,500 pixels long
        raise BadImageError(str(path), f"can't be encoded as JPEG: {error}") from None
    return buffer.getvalue()


def _write_index(plan: _Plan) -> None:
    """Gather what the workers left about their shards; from then on the split is complete."""
    written = [_read_json(plan.unfinished / f"{number:06d}.json") for number in range(len(plan))]
    rows = [(number, *record) for number, facts in enumerate(written) for record in facts["records"]]
    if not rows:
        raise UserError(f"{plan.images.root} holds no image that can be decoded")
    records = io.BytesIO()
    np.save(records, np.array(rows, dtype=RECORD))
    with atomic_file(plan.out / RECORDS, scratch=plan.unfinished) as file:
        file.write(records.getvalue())
    index = {
        **plan.header,
        "records_sha256": hashlib.sha256(records.getvalue()).hexdigest(),
        "shards": [facts["shard"] for facts in written],
        "left_out": {name: reason for facts in written for name, reason in facts["bad"].items()},
    }
    _write_json(plan.out / INDEX, index)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged; remove {path.parent} and pack again")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1 if path.name == INDEX else None))


@contextmanager
def _progress(total: int, workers: int, show: bool) -> Iterator[torch.Tensor]:
    """Counters of images done: one of each worker's, and one of this process's."""
    done = torch.zeros(max(1, workers) + 1, dtype=torch.int64).share_memory_()
    ended = threading.Event()
    with ProgressBar("packing", total, show=show) as progress:

        def watch() -> None:
            while not ended.wait(_POLL_S):
                progress.update(int(done.sum()))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield done
        finally:
            ended.set()
            watcher.join()
