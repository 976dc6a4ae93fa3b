"""Images for the stages: CIFAR-10 and photographs where they were carried along, else made up.

`carry` fills the folder that travels with the repository; the module, run by itself, unpacks it on the other machine.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.gpu_day.stages import DATA
from effnet.data.pack import PackSettings, pack
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_folder

CIFAR, PHOTOGRAPHS = "cifar10-train.tar.gz", "photographs.tar"
# What a machine takes along is limited to 64 MiB, and CIFAR-10's archive has 16 of them.
_MOST_PHOTOGRAPHS = 24 << 20
_JPEG_NAMES = 20_000
_CLASSES = 10
_VALIDATION_SHARE = 10  # one image of so many
_WHEELS = ("simplejpeg",)


def carry(shared: Path) -> Path:
    """Copy images from a folder like ``../shared``, and fetch wheels that a GPU machine lacks, into `DATA`.

    Raises:
        UserError: the folder has none of the images.
    """
    source = shared / "data" / CIFAR
    if not source.is_file():
        raise UserError(f"--shared {shared}: there is no data/{CIFAR}")
    DATA.mkdir(exist_ok=True)
    shutil.copy(source, DATA / CIFAR)
    with tarfile.open(DATA / PHOTOGRAPHS, "w") as archive:
        room = _MOST_PHOTOGRAPHS
        for path in sorted((shared / "data" / "imagenet-sample" / "val").glob("*/*.JPEG")):
            if path.stat().st_size <= room:
                room -= path.stat().st_size
                archive.add(path, arcname=path.name)
    for name in _WHEELS:
        command = f"-m pip download -q --no-deps --only-binary=:all: --python-version 3.12 {_platforms()}"
        command += f" -d {DATA / 'wheels'} {name}=={metadata.version(name)}"
        subprocess.run([sys.executable, *command.split()], check=True)
    return DATA


def _platforms() -> str:
    return " ".join(f"--platform manylinux{tag}_x86_64" for tag in ("_2_28", "_2_17", "2014"))


def prepare(folder: Path, carried: Path = DATA, *, smallest: bool = False) -> str:
    """Fill `folder`, unless that is done: ``cifar10/``, the same packed as ``cifar10-packed/``, ``photographs/``.

    Args:
        folder: is made.
        carried: folder that `carry` filled.
        smallest: a few made-up images only.

    Returns:
        Sentence that says what the images are.
    """
    is_real = (carried / CIFAR).is_file() and not smallest
    cifar, photographs = folder / "cifar10", folder / "photographs"
    if not cifar.exists():
        with atomic_folder(cifar) as made:
            if is_real:
                _unpack(carried / CIFAR, made)
            else:
                _made_up(made / "train", images=8 if smallest else 4500, side=(32, 32))
                _made_up(made / "val", images=4 if smallest else 500, side=(32, 32))
    pack(cifar, folder / "cifar10-packed", PackSettings(32, quality=None), workers=0 if smallest else None)
    if not photographs.exists():
        with atomic_folder(photographs) as made:
            _photographs(made / "train", carried / PHOTOGRAPHS, smallest=smallest)
    return f"CIFAR-10 {'carried along' if is_real else 'replaced by made-up images'} in {folder}"


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack ``train/<class>/``, and move the last tenth of each class to ``val/<class>/``."""
    with tarfile.open(archive) as images:
        images.extractall(folder, filter="data")
    for of_class in sorted((folder / "train").iterdir()):
        files = sorted(of_class.iterdir())
        (folder / "val" / of_class.name).mkdir(parents=True)
        for file in files[-(len(files) // _VALIDATION_SHARE) :]:
            file.rename(folder / "val" / of_class.name / file.name)


def _made_up(folder: Path, *, images: int, side: tuple[int, int]) -> None:
    """Write JPEG files of ten classes: of each one smooth picture under noise, with as many bytes as a photograph's."""
    for number in range(_CLASSES):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize(side, Image.Resampling.BICUBIC), dtype=np.int16)
        noise = np.random.default_rng([number, *folder.name.encode()])
        (folder / f"class{number:02d}").mkdir(parents=True)
        for index in range(images):
            pixels = picture + noise.integers(-40, 41, picture.shape, dtype=np.int16)
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / f"class{number:02d}" / f"{index:04d}.jpg", quality=90)


def _photographs(train: Path, archive: Path, *, smallest: bool) -> None:
    """Make a folder of many names for few files, in ten classes: an epoch has to be long enough to be timed."""
    if smallest or not archive.is_file():
        _made_up(train, images=2 if smallest else 10, side=(500, 375))
    else:
        with tarfile.open(archive) as images:
            for number, member in enumerate(images):
                images.extract(member, train / f"class{number % _CLASSES:02d}", filter="data")
    sources = sorted(path for path in train.glob("*/*") if path.is_file())
    for index in range(0 if smallest else _JPEG_NAMES - len(sources)):
        source = sources[index % len(sources)]
        (source.parent / f"again{index:05d}{source.suffix}").hardlink_to(source)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the images, and say what they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_day.images")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smallest", action="store_true")
    namespace = parser.parse_args(argv)
    print(prepare(namespace.folder, smallest=namespace.smallest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
