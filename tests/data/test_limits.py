"""Hostile image files are refused before they cost a gigabyte or ten seconds; what is only odd is read."""

import os
import re
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data import DataSource, limits
from effnet.data import decode as decode_module
from effnet.data.decode import BadImageError, EncodedImage, Region
from effnet.data.folder import list_images
from effnet.data.limits import MAX_PIXELS, LimitError, read_header, read_image
from effnet.data.pack import pack
from effnet.data.verified import Memory
from tests.hostile_images import (
    bmp,
    chunk,
    encoded,
    gif,
    jpeg,
    jpeg_of_scans,
    jpeg_with_hidden_frame,
    limited,
    noise,
    png,
    tiff,
    webp,
    zeros,
)

HUGE = "--max-pixels allows"


def cmyk_jpeg() -> bytes:
    """A JPEG of four colours whose header claims 45,000 x 45,000."""
    return encoded(Image.new("CMYK", (8, 8)), "JPEG").replace(b"\0\x08\0\x08", b"\xaf\xc8\xaf\xc8")


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "jpeg of 45,000 x 45,000": (lambda: jpeg(45_000, 45_000), f"45,000 x 45,000 .*{HUGE}"),
    "progressive jpeg of 45,000 x 45,000": (lambda: jpeg(45_000, 45_000, progressive=True), HUGE),
    "jpeg with exif": (lambda: jpeg(45_000, 45_000, exif=b"Exif\0\0"), HUGE),
    "jpeg in cmyk": (cmyk_jpeg, HUGE),
    "jpeg within the limit": (lambda: jpeg(10_000, 10_000), "truncated"),
    "progressive jpeg within the limit": (lambda: jpeg(9_900, 9_900, progressive=True), "truncated"),
    "jpeg with a hidden frame": (lambda: jpeg_with_hidden_frame(45_000, 45_000), "."),
    "jpeg of 3,000 scans": (lambda: jpeg_of_scans(3000, 500), "3,00. scans"),
    "jpeg of 90 scans": (lambda: jpeg_of_scans(90, 8000), "99 scans of 8,000 x 8,000"),
    "png of 169 megapixels": (lambda: png(13_000, 13_000), f"13,000 x 13,000 .* {HUGE}"),
    "png of a long row": (lambda: png(1, 100_000), "no side may be longer than 65,535"),
    "png with text of 100 MB": (lambda: png(9, 9, chunk(b"zTXt", b"a\0\0" + zeros(100))), "too large"),
    "png with a profile of 100 MB": (lambda: png(9, 9, chunk(b"iCCP", b"a\0\0" + zeros(100))), "too large"),
    "gif of 169 megapixels": (lambda: gif((13_000, 13_000), (13_000, 13_000)), HUGE),
    "gif with a frame beyond its canvas": (lambda: gif((10, 10), (12_000, 12_000)), HUGE),
    "gif of 60,000 x 60,000": (lambda: gif((10, 10), (60_000, 60_000)), "."),
    "extended webp": (lambda: webp("VP8X", 60_000, 60_000), f"{HUGE} .* for a WebP"),
    "lossless webp": (lambda: webp("VP8L", 16_383, 16_383), HUGE),
    "lossy webp": (lambda: webp("VP8", 13_000, 13_000), HUGE),
    "tiff": (lambda: tiff({256: 13_000, 257: 13_000, 278: 13_000}, zeros(1)), HUGE),
    "tiff of a huge tile": (lambda: tiff({256: 16, 257: 16, 322: 13_000, 323: 13_000}, zeros(1)), HUGE),
    "bmp": (lambda: bmp(13_000, 13_000), HUGE),
    "bmp of long rows": (lambda: bmp(1, 100_000_000, rle=b"\0\2\0\xff" * 9), "no side"),
    "ppm": (lambda: b"P6 13000 13000 255\n", HUGE),
    "ppm that ends": (lambda: b"P6 10000 10000 255\n", "."),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
    "nothing": (lambda: b"", "not an image"),
    "text": (lambda: b"hello", "not an image"),
}  # fmt: skip


def use(data: bytes) -> str:
    """Do with an image all that training, validation and the check of a data set do."""
    seen = []
    for look in (EncodedImage.verify, EncodedImage.decode, lambda image: image.crop(Region(0, 0, 1, 1), 1)):
        try:
            look(EncodedImage("it.jpg", data))
            seen.append("decoded")
        except BadImageError as error:
            seen.append(str(error))
    return "\n".join(seen)


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_files_are_refused(name: str) -> None:
    make, words = REFUSED[name]
    data = make()
    answers = limited(lambda: use(data)).split("\n")
    assert len(answers) == 3  # each is one line
    for answer in answers:
        assert answer.startswith("it.jpg: can't be decoded: ")
        assert "emory" not in answer  # it was not the fork's limit that refused it
    assert all(re.search(words, answer) for answer in answers), answers


def test_the_jpeg_of_the_issue_is_small() -> None:
    assert len(jpeg(45_000, 45_000)) < 700


EXIF = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0%s\0\0\0\0\0\0"
ODD: dict[str, Callable[[], bytes]] = {
    "exif that is junk": lambda: encoded(noise(), "JPEG", exif=b"Exif\0\0" + bytes(range(256)) * 9),
    "an orientation there is not": lambda: encoded(noise(), "JPEG", exif=EXIF % b"\x09\0"),
    "an orientation of 65,535": lambda: encoded(noise(), "JPEG", exif=EXIF % b"\xff\xff"),
    "a profile that is junk": lambda: encoded(noise(), "JPEG", icc_profile=bytes(range(256)) * 300),
    "a profile of a png that is junk": lambda: encoded(noise(), "PNG", icc_profile=b"junk" * 99),
    "a gif of 100,000 frames": lambda: gif((48, 40), (1, 1), 100_000),
    "an apng of a billion frames": lambda: png(
        40,
        48,
        chunk(b"acTL", struct.pack(">II", 1 << 30, 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 48, 40, 0, 0, 1, 1, 0, 0)),
    ),
    "a gif after whose end comes more": lambda: encoded(noise(), "GIF") + bytes(1000),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read(name: str) -> None:
    data = ODD[name]()
    assert limited(lambda: EncodedImage("it", data).decode().shape) == "(40, 48, 3)"
    assert limited(lambda: EncodedImage("it", data).crop(Region(30, 40, 10, 8)).shape) == "(10, 8, 3)"


def test_kinds_of_files_that_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(10 * 10**9)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tmp_path / "socket.jpg"))
    reasons = {
        "fifo.jpg": "not a regular file",
        "folder.jpg": "Is a directory",
        "loop.jpg": "symbolic links",
        "gone.jpg": "No such file",
        "sparse.jpg": f"10,000,000,000 bytes are more than --max-pixels allows ({2 * MAX_PIXELS:,})",
        "socket.jpg": "No such device",
        "/dev/zero": "not a regular file",
    }
    for name, reason in reasons.items():
        answer = limited(partial(EncodedImage, tmp_path / name), memory=100 << 20)
        assert answer.startswith(f"BadImageError: {tmp_path / name}: can't be decoded: ")
        assert reason in answer


def test_the_limit_can_be_lowered_and_raised() -> None:
    small = encoded(noise(40, 50), "PNG")
    assert EncodedImage("it", small, max_pixels=2000).decode().shape == (40, 50, 3)
    with pytest.raises(BadImageError, match=r"50 x 40 pixels are more than --max-pixels allows \(1,999 "):
        EncodedImage("it", small, max_pixels=1999)
    large = png(14_000, 14_000)  # more than Pillow itself allows
    assert limited(lambda: EncodedImage("it", large).height).startswith("BadImageError")
    assert limited(lambda: EncodedImage("it", large, max_pixels=200_000_000).height) == "14000"


@pytest.mark.parametrize("size", [0, 1, (1 << 24) + 1])
def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path, size: int) -> None:
    path = tmp_path / "it"
    path.write_bytes(bytes(size))
    assert len(read_image(path)) == size
    if size > 1:
        with pytest.raises(LimitError, match="16,777,217 bytes"):
            read_image(path, 1)


@pytest.mark.parametrize(
    ("options", "scans"),
    [({}, 1), ({"exif": b"Exif\0\0"}, 1), ({"comment": b"\xff\xda" * 200}, 1), ({"progressive": True}, 10)],
    ids=str,
)
def test_scans_of_a_jpeg_are_counted(options: dict[str, object], scans: int) -> None:
    assert read_header(encoded(noise(), "JPEG", **options))[1] == scans


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "I;16", "1"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_bands_have_the_pixels_of_the_whole(
    mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(np.asarray(noise().convert("L")).astype(np.uint16) * 257)
    data = encoded(image if mode == "I;16" else noise().convert(mode), "PNG", exif=_exif(orientation))
    whole = EncodedImage("it", data).decode()
    monkeypatch.setattr(decode_module, "_BAND", 48 * 7)  # seven rows, which do not divide the height
    np.testing.assert_array_equal(EncodedImage("it", data).decode(), whole)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("backend", ["pytorch", "dali-cpu", "packed"])
def test_every_backend_leaves_out_what_is_beyond_the_limit(
    backend: str, tmp_path: Path, opened: Callable[..., DataSource]
) -> None:
    if backend == "dali-cpu":
        pytest.importorskip("nvidia.dali")
    folder, path = tmp_path / "folder", tmp_path / "folder"
    (folder / "val" / "a").mkdir(parents=True)
    noise(50, 50).save(folder / "val" / "a" / "large.jpg")
    noise(50, 49).save(folder / "val" / "a" / "small.jpg")
    if backend == "packed":
        pack(folder, path := tmp_path / "packed", workers=0)

    def left_out(**settings: object) -> list[str]:
        data = opened(path=path, splits=("val",), data_backend=backend, on_bad_image="skip", **settings)
        assert data.val is not None
        seen = sum(len(batch.targets) for batch in data.val)
        assert seen == 2 - len(data.val.bad_images)
        return list(data.val.bad_images.values())

    assert left_out() == []
    (reason,) = left_out(max_pixels=2499)
    assert "50 x 50 pixels are more than --max-pixels allows (2,499" in reason
    with pytest.raises(BadImageError, match="50 x 50 pixels"):
        list_images(folder, "val", max_pixels=2499).image(0)


def test_what_is_remembered_as_decodable_holds_for_its_limit(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    noise().save(tmp_path / "train" / "a" / "1.jpg")
    large, small = (list_images(tmp_path, "train", max_pixels=limit) for limit in (1920, 1919))
    Memory(tmp_path / "cache", large).write(np.array([1], np.uint64))
    assert len(Memory(tmp_path / "cache", large).read()) == 1
    assert len(Memory(tmp_path / "cache", small).read()) == 0


LARGEST: dict[str, Callable[[int], bytes]] = {
    "png": lambda pixels: png(side := int(pixels**0.5), side, depth=8, colour=6),
    "turned png": lambda pixels: png(
        side := int(pixels**0.5), side, chunk(b"eXIf", _exif(6).tobytes()[6:]), depth=8, colour=2
    ),
    "progressive jpeg": lambda pixels: encoded(
        Image.new("RGB", (int((pixels * 9 / 10) ** 0.5),) * 2), "JPEG", progressive=True, subsampling=0
    ),
    "webp": lambda pixels: encoded(
        Image.new("RGBA", (int((pixels * 9 / limits._WEBP_BYTES) ** 0.5),) * 2, (1, 2, 3, 4)),
        "WEBP",
        lossless=True,
        method=0,
    ),
    "tiff of one strip": lambda pixels: encoded(
        Image.new("RGBA", (int((pixels * 9 / 11) ** 0.5),) * 2),
        "TIFF",
        compression="tiff_deflate",
        tiffinfo={278: 65_535},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", LARGEST)
def test_the_largest_images_take_less_than_a_gibibyte(form: str) -> None:
    data = LARGEST[form](MAX_PIXELS)
    assert limited(lambda: EncodedImage("it", data).decode().shape, seconds=60).endswith(", 3)")
    # and one more row or column would be refused
    assert "allows" in limited(lambda: EncodedImage("it", data, int(MAX_PIXELS * 0.99)))


def test_a_crop_for_which_there_is_no_memory_is_a_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.jpg"
    Image.effect_noise((50, 50), 60).save(path)

    def no_memory(shape: tuple[int, ...], dtype: object) -> object:
        raise MemoryError(f"no room for {shape}")

    # Not by a limit of the process: what other tests have freed may be enough.
    monkeypatch.setattr("effnet.data.baseline_jpeg.np.empty", no_memory)
    with pytest.raises(BadImageError, match=re.escape(f"{path}: can't be decoded: no room for (20, 30, 3)")):
        EncodedImage(path).crop(Region(0, 0, 20, 30))
