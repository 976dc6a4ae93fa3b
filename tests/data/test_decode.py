import io
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from effnet.data import decode as module
from effnet.data.decode import BadImageError, EncodedImage, Region, tell_decoder

from .conftest import photograph

ORIENTATION = 0x0112


def decode(path: Path) -> np.ndarray:
    return EncodedImage(path).decode()


def test_photographs_have_pillows_pixels(shared_dir: Path) -> None:
    files = sorted((shared_dir / "data" / "imagenet-sample" / "val").glob("*/*"))[::40]
    if not files:
        pytest.skip("no imagenet-sample in shared/data")
    for path in files:
        image = EncodedImage(path)
        pillow = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(image.decode(), pillow)
        assert (image.height, image.width) == pillow.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif"])
def test_rotated_images_are_turned_upright(tmp_path: Path, form: str, orientation: int) -> None:
    path = tmp_path / f"image.{form}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photograph(20, 30).save(path, exif=exif)
    image = EncodedImage(path)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    np.testing.assert_array_equal(image.decode(), upright)
    assert (image.height, image.width) == upright.shape[:2] == ((30, 20) if orientation > 4 else (20, 30))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_at_reduced_size(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photograph(600, 800).save(path, exif=exif)
    whole = EncodedImage(path).decode()
    height, width = whole.shape[:2]
    reduced = EncodedImage(path).decode(height // 4 - 10, width // 4 - 20)
    assert reduced.shape == (height // 4, width // 4, 3)
    expected = np.asarray(Image.fromarray(whole).reduce(4), dtype=float)
    assert np.abs(reduced - expected).mean() < 1
    assert EncodedImage(path).decode(height // 2 + 1, 1).shape == whole.shape


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decodes by libraries alone."""
    monkeypatch.setattr(module, "decode_part", lambda *_: None)


@pytest.fixture(params=["compiled", "simplejpeg", "without simplejpeg"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test as it is, and as on machines that lack a compiler, and simplejpeg too."""
    if request.param == "compiled":
        return
    request.getfixturevalue("without_compiler")
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(module, "simplejpeg", None)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str)
def test_a_region_has_the_pixels_it_has_in_the_whole(
    tmp_path: Path, subsampling: str, options: dict[str, int]
) -> None:
    path = tmp_path / "image.jpg"
    photograph(75, 90).save(path, subsampling=subsampling, **options)
    pillow = np.asarray(Image.open(path).convert("RGB"))
    for bottom in range(1, 76):
        region = Region(bottom // 2, bottom // 3, bottom - bottom // 2, 40)
        expected = pillow[bottom // 2 : bottom, bottom // 3 : bottom // 3 + 40]
        np.testing.assert_array_equal(EncodedImage(path).crop(region), expected)


@pytest.mark.parametrize("form", ["jpg", "png"])
def test_a_region_of_a_turned_image(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"image.{form}"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    photograph(60, 80).save(path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    np.testing.assert_array_equal(EncodedImage(path).crop(Region(5, 7, 30, 20)), upright[5:35, 7:27])


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("form", ["JPEG", "MPO"])
def test_a_region_of_what_phones_write(tmp_path: Path, form: str) -> None:
    """An upright photograph with EXIF, a colour profile in two segments, and perhaps a second image."""
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    second = {"save_all": True, "append_images": [photograph(60, 80, seed=1)]} if form == "MPO" else {}
    photograph(60, 80).save(path, form, exif=exif, icc_profile=bytes(100_000), **second)
    pillow = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(EncodedImage(path).crop(Region(5, 7, 30, 20)), pillow[5:35, 7:27])


@pytest.mark.usefixtures("decoder")
def test_photographs_have_pillows_pixels_in_a_region(shared_dir: Path) -> None:
    files = sorted((shared_dir / "data" / "imagenet-sample" / "val").glob("*/*"))[::10]
    if not files:
        pytest.skip("no imagenet-sample in shared/data")
    for path in files:
        image = EncodedImage(path)
        height, width = image.height // 3, image.width // 2
        pillow = np.asarray(Image.open(path).convert("RGB"))[height : 2 * height, width : 2 * width]
        np.testing.assert_array_equal(image.crop(Region(height, width, height, width)), pillow)


@pytest.mark.usefixtures("without_compiler")
def test_the_work_below_a_region_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    photograph(160, 80).save(path)
    rows: list[int] = []

    def decode_jpeg(data: bytes, *_: object, **__: object) -> np.ndarray:
        rows.append(Image.open(io.BytesIO(data)).height)
        return np.zeros((rows[-1], 80, 3), np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "simplejpeg", type("stub", (), {"decode_jpeg": staticmethod(decode_jpeg)}))
        EncodedImage(path).crop(Region(0, 0, 40, 40))
        EncodedImage(path).crop(Region(100, 0, 60, 40))
    assert rows[0] < 50
    assert rows[1] == 160


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_region_above_the_break_of_a_truncated_file_does_not_hide_it(tmp_path: Path, share: float) -> None:
    path = tmp_path / "broken.jpg"
    photograph(300, 300).save(path, quality=95)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadImageError, match="truncated"):
        EncodedImage(path).crop(Region(0, 0, 10, 10))


@pytest.mark.parametrize(
    "header", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xff\xe0\0", b"\xff\xd8\xff\xc0\0"]
)
def test_a_header_that_ends_early_has_no_frame(header: bytes) -> None:
    assert module._plain_frame(header) is None


def test_padding_before_a_marker_is_skipped() -> None:
    comment = b"\xff\xd8\xff\xfe\0\x04ab"
    frame = module._plain_frame(comment + b"\xff\xff\xff\xc0" + struct.pack(">HBHHB", 17, 8, 480, 640, 3))
    assert frame is not None
    assert frame[1:] == (480, 640, True)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "option", [{}, {"progressive": True}, {"exif": b"Exif\0\0"}, {"keep_rgb": True}], ids=str
)
def test_the_quick_header_is_pillows(tmp_path: Path, mode: str, option: dict[str, object]) -> None:
    path = tmp_path / "image.jpg"
    photograph(20, 30).convert(mode).save(path, **option)
    image = EncodedImage(path)
    assert (image.height, image.width) == (20, 30)
    assert (module._plain_frame(path.read_bytes()) is None) == (mode == "CMYK" or "exif" in option)
    np.testing.assert_array_equal(image.decode(), np.asarray(Image.open(path).convert("RGB")))


def test_without_simplejpeg_images_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("simplejpeg")
    path = tmp_path / "image.jpg"
    photograph(600, 800).save(path)

    def views() -> list[np.ndarray]:
        image = EncodedImage(path)
        return [image.decode(), image.decode(150, 200), image.crop(Region(50, 60, 500, 600), enough=100)]

    expected = views()
    monkeypatch.setattr(module, "simplejpeg", None)
    for got, wanted in zip(views(), expected, strict=True):
        # reduced sizes differ: simplejpeg takes eighths, Pillow halves
        assert got.shape[0] >= wanted.shape[0]
        if got.shape == wanted.shape:
            np.testing.assert_array_equal(got, wanted)
    tell_decoder.cache_clear()
    with caplog.at_level(logging.WARNING):
        tell_decoder()
        tell_decoder()
    tell_decoder.cache_clear()
    assert [r.getMessage() for r in caplog.records if "pip install simplejpeg" in r.getMessage()] == [
        "simplejpeg can't be imported (pip install simplejpeg): JPEG files are decoded by Pillow, more slowly"
    ]


def gradient(mode: str) -> Image.Image:
    return Image.linear_gradient("L").resize((40, 30)).convert(mode)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey.jpg", gradient("L")),
        ("cmyk.jpg", gradient("RGB").convert("CMYK")),
        ("cmyk.tif", gradient("RGB").convert("CMYK")),
        ("palette.png", gradient("P")),
        ("grey-alpha.png", gradient("LA")),
        ("rgba.png", gradient("RGBA")),
        ("rgba.webp", gradient("RGBA")),
        ("plain.bmp", gradient("RGB")),
        ("plain.ppm", gradient("RGB")),
        ("plain.gif", gradient("L")),
        ("16bit.png", Image.fromarray(np.asarray(gradient("L")).astype(np.uint16) * 257)),
        ("16bit.tif", Image.fromarray(np.asarray(gradient("L")).astype(np.uint16) * 257)),
        ("32bit.tif", Image.fromarray(np.asarray(gradient("L")).astype(np.int32) * 257)),
    ],
)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, name: str, image: Image.Image) -> None:
    image.save(tmp_path / name)
    expected = np.asarray(gradient("RGB"), dtype=float)
    assert np.abs(decode(tmp_path / name) - expected).mean() < 1.5


def test_bilevel(tmp_path: Path) -> None:
    photograph(20, 20).convert("1").save(tmp_path / "bilevel.png")
    assert set(np.unique(decode(tmp_path / "bilevel.png"))) == {0, 255}


def test_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    image = photograph(16, 16).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    image.save(tmp_path / "palette.png", transparency=bytes([0, 128] + [255] * 6))
    np.testing.assert_array_equal(decode(tmp_path / "palette.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
def test_an_animation_is_its_first_frame(tmp_path: Path, form: str) -> None:
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "green", "blue")]
    path = tmp_path / f"animation.{form}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert np.abs(decode(path).astype(int) - [255, 0, 0]).max() <= 3


def test_malformed_exif_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "exif.jpg"
    photograph(16, 16).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(path).shape == (16, 16, 3)


def test_small_flaws_are_read_past(tmp_path: Path) -> None:
    data = io.BytesIO()
    photograph(64, 64).save(data, "JPEG")
    path = tmp_path / "flawed.jpg"
    # stray bytes before the end marker
    path.write_bytes(data.getvalue()[:-2] + b"\0\0\0" + data.getvalue()[-2:])
    assert decode(path).shape == (64, 64, 3)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("form", ["jpg", "png", "gif", "tif", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_broken_file_is_named(tmp_path: Path, form: str, share: float) -> None:
    path = tmp_path / f"broken.{form}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadImageError, match=f"^{path}: ") as raised:
        decode(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="No such file"):
        EncodedImage(tmp_path / "gone.jpg")
