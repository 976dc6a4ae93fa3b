"""Any image file to upright RGB.

JPEG pixels come from libjpeg-turbo through simplejpeg, everything else, and all where simplejpeg is missing,
from Pillow. Both decode at reduced size where that is enough. Neither decodes a part of an image at its full size:
`effnet.data.baseline_jpeg` does, and where it can't, decoding stops below the part. docs/performance.md compares
decoders.
"""

import functools
import io
import logging
import math
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import PIL
from PIL import ExifTags, Image

from effnet.data.baseline_jpeg import decode_part
from effnet.data.limits import (
    FORMATS,
    MAX_PIXELS,
    LimitError,
    check_jpeg,
    check_pixels,
    check_tiff,
    check_webp,
    raise_pillows_limit,
    read_image,
)
from effnet.data.quiet import quiet

try:
    import simplejpeg  # type: ignore[import-untyped]
except ImportError:  # no wheel for the platform, or not installed
    simplejpeg = None

Pixels = npt.NDArray[np.uint8]

_JPEG = ("JPEG", "MPO")  # Pillow's names; MPO is how phones keep several JPEG images in a file
# EXIF's orientation -> whether sides are swapped, then the steps along rows and columns, that turn the stored image
# upright (CIPA DC-008, section 4.6.4)
_Turn = tuple[bool, int, int]
_UPRIGHT: dict[int, _Turn] = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
_BAND = (
    1 << 20
)  # pixels that Pillow converts at a time: the whole of a large image would be in memory several times

_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_PROGRESSIVE = 0xC2
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)
# the rarer kinds of frames, the scan, the segment that holds EXIF and XMP, and markers without a length
_NOT_PLAIN = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xDB), 0xE1, 0x00, 0x01)
# rows below those wanted, for the interpolation of colours, which have half the rows
_UPSAMPLING_ROWS = 2

_log = logging.getLogger(__name__)


class BadImageError(Exception):
    """A file that is no readable image; its text is one line that names it and says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Region(NamedTuple):
    """A part of an image, in pixels of the upright image at its full size."""

    top: int
    left: int
    height: int
    width: int


class Readable(Protocol):
    """An image of which parts can be had; raises `BadImageError` where it turns out broken."""

    height: int
    width: int
    """size of the upright image in pixels"""
    original: tuple[int, int]
    """height and width before it was packed, whose exact proportions validation keeps"""

    def decode(self, min_height: int = 0, min_width: int = 0) -> Pixels:
        """Pixels (height, width, 3), RGB, upright.

        Args:
            min_height, min_width: size that suffices, in pixels; an image of at least twice that may come at
                a reduced size not below it [default: 0, the whole image].
        """

    def crop(self, region: Region, enough: int = 0) -> Pixels:
        """Pixels of a part, upright RGB.

        Args:
            enough: side that suffices for the part, in pixels; a part of at least twice that may come at a
                reduced size [default: 0, at full size].
        """


class EncodedImage:
    """An image file; of a JPEG only the header has been read. See `Readable`.

    Args:
        path: the file, or with `data` what to call the image in errors.
        data: the file's content [default: it is read].
        max_pixels: pixels that it may have; see `effnet.data.limits`.

    Raises:
        BadImageError: the file can't be read, is no image, or is beyond a limit.
    """

    def __init__(self, path: Path | str, data: bytes | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        self._max_pixels = max_pixels
        self._turn: _Turn | None = None
        try:
            self._data = read_image(path, max_pixels) if data is None else data
            self._frame = _plain_frame(self._data)
            if self._frame is not None:
                self._is_jpeg = True
                self.height, self.width = self._frame.height, self._frame.width
                check_jpeg(
                    self._data, self.height, self.width, max_pixels, position=self._frame.height_at - 5
                )
            else:
                self._open_by_pillow()
        except Exception as error:  # Pillow raises nearly anything on malformed files
            raise self._bad(error) from None
        self.original = self.height, self.width

    def _open_by_pillow(self) -> None:
        """Take the size, kind and orientation of a file that is no plain JPEG from Pillow's reading of its header."""
        with quiet():  # of oddities that do not hinder decoding
            image = self._image
            self._is_jpeg = image.format in _JPEG and image.mode in ("RGB", "L")
            if image.format not in _JPEG and not _plain_png(self._data):
                image.load()  # Pillow turns a TIFF upright as it loads it; a PNG's EXIF may be at its end
            self._turn = _UPRIGHT.get(_orientation(image))
        width, height = reversed(image.size) if self._sideways else image.size
        self.height, self.width = height, width

    @functools.cached_property
    def _image(self) -> Image.Image:
        raise_pillows_limit(self._max_pixels)
        check_webp(self._data, self._max_pixels)
        try:
            with quiet():
                image: Image.Image = Image.open(io.BytesIO(self._data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise LimitError(f"more pixels than --max-pixels allows ({self._max_pixels:,})") from None
        check_pixels(image.height, image.width, self._max_pixels)
        if image.format in _JPEG:
            _check_frame(self._data, image, self._max_pixels)
        elif image.format == "TIFF":
            check_tiff(image, self._max_pixels)
        return image

    @property
    def _sideways(self) -> bool:
        return self._turn is not None and self._turn[0]

    @property
    def data(self) -> bytes:
        """The file's content."""
        return self._data

    @property
    def plain_jpeg(self) -> bytes | None:
        """The file's content if it is a JPEG in RGB or grey that needs no turning, else None."""
        is_plain = self._is_jpeg and self._turn is None
        return self._data if is_plain and (self._frame or self._image.format == "JPEG") else None

    def decode(self, min_height: int = 0, min_width: int = 0) -> Pixels:
        """The whole image."""
        return self._decode(min_height, min_width)

    def verify(self) -> None:
        """Raise `BadImageError` if the image can't be decoded.

        A JPEG is decoded at an eighth of its size, for which all of the file is read but little is computed. Over
        photographs of 500 x 375 px that takes 0.57 of the time, and of 17,577 files, cut off, overwritten or with
        parts missing, it refused those that the whole refused.
        """
        self._decode(1, 1)

    def crop(self, region: Region, enough: int = 0) -> Pixels:
        """A part. Of a baseline JPEG only this is decoded, or only what is above its lower edge."""
        top, left, height, width = region
        needed = (math.ceil(self.height * enough / height), math.ceil(self.width * enough / width))
        if not enough or self.height < 2 * needed[0] or self.width < 2 * needed[1]:
            return self._part(region)
        pixels = self._decode(*needed)
        rows = _scaled(top, height, pixels.shape[0] / self.height)
        return pixels[rows, _scaled(left, width, pixels.shape[1] / self.width)]

    def _part(self, region: Region) -> Pixels:
        """A part at full size."""
        top, left, height, width = region
        if self._is_jpeg and self._turn is None:
            try:
                part = decode_part(self._data, top, left, height, width)
            except MemoryError as error:
                raise self._bad(error) from None
            if part is not None:
                return part
        return self._decode(rows=top + height)[top : top + height, left : left + width]

    def _decode(self, min_height: int = 0, min_width: int = 0, rows: int | None = None) -> Pixels:
        """All pixels, or at least the upper `rows`."""
        try:
            pixels = self._decode_jpeg(min_height, min_width, rows) if self._is_jpeg else None
            if pixels is not None:
                return pixels
            with quiet():
                return self._decode_other()
        except Exception as error:
            raise self._bad(error) from None

    def _decode_jpeg(self, min_height: int, min_width: int, rows: int | None) -> Pixels | None:
        if self._sideways:
            min_height, min_width = min_width, min_height
        pixels: Pixels | None
        if simplejpeg is None:
            pixels = _decode_by_pillow(self._data, min_height, min_width)
        else:
            upper = _upper_part(self._data, self._frame, rows) if self._frame and rows else None
            pixels = _decode_by_simplejpeg(self._data, upper, min_height, min_width)
        if pixels is None or self._turn is None:
            return pixels
        upright, stored = _room(pixels.shape[0], pixels.shape[1], self._turn)
        stored[:] = _whole(pixels)
        return upright

    def _decode_other(self) -> Pixels:
        self._image.load()
        return rgb_pixels(self._image, self._turn)

    def _bad(self, error: Exception) -> BadImageError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image"
        reason = " ".join(reason.split()) or type(error).__name__
        return BadImageError(str(self.path), f"can't be decoded: {reason}")


def decoders() -> str:
    """Names and versions of what decodes images."""
    return f"Pillow {PIL.__version__}, simplejpeg {simplejpeg.__version__ if simplejpeg else 'none'}"


@functools.cache
def tell_decoder() -> None:
    """Log a warning, once, if JPEG files are decoded without simplejpeg."""
    if simplejpeg is None:
        _log.warning(
            "simplejpeg can't be imported (pip install simplejpeg): JPEG files are decoded by Pillow, more slowly"
        )


def _decode_by_simplejpeg(
    data: bytes, upper: bytearray | None, min_height: int, min_width: int
) -> Pixels | None:
    scaled = {"min_height": min_height, "min_width": min_width, "min_factor": 2} if min_height else {}
    try:
        pixels: Pixels
        if upper is not None:  # whose rest is a flaw, to which strictness would object
            pixels = simplejpeg.decode_jpeg(upper, "RGB", strict=False)
        else:
            pixels = simplejpeg.decode_jpeg(data, "RGB", **scaled)
        return pixels
    except ValueError:
        return None  # simplejpeg is strict about small flaws that Pillow reads past


def _decode_by_pillow(data: bytes, min_height: int, min_width: int) -> Pixels:
    with quiet():
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if min_height and image.height >= 2 * min_height and image.width >= 2 * min_width:
            image.draft("RGB", (min_width, min_height))  # nor are Pillow's reduced sizes below this
        image.load()
        return rgb_pixels(image)


def rgb_pixels(image: Image.Image, turn: _Turn | None = None) -> Pixels:
    """Return the pixels of a loaded image of any mode as RGB, turned, band by band.

    Transparency is left out: a transparent pixel keeps its colour.
    """
    upright, stored = _room(image.height, image.width, turn)
    rows = max(1, _BAND // image.width)
    if rows >= image.height:
        stored[:] = _whole(_rgb_of_band(image))
        return upright
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        stored[top:bottom] = _whole(_rgb_of_band(image.crop((0, top, image.width, bottom))))
    return upright


def _room(height: int, width: int, turn: _Turn | None) -> tuple[Pixels, npt.NDArray[np.void]]:
    """Return memory for the upright pixels of an image, and a view of it (height, width) as the image is stored."""
    swapped, down, right = turn or (False, 1, 1)
    upright = np.empty((width, height, 3) if swapped else (height, width, 3), np.uint8)
    view = _whole(upright)[::down, ::right]
    return upright, view.T if swapped else view


def _whole(pixels: Pixels) -> npt.NDArray[np.void]:
    """Return a view (height, width) of pixels whose three bytes are moved as one."""
    return pixels.view("V3")[..., 0]


def _rgb_of_band(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):  # 16 bits (some formats open as 32): Pillow would clip, not scale, them
        high_bytes = np.clip(np.asarray(image), 0, 65535).astype(np.uint16) >> 8
        image = Image.fromarray(high_bytes.astype(np.uint8))
    elif image.mode == "P":  # by way of RGBA, where transparent colours keep their values
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _check_frame(data: bytes, image: Image.Image, max_pixels: int) -> None:
    """Apply the limits to a JPEG as Pillow and as libjpeg read its header, which differ on malformed ones."""
    sizes = [(image.height, image.width)]
    if simplejpeg is not None:
        with suppress(ValueError):
            sizes.append(simplejpeg.decode_jpeg_header(data, strict=False)[:2])
    for height, width in sizes:
        check_jpeg(data, height, width, max_pixels, components=len(image.getbands()))


class _Frame(NamedTuple):
    """The frame header of a JPEG (ISO 10918-1, B.2.2)."""

    height_at: int
    """position of the height in the file, in bytes"""
    height: int
    width: int
    is_baseline: bool


def _plain_frame(data: bytes) -> _Frame | None:
    """Return the frame of a JPEG that is grey or of three colours and surely upright, None for all other files.

    Most photographs are of this kind, and this is much faster than Pillow's reading of a header.
    """
    position = 2
    try:
        while data[:2] == _START_OF_IMAGE and data[position] == 0xFF:
            marker = data[position + 1]
            if marker in _FRAMES:
                bits, height, width, colours = struct.unpack_from(">BHHB", data, position + 4)
                if bits != 8 or colours not in (1, 3) or not height or not width:
                    return None
                return _Frame(position + 5, height, width, marker != _PROGRESSIVE)
            if marker in _NOT_PLAIN:
                return None
            position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4])
    except (IndexError, struct.error):
        pass
    return None


def _plain_png(data: bytes) -> bool:
    """Return True if a file is a PNG without EXIF, and so without an orientation."""
    return data.startswith(b"\x89PNG") and b"eXIf" not in data


def _upper_part(data: bytes, frame: _Frame, rows: int) -> bytearray | None:
    """Return a JPEG whose decoding ends below its upper `rows`; None where nothing would be saved.

    A baseline JPEG is coded from the top down. With a smaller height in its header decoding stops there, with the
    same pixels, which saves the entropy decoding of the rest. A truncated file must not pass as whole by this, so
    the end marker is required.
    """
    wanted = rows + _UPSAMPLING_ROWS
    if not frame.is_baseline or frame.height <= wanted or not data.endswith(_END_OF_IMAGE):
        return None
    upper = bytearray(data)
    struct.pack_into(">H", upper, frame.height_at, wanted)
    return upper


def _scaled(first: int, length: int, factor: float) -> slice:
    """Return the same interval in an image decoded at `factor` times its size."""
    start = round(first * factor)
    return slice(start, max(start + 1, round((first + length) * factor)))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # malformed EXIF says nothing about the pixels
        return 1
