"""The engine `litert` answers as PyTorch does, for files in float and in integers and any number of images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.cli import main
from effnet.export.edge.appended import append_facts
from effnet.export.edge.formats import run_edge
from effnet.export.edge.litert import LITERT
from effnet.export.trained import ModelChoice
from effnet.inference.engine import open_engine
from effnet.runtime.errors import UserError
from tests.phones import CLASSES, SIZE, metadata, phone_file, shared_folder

pytest.importorskip("ai_edge_litert", reason="extra litert")


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_folder(tmp_path_factory)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def normalised(images: np.ndarray, mean: object, std: object) -> torch.Tensor:
    scaled = (images / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float().contiguous()


@pytest.mark.slow
def test_a_file_that_takes_three_images_answers_any_number(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = phone_file(LITERT, shared, target=None, batch_size=3, takes_bytes=True)
    engine = open_engine(ModelChoice(weights=file.path, device="cpu"))
    assert (engine.name, engine.network.precision, engine.network.batch_size) == ("litert", "fp32", 3)
    preprocessing = file.metadata.preprocessing
    for count in (1, 3, 7):
        images = pixels(count)
        with torch.no_grad():
            logits = file.model(normalised(images, preprocessing["mean"], preprocessing["std"]))
        assert np.allclose(engine(images), logits.softmax(1).numpy(), atol=1e-5)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(photo)
    assert main(["classify", "--json", str(file.path), str(photo)]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert {answer["name"] for answer in image["predictions"]} <= set(CLASSES)
    # In turns with others, at the batch size that the file takes.
    result = tmp_path / "compared.json"
    flags = [
        "--compare",
        str(file.path),
        "-b",
        "1",
        "3",
        "--rounds",
        "2",
        "--steps",
        "2",
        "--seconds",
        "0.01",
    ]
    assert main(["benchmark", "inference", *flags, "--device", "cpu", "--json", str(result)]) == 0
    rows = json.loads(result.read_text())["rows"]
    assert [(row["engine"], row["batch_size"]) for row in rows] == [("litert", 3)]


@pytest.mark.slow
def test_integers_in_and_out(shared: Path) -> None:
    file = phone_file(LITERT, shared, target="litert")
    engine = open_engine(ModelChoice(weights=file.path, device="cpu"))
    assert engine.network.precision == "int8"
    preprocessing = file.metadata.preprocessing
    images = pixels(5)
    given = normalised(images, preprocessing["mean"], preprocessing["std"])
    with torch.no_grad():
        expected = file.model(given)
    found = engine.logits(images)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) <= 0.2 * float(expected.abs().max())
    # The converter's own runtime, in its environment, computes the same integers.
    logits, _ = run_edge(LITERT, file.path, given.numpy())
    np.testing.assert_allclose(found.numpy(), logits, atol=1e-6)


def test_what_can_not_be_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--engine litert runs .tflite files, not weights; `effnet export litert`"
    ):
        open_engine(ModelChoice(arch="efficientnet-lite0", device="cpu"), "litert")
    with pytest.raises(UserError, match="absent.tflite: no such file"):
        open_engine(ModelChoice(weights=tmp_path / "absent.tflite", device="cpu"))
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(b"\x1c\0\0\0TFL3 and more")
    with pytest.raises(UserError, match="holds no metadata"):
        open_engine(ModelChoice(weights=foreign, device="cpu"))
    append_facts(foreign, metadata("efficientnet-lite0"), "fp32", {})
    with pytest.raises(UserError, match="foreign.tflite: not read by LiteRT"):
        open_engine(ModelChoice(weights=foreign, device="cpu"))
    with pytest.raises(UserError, match="--precision bf16: LiteRT computes as its file says"):
        open_engine(ModelChoice(weights=foreign, device="cpu", precision="bf16"))
