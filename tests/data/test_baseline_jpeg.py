"""Parts of JPEG files, decoded by us, beside Pillow's pixels."""

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data import baseline_jpeg
from effnet.data.baseline_jpeg import decode_part
from effnet.runtime.cpp import find_compiler, load_kernels

from .conftest import Opened, photograph

_CHECKED = (
    "-O1",
    "-std=c++17",
    "-Wno-psabi",
    "-fwrapv",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
SIZES = [(16, 16), (17, 23), (64, 64), (75, 90), (33, 200), (200, 33)]


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def parts(height: int, width: int, count: int = 40) -> Iterator[tuple[int, int, int, int]]:
    yield 0, 0, height, width
    random = np.random.default_rng(height * width)
    for _ in range(count):
        rows, columns = int(random.integers(1, height + 1)), int(random.integers(1, width + 1))
        yield (
            int(random.integers(height - rows + 1)),
            int(random.integers(width - columns + 1)),
            rows,
            columns,
        )


def check(data: bytes) -> None:
    pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for top, left, height, width in parts(*pillow.shape[:2]):
        part = decode_part(data, top, left, height, width)
        assert part is not None
        np.testing.assert_array_equal(part, pillow[top : top + height, left : left + width])


@pytest.fixture(scope="module")
def damaging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`damaged_jpegs.cpp`, in which a sanitizer watches each access to memory."""
    program = tmp_path_factory.mktemp("cpp") / "damaging"
    source = Path(__file__).parent / "cpp" / "damaged_jpegs.cpp"
    built = subprocess.run(
        [find_compiler(), *_CHECKED, source, "-o", program], capture_output=True, text=True, check=False
    )
    if "asan" in built.stderr:
        pytest.skip("the compiler comes without its sanitizers")
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 3}], ids=str)
def test_parts_of_a_photograph(size: tuple[int, int], subsampling: str, options: dict[str, object]) -> None:
    check(encoded(photograph(*size), subsampling=subsampling, **options))


@pytest.mark.parametrize("quality", [1, 20, 50, 90, 95, 100])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_parts_of_noise(mode: str, quality: int) -> None:
    """Noise has the longest codes, the largest numbers and, at low quality, values beyond those of pixels."""
    noise = np.random.default_rng(quality).integers(0, 2, (90, 75, 3), np.uint8) * 255
    check(encoded(Image.fromarray(noise).convert(mode), quality=quality))


def test_parts_of_one_colour() -> None:
    check(encoded(Image.new("RGB", (50, 40), (250, 3, 99))))


def test_all_photographs_of_the_sample(shared_dir: Path) -> None:
    files = sorted((shared_dir / "data" / "imagenet-sample" / "val").glob("*/*"))
    if not files:
        pytest.skip("no imagenet-sample in shared/data")
    decoded = 0
    for path in files:
        pillow = np.asarray(Image.open(path).convert("RGB"))
        rows, columns, _ = pillow.shape
        _, (top, left, height, width) = parts(rows, columns, count=1)
        part = decode_part(path.read_bytes(), top, left, height, width)
        if part is not None:
            decoded += 1
            np.testing.assert_array_equal(part, pillow[top : top + height, left : left + width], str(path))
    assert decoded >= 0.99 * len(files)


def test_what_is_left_to_libraries() -> None:
    image = photograph(40, 50)
    whole = encoded(image)
    assert decode_part(whole, 0, 0, 8, 8) is not None
    for other in (
        encoded(image, progressive=True),
        encoded(image, keep_rgb=True),
        encoded(image.convert("CMYK")),
        encoded(photograph(15, 50)),
        whole[:-2],
        whole[: len(whole) // 2],
        whole[:100],
        b"",
        b"\xff\xd8",
    ):
        assert decode_part(other, 0, 0, 8, 8) is None


@pytest.mark.parametrize(
    "part", [(-1, 0, 8, 8), (0, -1, 8, 8), (33, 0, 8, 8), (0, 43, 8, 8), (0, 0, 41, 1)], ids=str
)
def test_a_part_beyond_the_image_is_refused(part: tuple[int, int, int, int]) -> None:
    assert decode_part(encoded(photograph(40, 50)), *part) is None


@pytest.mark.parametrize("position", ["above", "below"])
def test_damage_is_seen_where_it_would_be_read(position: str) -> None:
    """A restart marker that is not the next one; it is one in a file cut out of the middle."""
    data = encoded(photograph(160, 80), restart_marker_rows=1)
    markers = [i for i in range(len(data) - 1) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7]
    first, second = markers[2:4] if position == "above" else markers[-2:]
    assert decode_part(data[:first] + data[second:], 0, 0, 100, 80) is None


def test_it_is_compiled_once_however_many_workers_there_are(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, calls = tmp_path / "compiler", tmp_path / "calls"
    compiler.write_text(f"""#!/bin/sh\necho "$@" >> {calls}\nexec {find_compiler()} "$@"\n""")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    for cached in (baseline_jpeg._compiled, load_kernels):
        cached.cache_clear()
    loader = opened(workers=3).train
    assert loader is not None
    assert len(list(loader)) == 5
    loader.close()  # type: ignore[attr-defined]
    compiled = [line for line in calls.read_text().splitlines() if "baseline_jpeg.cpp" in line]
    assert len(compiled) == 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"restart_marker_blocks": 3}], ids=str)
def test_damaged_files_read_and_write_nothing_else(
    damaging: Path, tmp_path: Path, mode: str, options: dict[str, object]
) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photograph(75, 90).convert(mode), **options))
    ran = subprocess.run([damaging, path, "20000"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    decoded, refused = map(int, ran.stdout.split())
    assert min(decoded, refused) > 4000
