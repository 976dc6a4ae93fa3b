"""Limits of an image file, checked before it is decoded: its kind and size in bytes, its pixels, a JPEG's scans.

A header of a few hundred bytes can ask for gigabytes, and a scan of a JPEG for work on every pixel. With the default of
``--max-pixels`` no file makes a decoder take more than a gigabyte.
"""

import errno
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from effnet.recipe import DataSettings

MAX_PIXELS = DataSettings.max_pixels
"""default of ``--max-pixels``"""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of the formats that are read. It knows dozens; some start another program on the file."""

_MAX_SIDE = 65_535  # of a JPEG; the other formats' headers can hold more
_MAX_SCANS = 100
_MAX_WORK = 16
"""scans of a whole JPEG, times the share of `max_pixels` that its pixels are"""
_BYTES_PER_PIXEL = 9
"""memory for which `max_pixels` stands; what takes a decoder more has fewer pixels"""
_WEBP_BYTES = 17  # two canvases of the animation, their copy, Pillow's image, and the pixels
_PILLOW_BYTES = 4
_FILE_BYTES_PER_PIXEL = 2
_ANY_FILE = 1 << 24  # bytes that a file may have whatever the limit of pixels

_BASELINE = (0xC0, 0xC1)
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_START_OF_SCAN = 0xDA
_SCAN_AS_NUMBER = 0xDAFF  # the marker's bytes FF DA, the lower one first
_PIXELS_PER_BYTE = 512
"""of a JPEG at most, unless it is coded arithmetically: a block of 8 x 8 takes a bit"""
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA))
_TIFF_BITS, _TIFF_SAMPLES, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 258, 277, 322, 323


class LimitError(ValueError):
    """A file beyond a limit; the text says of what, on one line."""


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return the content of an image file; anything but a regular file, which might have no end, is refused.

    Args:
        path: the file.
        max_pixels: pixels that an image may have; see `most_bytes`.

    Raises:
        OSError: the file can't be read.
        LimitError: it is no regular file, or too large.
    """
    # A FIFO would be waited for, if it were opened in the usual way. Each call of the system gives up Python's lock,
    # for which threads then wait; a file object makes three more.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise LimitError("not a regular file")
        if found.st_size > (limit := most_bytes(max_pixels)):
            raise LimitError(f"{found.st_size:,} bytes are more than --max-pixels allows ({limit:,})")
        data = os.read(file, found.st_size)
        while len(data) < found.st_size and (more := os.read(file, found.st_size - len(data))):
            data += more  # a signal, or a system that reads at most 2 GiB at once
        return data
    finally:
        os.close(file)


def most_bytes(max_pixels: int) -> int:
    """Return the bytes that a file may have: two for each pixel, at least 16 MiB."""
    return max(_ANY_FILE, _FILE_BYTES_PER_PIXEL * max_pixels)


def check_pixels(
    height: int, width: int, max_pixels: int, bytes_per_pixel: float = 0, kind: str = "an image"
) -> None:
    """Refuse an image of too many pixels.

    Args:
        height, width: size by the header, in pixels.
        max_pixels: pixels that an image may have whose decoder takes no more than 9 bytes for each.
        bytes_per_pixel: memory that this image's decoder takes for each of its pixels.
        kind: name of such images, for the message.

    Raises:
        LimitError: there are more, or a side is longer than 65,535.
    """
    if max(height, width) > _MAX_SIDE:
        raise LimitError(f"{width:,} x {height:,} pixels; no side may be longer than {_MAX_SIDE:,}")
    limit = int(max_pixels * _BYTES_PER_PIXEL / max(_BYTES_PER_PIXEL, bytes_per_pixel))
    if height * width > limit:
        raise LimitError(
            f"{width:,} x {height:,} pixels are more than --max-pixels allows ({limit:,} for {kind})"
        )


def check_jpeg(
    data: bytes, height: int, width: int, max_pixels: int, *, components: int = 3, position: int = 2
) -> None:
    """Refuse a JPEG of too many pixels, or of too many scans for its pixels, or that is too short for them.

    Args:
        data: the file.
        height, width: its size by the header, in pixels.
        max_pixels: pixels that a JPEG may have whose single scan holds all of it.
        components: colours.
        position: where the frame's marker is in the file, or any before it.

    Raises:
        LimitError: the file is one of these.
    """
    frame, scans = read_header(data, position)
    check_pixels(height, width, max_pixels, kind="a JPEG")
    if frame not in _ARITHMETIC and height * width > _PIXELS_PER_BYTE * len(data):
        raise LimitError(
            f"image file is truncated: {len(data):,} bytes can't hold {width:,} x {height:,} pixels"
        )
    if scans == 1:
        return
    # A decoder keeps two bytes for each coefficient until it has seen all scans.
    check_pixels(height, width, max_pixels, 2 * components + _PILLOW_BYTES, "a JPEG of several scans")
    limit = min(_MAX_SCANS, _MAX_WORK * max_pixels // (height * width))
    if scans > limit:
        raise LimitError(f"{scans:,} scans of {width:,} x {height:,} pixels are more than {limit}")


def read_header(data: bytes, position: int = 2) -> tuple[int, int]:
    """Return the marker of a JPEG's frame, 0 if none is found, and the scans that a decoder can meet at most.

    There is 1 scan where the header is in order and says that the first one holds the whole image, as it does in all
    but progressive files. Otherwise every start of a scan counts, in whatever part of the file.

    Args:
        data: the file.
        position: where to start: after the file's first marker, or at any other before the frame.
    """
    frame = components = 0
    try:
        while data[position] == 0xFF and (marker := data[position + 1]) not in _WITHOUT_LENGTH:
            if marker == _START_OF_SCAN:
                if components and data[position + 4] == components:
                    return frame, 1
                break
            if marker in _BASELINE or marker in _ARITHMETIC:
                frame = marker
            if marker in _BASELINE:
                components = data[position + 9]
            position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4])
    except IndexError:
        pass
    return frame, _count_scans(data)


def _count_scans(data: bytes) -> int:
    """Return how often a scan's marker is in a file; by NumPy, which takes a tenth of the time of `bytes.count`."""
    return sum(
        int(np.count_nonzero(np.frombuffer(data, "<u2", (len(data) - start) // 2, start) == _SCAN_AS_NUMBER))
        for start in range(min(2, len(data)))
    )


def check_webp(data: bytes, max_pixels: int) -> None:
    """Refuse a WebP of too many pixels; for other files do nothing. Pillow makes room for the canvas as it opens one.

    Raises:
        LimitError: there are more.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return
    if data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    check_pixels(height, width, max_pixels, _WEBP_BYTES, "a WebP")


def check_tiff(image: Any, max_pixels: int) -> None:
    """Refuse a TIFF of too many pixels, in itself or in one of its tiles.

    Its decoder keeps a strip or tile, which may be the whole image, beside Pillow's image and the pixels.

    Args:
        image: Pillow's, opened but not loaded.
        max_pixels: pixels that an image may have whose decoder takes no more than 9 bytes for each.

    Raises:
        LimitError: there are more.
    """
    tags = image.tag_v2
    stored = max(tags.get(_TIFF_BITS, (1,))) * tags.get(_TIFF_SAMPLES, 1) / 8
    bytes_per_pixel = stored + _PILLOW_BYTES + 3
    check_pixels(image.height, image.width, max_pixels, bytes_per_pixel, "such a TIFF")
    if (tile := (tags.get(_TIFF_TILE_HEIGHT), tags.get(_TIFF_TILE_WIDTH))) != (None, None):
        check_pixels(tile[0] or 1, tile[1] or 1, max_pixels, bytes_per_pixel, "a tile of such a TIFF")


def raise_pillows_limit(max_pixels: int) -> None:
    """Let Pillow open images of `max_pixels`, where that is above its own limit, which is the process's."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS * 2:
        Image.MAX_IMAGE_PIXELS = max_pixels
