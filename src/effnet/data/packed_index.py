"""The index of a packed data set: read and checked, whoever wrote it, before an image is looked for by it."""

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.data.files import Files
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.plain import are_names, is_count, parse_json

INDEX, RECORDS = "index.json", "index.npy"
FORMAT, VERSION = "effnet packed images", 1
RECORD = np.dtype(
    [
        ("shard", "<u4"),
        ("target", "<i4"),
        ("offset", "<u8"),  # of the encoded image or the pixels in the shard, in bytes
        ("size", "<u4"),  # in bytes
        ("height", "<u4"),  # in pixels
        ("width", "<u4"),
        ("original_height", "<u4"),
        ("original_width", "<u4"),
    ]
)

_REMEDY = "pack or copy it again"
_LARGEST_INDEX = 64 << 20  # bytes
_LARGEST_RECORDS = RECORD.itemsize * 50_000_000
_LARGEST_SHARD = 1 << 46  # bytes
_LARGEST_IMAGE = 1 << 28  # bytes
_LONGEST_SIDE = 65_535  # pixels, as in JPEG
# Part of a path, so it must not lead anywhere else.
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Records = npt.NDArray[Any]
"""(N,) of `RECORD`"""


@dataclass(frozen=True)
class Shard:
    """A shard of a split.

    Attributes:
        name: its file's name.
        bytes: the file's size.
        sha256: of the file, in lower-case hex.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackedIndex:
    """Content of ``index.json``.

    Attributes:
        classes: class names in the order of the targets.
        shards: the shards.
        side: most pixels of an image's shorter side.
        quality: of the JPEGs, None for pixels.
        records_sha256: of ``index.npy``, in lower-case hex.
    """

    classes: list[str]
    shards: list[Shard]
    side: int
    quality: int | None
    records_sha256: str

    @classmethod
    def read(cls, files: Files) -> "PackedIndex":
        """Read the index of a split.

        Raises:
            UserError: there is none that this version reads, or it is damaged.
        """
        where = files.where(INDEX)
        content = files.whole(INDEX, at_most=_LARGEST_INDEX)
        try:
            index = parse_json(content, characters=4 * _LARGEST_INDEX)
        except UserError as error:
            raise UserError(f"{where} is no index of a packed data set: {error}; {_REMEDY}") from None
        if not isinstance(index, Mapping) or index.get("format") != FORMAT:
            raise UserError(f"{where} is no index of a packed data set")
        if index.get("version") != VERSION:
            raise UserError(
                f"{where} is of version {one_line(index.get('version'), 20)}, this program reads {VERSION}; "
                "pack the images again"
            )
        if flaw := _flaw(index):
            raise UserError(f"{where} is damaged: {flaw}; {_REMEDY}")
        shards = [Shard(shard["name"], shard["bytes"], shard["sha256"]) for shard in index["shards"]]
        settings = index["settings"]
        return cls(index["classes"], shards, settings["size"], settings["quality"], index["records_sha256"])

    def records(self, files: Files) -> Records:
        """Read ``index.npy`` of the same split.

        Raises:
            UserError: it is damaged, or describes images that its shards can't hold.
        """
        where = files.where(RECORDS)
        content = files.whole(RECORDS, at_most=_LARGEST_RECORDS)
        if hashlib.sha256(content).hexdigest() != self.records_sha256:
            raise UserError(f"{where} is damaged; {_REMEDY}")
        records = _parsed(content)
        if records is None:
            raise UserError(f"{where} holds no list of images; {_REMEDY}")
        wrong = self._wrong(records)
        for flaw, rows in wrong.items():
            if rows.any():
                raise UserError(f"{where} is damaged: image {int(rows.argmax())} has {flaw}; {_REMEDY}")
        return records

    def _wrong(self, records: Records) -> dict[str, npt.NDArray[np.bool_]]:
        """Return the rows that can't be true, by what is wrong with them."""
        sizes = np.array([shard.bytes for shard in self.shards], dtype=np.uint64)
        shards, offsets, lengths = (records[name].astype(np.uint64) for name in ("shard", "offset", "size"))
        no_shard = shards >= len(sizes)
        ends = np.where(no_shard, 0, sizes[np.where(no_shard, 0, shards).astype(np.int64)])
        # Offset and length are compared one after the other, since their sum may not fit.
        outside = (offsets > ends) | (lengths > ends - np.minimum(offsets, ends))
        sides = np.stack([records[n] for n in RECORD.names or () if n.endswith(("height", "width"))])
        wrong: dict[str, Any] = {
            "no shard": no_shard,
            "no class": (records["target"] < 0) | (records["target"] >= len(self.classes)),
            "bytes outside its shard": outside,
            "no bytes, or too many": (lengths < 1) | (lengths > _LARGEST_IMAGE),
            "no size that an image has": ((sides < 1) | (sides > _LONGEST_SIDE)).any(0),
            "bytes of another image": _overlaps(shards, offsets, lengths),
        }
        if self.quality is None:
            pixels = records["height"].astype(np.uint64) * records["width"].astype(np.uint64)
            wrong["another number of bytes than pixels"] = lengths != 3 * pixels
        return wrong


def _overlaps(
    shards: npt.NDArray[np.uint64], offsets: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    order = np.lexsort((offsets, shards))
    gaps = offsets[order][1:] - offsets[order][:-1]  # not negative within a shard
    found = np.zeros(len(order), dtype=bool)
    found[order[1:]] = (shards[order][1:] == shards[order][:-1]) & (gaps < lengths[order][:-1])
    return found


def _parsed(content: bytes) -> Records | None:
    """Return the records in the bytes of a ``.npy`` file, for which no memory is asked; None if it holds none."""
    file = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception:  # NumPy raises nearly anything on a damaged header
        return None
    size = len(content) - file.tell()
    if (
        is_fortran
        or dtype != RECORD
        or shape != (size // RECORD.itemsize,)
        or size % RECORD.itemsize
        or not size
    ):
        return None
    return np.frombuffer(content, RECORD, offset=file.tell())


def _flaw(index: Mapping[str, Any]) -> str | None:
    """Return what is wrong in an index, or None."""
    settings, shards = index.get("settings"), index.get("shards")
    if not are_names(index.get("classes")) or not index["classes"]:
        return "no list of classes"
    if not isinstance(settings, Mapping) or not is_count(settings.get("size"), 1, _LONGEST_SIDE):
        return "no size of its images"
    if "quality" not in settings or not (
        settings["quality"] is None or is_count(settings["quality"], 1, 100)
    ):
        return "no quality of its images"
    if not isinstance(index.get("records_sha256"), str):
        return "no records_sha256"
    if not isinstance(shards, list) or not shards or not all(map(_is_shard, shards)):
        return "no list of shards with their name, bytes and sha256"
    return None if are_names([shard["name"] for shard in shards]) else "a shard twice"


def _is_shard(shard: object) -> bool:
    return (
        isinstance(shard, Mapping)
        and isinstance(shard.get("name"), str)
        and bool(_SHARD_NAME.fullmatch(shard["name"]))
        and is_count(shard.get("bytes"), 0, _LARGEST_SHARD)
        and isinstance(shard.get("sha256"), str)
    )
