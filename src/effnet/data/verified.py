"""Images that are known to decode: found once, remembered for the next run.

For each split a list of 64-bit hashes is kept, one for each file that decodes: of its name, its size and the time of
its last change, which are much faster to read than an image is to decode.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.data.decode import BadImageError, decoders
from effnet.data.position import Indices
from effnet.data.sources import SourceImages
from effnet.data.survey import surveyed
from effnet.data.watched import DATA_TIMEOUT_S
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.files import atomic_path

Keys = npt.NDArray[np.uint64]
"""(N,) hash of each file; a file that changes gets another"""

_log = logging.getLogger(__name__)
_VERSION = 1
_KEYS_AT_ONCE = 4096
_FOLDERS_KEPT = 20


def find_broken(
    images: SourceImages, indices: Indices, *, workers: int, timeout: float = DATA_TIMEOUT_S
) -> Iterator[tuple[Indices, dict[int, str]]]:
    """Decode images; yield part after part of `indices`, each with the errors of its broken ones.

    Args:
        workers: processes; 0 to work in this process.
        timeout: seconds with one file after which a process counts as stuck.

    Raises:
        UserError: a process was killed, or is stuck.
    """
    return surveyed(_broken, images, indices, workers=workers, timeout=timeout)


def _broken(images: SourceImages, indices: Indices) -> dict[int, str]:
    flaws = {}
    for index in indices.tolist():
        try:
            images.image(index).verify()
        except BadImageError as error:
            flaws[index] = error.reason
    return flaws


def file_keys(
    images: SourceImages, indices: Indices, *, workers: int, timeout: float = DATA_TIMEOUT_S
) -> Keys:
    """Return the keys of files; the arguments are those of `find_broken`."""
    parts = surveyed(_keys, images, indices, workers=workers, at_once=_KEYS_AT_ONCE, timeout=timeout)
    return np.concatenate([np.empty(0, np.uint64), *(keys for _, keys in parts)])


def _keys(images: SourceImages, indices: Indices) -> Keys:
    return np.frombuffer(b"".join(_key(images, index) for index in indices.tolist()), np.uint64)


def _key(images: SourceImages, index: int) -> bytes:
    try:
        return images.key(index)
    except OSError:
        return os.urandom(8)  # a key that is remembered nowhere


class Memory:
    """Keys of a split's images that decode, kept in `cache`.

    A file that can't be read or written counts as empty, which is no error; a damaged one is reported in the log.
    """

    def __init__(self, cache: Path, images: SourceImages, split: str = "") -> None:
        place = os.path.realpath(images.root)
        kept_for = f"{_VERSION}\0{decoders()}\0{images.max_pixels}\0{place}\0{split}"
        name = hashlib.sha256(os.fsencode(kept_for)).hexdigest()[:16]
        self._file = cache / f"{name}.npy"

    def read(self) -> Keys:
        """Return the keys of the last `write`, or none."""
        try:
            # Mapped: a damaged header may state any size, for which no memory is to be asked.
            keys: Keys = np.array(np.load(self._file, mmap_mode="r", allow_pickle=False))
        except OSError:
            return np.empty(0, np.uint64)
        except Exception as error:  # NumPy raises nearly anything on a damaged file
            _log.warning("%s can't be read; the images are checked again (%s)", self._file, one_line(error))
            return np.empty(0, np.uint64)
        if keys.dtype != np.uint64 or keys.ndim != 1:
            _log.warning("%s holds something else; the images are checked again", self._file)
            return np.empty(0, np.uint64)
        with suppress(OSError):
            self._file.touch()
        return keys

    def write(self, keys: Keys) -> None:
        """Replace the keys; of the folders remembered in `cache`, those not asked for longest are forgotten."""
        cache = self._file.parent
        with suppress(OSError, UserError):
            with atomic_path(self._file, make_folder=True) as temporary:
                np.save(temporary, keys)
            kept = sorted(cache.glob("*.npy"), key=os.path.getmtime)
            for old in kept[:-_FOLDERS_KEPT]:
                old.unlink()
