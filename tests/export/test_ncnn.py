"""Folders for ncnn: its answers from pixels are PyTorch's, in both precisions, and what can't be written is refused."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.cli import main
from effnet.export.edge.ncnn import CONVERTER, NcnnPackage, export_ncnn, run_ncnn
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from tests.phones import CLASSES, SIZE, in_integers, metadata, require_converter, tiny

NAME = "efficientnet-b0"


@dataclass(frozen=True)
class Package:
    written: NcnnPackage
    model: EfficientNet


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Squeeze-and-excitation, SiLU and a shortcut, over an earlier package."""
    require_converter(CONVERTER)
    model = tiny(NAME)
    path = tmp_path_factory.mktemp("ncnn") / "model.ncnn"
    path.mkdir()
    (path / "model.param").touch()
    (path / "old.txt").touch()
    return Package(export_ncnn(model, metadata(NAME), path, install=False), model)


@pytest.mark.slow
def test_answers_from_pixels_are_pytorch_s(package: Package) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    preprocessing = metadata(NAME).preprocessing
    pixels = (images / 255 - preprocessing["mean"]) / preprocessing["std"]
    with torch.no_grad():
        expected = package.model(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(run_ncnn(package.written.path, images), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_what_a_folder_holds(package: Package, tmp_path: Path) -> None:
    path = package.written.path
    assert {each.name for each in path.iterdir()} == {
        "model.param",
        "model.bin",
        "effnet.json",
        "classes.txt",
        "precision",
    }
    assert (path / "precision").read_text() == package.written.precision
    assert json.loads((path / "effnet.json").read_text()) == metadata(NAME).to_dict()
    assert (path / "classes.txt").read_text().splitlines() == list(CLASSES)
    halved = export_ncnn(
        package.model, metadata(NAME), tmp_path / "half.ncnn", precision="fp16", install=False
    )
    assert halved.precision == "fp16"
    assert package.written.difference < halved.difference < 0.05
    weights, half = ((each / "model.bin").stat().st_size for each in (path, halved.path))
    assert half < 0.7 * weights


@pytest.mark.slow
def test_a_folder_with_other_weights_is_not_written(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate asks ncnn, with the weights of the folder that is to be written."""
    given = package.written.path / "model.bin"

    def with_zeros(folder: Path, images: np.ndarray) -> np.ndarray:
        (folder / "model.bin").write_bytes(bytes(given.stat().st_size))
        return run_ncnn(folder, images)

    monkeypatch.setattr("effnet.export.edge.ncnn.run_ncnn", with_zeros)
    path = tmp_path / "model.ncnn"
    with pytest.raises(UserError, match=r"model\.ncnn"):
        export_ncnn(package.model, metadata(NAME), path, install=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, facts = tiny(NAME), metadata(NAME)
    with pytest.raises(UserError, match=r"end in .ncnn"):
        export_ncnn(model, facts, tmp_path / "model.param")
    other = tmp_path / "other.ncnn"
    other.mkdir()
    (other / "mine.txt").touch()
    with pytest.raises(UserError, match="exists and is no package of ncnn"):
        export_ncnn(model, facts, other)
    quantized = in_integers("executorch")
    with pytest.raises(UserError, match="has quantizers"):
        export_ncnn(quantized, metadata("efficientnet-quant-lite0"), tmp_path / "int8.ncnn")
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    output = tmp_path / "new.ncnn"
    command = ["export", "ncnn", "--arch", "efficientnet-lite0", "--no-install", "--cpu"]
    assert main([*command, "--output", str(output)]) == 2
    assert "--no-install: ncnn==1.0.20261020 is not there" in capsys.readouterr().err
    assert not output.exists()
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix) == ["other.ncnn"]
