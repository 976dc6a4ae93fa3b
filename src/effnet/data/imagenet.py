"""ImageNet's archives to class folders, as training and torchvision's ImageFolder want them.

``ILSVRC2012_img_train.tar`` holds an archive of each class; ``ILSVRC2012_img_val.tar`` holds images whose classes
the development kit lists. Nothing appears under its final name before it is complete: a class folder of ``train/``,
and ``val/`` as a whole. So a run that was killed is finished by the next.
"""

import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from effnet.runtime.disk import cannot_write, check_room
from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command
from effnet.runtime.files import move_into_place
from effnet.runtime.lock import exclusive
from effnet.runtime.progress import ProgressBar

NUM_CLASSES = 1000
NUM_IMAGES = {"train": 1_281_167, "val": 50_000}

_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_CHUNK = 1 << 20


@dataclass
class Summary:
    """The content of the folder after a run."""

    images: dict[str, int]
    """images per split"""
    warnings: list[str] = field(default_factory=list)
    """differences from the published ImageNet"""


def prepare_imagenet(
    train_tar: Path, val_tar: Path, out: Path, val_classes: Sequence[str], *, show_progress: bool = False
) -> Summary:
    """Unpack into ``out/train/<class>/`` and ``out/val/<class>/``; what is there already is left alone.

    The archives are only read. Of several processes that unpack into the same folder one works and the others wait.

    Args:
        train_tar: archive of an archive per class, which is named after it.
        val_tar: archive of images.
        out: folder to write, made if need be.
        val_classes: class of each validation image in the order of their names; see `read_devkit` and
            `read_val_classes`.
        show_progress: draw a progress bar.

    Raises:
        UserError: an archive that is missing, truncated or of another kind, a list of classes that does not
            fit it, a disk without room, or a folder that can't be written.
    """
    try:
        with exclusive(out):
            _unpack(train_tar, val_tar, out, val_classes, show_progress)
            return _summary(out)
    except OSError as error:
        raise cannot_write(error.filename or out, error) from None


def _unpack(
    train_tar: Path, val_tar: Path, out: Path, val_classes: Sequence[str], show_progress: bool
) -> None:
    # what can be wrong with the arguments comes first: unpacking takes hours
    with _opened(train_tar) as train:
        class_tars = _class_tars(train, train_tar, out / "train")
    val_images = []
    if not (out / "val").is_dir():
        with _opened(val_tar) as val:
            val_images = _images(val, val_tar)
        _check_val_classes(val_classes, val_images, val_tar, {*class_tars, *_folders(out / "train")})
    to_do = sum(member.size for member in [*class_tars.values(), *val_images])
    check_room(out, to_do, "unpacking")
    with ProgressBar("", to_do, in_bytes=True, show=show_progress) as progress:
        with _opened(train_tar) as train:
            for name, member in class_tars.items():
                progress.update(description=f"train/{name}")
                _unpack_class(train, member, out / "train" / name)
                progress.advance(member.size)
        if val_images:
            progress.update(description="val")
            with _opened(val_tar) as val:
                for size in _unpack_val(val, val_images, val_classes, out / "val"):
                    progress.advance(size)


def read_val_classes(path: Path) -> list[str]:
    """Class folders of the validation images, one per line, in the order of the images' names.

    Raises:
        UserError: a file that can't be read.
    """
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'not a list of classes'}") from None


def read_devkit(path: Path) -> list[str]:
    """The same from the development kit, ``ILSVRC2012_devkit_t12.tar.gz``.

    Its list has the classes' numbers, and its ``meta.mat`` the class folder of each.

    Raises:
        UserError: another file, or SciPy, which reads it, is missing.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError(
            f"the development kit is read with SciPy: {install_command('imagenet')}; or give --val-classes"
        ) from None
    with _opened(path) as kit:
        truth, meta = (_member(kit, name, path) for name in (_GROUND_TRUTH, _META))
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])["synsets"]
        folders = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in np.atleast_1d(synsets)}
        return [folders[int(number)] for number in truth.split()]
    except Exception as error:  # SciPy raises nearly anything on malformed files
        raise UserError(f"{path}: not ILSVRC2012's development kit: {error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with _tar(path) as tar:
            yield tar
    except (tarfile.TarError, EOFError):
        raise UserError(f"{path}: truncated, or no tar archive; download it again") from None


def _tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except OSError as error:  # told apart from errors of the folder that is written
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from None


def _member(tar: tarfile.TarFile, name: str, path: Path) -> bytes:
    """Content of the file of this name, in whichever folder."""
    for member in tar:
        if member.isfile() and PurePosixPath(member.name).name == name:
            content = tar.extractfile(member)
            assert content is not None
            return content.read()
    raise UserError(f"{path}: no {name} in it; it should be ILSVRC2012_devkit_t12.tar.gz")


def _class_tars(train: tarfile.TarFile, path: Path, folder: Path) -> dict[str, tarfile.TarInfo]:
    """The archives of the classes whose folders are still missing."""
    found = {PurePosixPath(member.name).stem: member for member in _files(train, path, (".tar",))}
    return {name: member for name, member in sorted(found.items()) if not (folder / name).is_dir()}


def _images(tar: tarfile.TarFile, path: Path) -> list[tarfile.TarInfo]:
    return sorted(_files(tar, path, (".jpeg", ".jpg")), key=lambda member: member.name)


def _files(tar: tarfile.TarFile, path: Path, suffixes: tuple[str, ...]) -> list[tarfile.TarInfo]:
    """Files in an archive with one of these suffixes.

    Raises:
        UserError: there is none.
    """
    found = [
        member
        for member in tar.getmembers()
        if member.isfile() and PurePosixPath(member.name).suffix.lower() in suffixes and _name(member)
    ]
    if not found:
        raise UserError(f"{path}: no {' or '.join(suffixes)} files in it; is it the right archive?")
    return found


def _name(member: tarfile.TarInfo) -> str:
    """Name of a file without folders, which is all that is taken of it: no archive writes elsewhere."""
    name = PurePosixPath(member.name).name
    return "" if name.startswith(".") else name


def _check_val_classes(
    classes: Sequence[str], images: Sequence[tarfile.TarInfo], path: Path, known: set[str]
) -> None:
    if len(classes) != len(images):
        raise UserError(f"{path} has {len(images)} images, but the list of their classes {len(classes)}")
    unknown = sorted(set(classes) - known)
    if unknown:
        raise UserError(
            f"the list of the validation images' classes has {unknown[0]!r}, which is none of the training classes"
        )


def _unpack_class(train: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=train.extractfile(member)) as images:
            for image in images:
                if image.isfile() and (name := _name(image)):
                    _copy(images, image, unfinished / name)
        move_into_place(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _unpack_val(
    val: tarfile.TarFile, images: Sequence[tarfile.TarInfo], classes: Sequence[str], folder: Path
) -> Iterator[int]:
    """Unpack the images of a split, and yield the size of each one in bytes when it has been written."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    for name in set(classes):
        (unfinished / name).mkdir(parents=True, exist_ok=True)
    part = unfinished / ".part"
    try:
        for image, name in zip(images, classes, strict=True):
            place = unfinished / name / _name(image)
            if not place.exists():
                _copy(val, image, part)
                move_into_place(part, place)
            yield image.size
        move_into_place(unfinished, folder)
    finally:
        part.unlink(missing_ok=True)


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    source: IO[bytes] | None = tar.extractfile(member)
    assert source is not None
    with source, place.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _summary(out: Path) -> Summary:
    classes = {split: _folders(out / split) for split in NUM_IMAGES}
    images = {
        split: sum(len(os.listdir(out / split / name)) for name in names) for split, names in classes.items()
    }
    warnings = [
        f"{split}/ has {len(names):,} classes, not {NUM_CLASSES:,}"
        for split, names in classes.items()
        if len(names) != NUM_CLASSES
    ]
    warnings += [
        f"{split}/ has {images[split]:,} images, not {count:,}"
        for split, count in NUM_IMAGES.items()
        if images[split] != count
    ]
    return Summary(images, warnings)
