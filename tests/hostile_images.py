"""Image files that ask for far more than they hold, and a fork in which a reader of them is held to limits."""

import io
import os
import resource
import signal
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

GIB = 1 << 30
SECONDS = 10


def limited(work: Callable[[], object], *, memory: int = GIB, seconds: int = SECONDS) -> str:
    """Run `work` in a fork that may take so many bytes of memory more than it has now; return its result as text.

    An exception comes back as its type and text. A fork that takes more seconds of a core is killed, which fails the
    test.
    """
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                pages = int(file.read().split()[0])
            limit = pages * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(6 * seconds)  # in case it waits for something; a busy machine may take as long
            try:
                answer = str(work())
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(writer, answer.encode(errors="surrogateescape")[:4096])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read().decode(errors="surrogateescape")
    _, status = os.waitpid(child, 0)
    assert status == 0, f"killed by signal {status}: took more than {seconds} s"
    return answer


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """Return an image as a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def jpeg(height: int, width: int, **options: object) -> bytes:
    """A JPEG of 8 by 8 pixels whose header claims another size."""
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG", **options))
    frame = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, height, width)
    return bytes(data)


def jpeg_with_hidden_frame(height: int, width: int) -> bytes:
    """A JPEG with a frame where a reader looks past it that takes a marker without a length for one with."""
    data = jpeg(8, 8)
    frame = data.index(b"\xff\xc0")
    real = jpeg(height, width)[frame : frame + 19]
    return data[:2] + b"\xff\xd0" + real + data[2:]


def jpeg_of_scans(scans: int, side: int) -> bytes:
    """A progressive JPEG that refines all of its pixels again and again: of a few bytes each, but full work."""
    data = encoded(Image.new("RGB", (side, side), (9, 8, 7)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(height: int, width: int, *chunks: bytes, depth: int = 1, colour: int = 0) -> bytes:
    """A PNG of zeros, complete, with further chunks before its pixels."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = bytes(1 + -(-width * depth * samples // 8))
    press = zlib.compressobj(1)
    pixels = b"".join([press.compress(row) for _ in range(height)]) + press.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


def zeros(millions: int) -> bytes:
    """So many million zeros, compressed by zlib to a thousandth."""
    return zlib.compress(bytes(millions * 10**6))


def gif(canvas: tuple[int, int], frame: tuple[int, int], frames: int = 1) -> bytes:
    """A GIF whose frames, each of one pixel's data, claim a size of their own. Sizes are width, height."""
    one = b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes(6) + one * frames + b"\x3b"


def webp(form: str, height: int, width: int) -> bytes:
    """The header of a WebP: of an extended one (VP8X), a lossless (VP8L) or a lossy one (VP8)."""
    if form == "VP8X":
        sides = ((side - 1).to_bytes(3, "little") for side in (width, height))
        body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"".join(sides) + bytes(64)
    elif form == "VP8L":
        bits = (width - 1) | (height - 1) << 14
        body = b"VP8L" + struct.pack("<I", 32) + b"\x2f" + struct.pack("<I", bits) + bytes(27)
    else:
        body = b"VP8 " + struct.pack("<I", 32) + b"\x10\2\0\x9d\1\x2a" + struct.pack("<HH", width, height)
        body += bytes(22)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(tags: dict[int, int], strip: bytes) -> bytes:
    """A TIFF of a strip or tile of RGB that deflate has compressed; further tags by number."""
    is_tiled = 322 in tags
    entries = {
        **{258: 8, 259: 8, 262: 2, 277: 3},
        **({324: 8, 325: len(strip)} if is_tiled else {273: 8, 279: len(strip)}),
        **tags,
    }
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(strip))
        + strip
        + struct.pack("<H", len(entries))
        + table
        + bytes(4)
    )


def bmp(height: int, width: int, *, rle: bytes = b"") -> bytes:
    """A BMP without pixels, or one of 8 bits whose pixels are coded in runs."""
    bits, compression = (8, 1) if rle else (24, 0)
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rle), 0, 0, 0, 0)
    palette = bytes(1024) if rle else b""
    start = 14 + len(sizes) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rle), 0, 0, start) + sizes + palette + rle


def noise(height: int = 40, width: int = 48) -> Image.Image:
    """A normal image."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
