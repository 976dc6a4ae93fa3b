"""Core ML packages: they hold the weights, the gate computes with these, and the check for a Mac works."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.cli import main
from effnet.data.preprocessing import Preprocessing
from effnet.export.edge.coreml import CONVERTER, CoreMlPackage, export_coreml, run_coreml
from effnet.export.edge.program import export_program
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from tests.commands import REPOSITORY, blocks
from tests.phones import CLASSES, SIZE, in_integers, metadata, require_converter, tiny

NAME = "efficientnet-quant-b0"
DESCRIBED = """
import json, sys
from coremltools.models.utils import load_spec
spec = load_spec(sys.argv[1])
(taken,), (given,) = spec.description.input, spec.description.output
image, logits = taken.type.imageType, given.type.multiArrayType
print(json.dumps({
    "input": [taken.name, image.width, image.height, image.ColorSpace.Name(image.colorSpace)],
    "output": [given.name, list(logits.shape), logits.ArrayDataType.Name(logits.dataType)],
    "metadata": dict(spec.description.metadata.userDefined),
}))
"""


@dataclass(frozen=True)
class Package:
    written: CoreMlPackage
    model: EfficientNet


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Squeeze-and-excitation, SiLU and quantizers: all operators that packages hold but ReLU6's."""
    require_converter(CONVERTER)
    model = in_integers("executorch", NAME)
    path = tmp_path_factory.mktemp("coreml") / "model.mlpackage"
    path.mkdir()
    (path / "Manifest.json").touch()  # an earlier package
    return Package(export_coreml(model, metadata(NAME), path, install=False), model)


@pytest.mark.slow
def test_what_a_package_takes_and_tells(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    path = package.written.path
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert (package.written.precision, package.written.difference > 0) == ("int8", True)
    assert "Core ML itself has not run" in str(package.written)
    python = CONVERTER.folder / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", DESCRIBED, path], capture_output=True, text=True, check=True)
    described = json.loads(done.stdout)
    assert described["input"] == ["images", SIZE, SIZE, "RGB"]
    assert described["output"] == ["logits", [1, len(CLASSES)], "FLOAT32"]
    facts = described["metadata"]
    assert json.loads(facts["effnet"]) == metadata(NAME).to_dict()
    assert facts["classes"].splitlines() == list(CLASSES)
    # The documentation's check for a Mac, on PyTorch's answers in place of Core ML's.
    (check,) = (
        block for block in blocks((REPOSITORY / "docs/edge.md").read_text(), "python") if "MLModel" in block
    )
    preprocessing = metadata(NAME).preprocessing

    def predict(inputs: dict[str, Image.Image]) -> dict[str, np.ndarray]:
        pixels = (np.asarray(inputs["images"]) / 255 - preprocessing["mean"]) / preprocessing["std"]
        with torch.no_grad():
            logits = package.model(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
        return {"logits": logits.numpy()}

    coremltools = ModuleType("coremltools")
    opened = SimpleNamespace(user_defined_metadata=facts, predict=predict)
    coremltools.models = SimpleNamespace(MLModel=lambda file: opened)
    monkeypatch.setitem(sys.modules, "coremltools", coremltools)
    printed: list[tuple] = []
    exec(check, {"print": lambda *words: printed.append(words)})
    ((_, difference, _, largest),) = printed
    assert largest > 0.1
    assert difference <= 0.02 * largest


@pytest.mark.slow
def test_answers_are_computed_from_the_weights_in_the_package(package: Package) -> None:
    """With zeros in place of the classifier's weights, what remains is its bias."""
    program = export_program(package.model, Preprocessing(SIZE, SIZE), takes="pixels")
    (integers,) = (
        value for key, value in program.state_dict.items() if "classifier" in key and key.endswith("integers")
    )
    file = package.written.path / "Data/com.apple.CoreML/weights/weight.bin"
    content = file.read_bytes()
    weights = integers.numpy().tobytes()
    assert content.count(weights) == 1
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    try:
        file.write_bytes(content.replace(weights, bytes(len(weights))))
        logits = run_coreml(package.written.path, images)
    finally:
        file.write_bytes(content)
    bias = package.model.classifier.fc.bias.detach().numpy()
    step = float(package.model.classifier.logits_quantizer.grid.scale)
    assert np.abs(logits - bias).max() <= step
    assert package.written.difference < step * 20


def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, facts = tiny("efficientnet-lite0"), metadata("efficientnet-lite0")
    with pytest.raises(UserError, match=r"end in .mlpackage"):
        export_coreml(model, facts, tmp_path / "model.mlmodel")
    other = tmp_path / "other.mlpackage"
    other.mkdir()
    (other / "mine.txt").touch()
    with pytest.raises(UserError, match="exists and is no package of Core ML"):
        export_coreml(model, facts, other)
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    output = tmp_path / "new.mlpackage"
    command = [
        "export",
        "coreml",
        "--arch",
        "efficientnet-lite0",
        "--no-install",
        "--cpu",
        "--output",
        str(output),
    ]
    assert main(command) == 2
    assert "--no-install: coremltools==9.0 is not there" in capsys.readouterr().err
    assert not output.exists()
