"""ONNX and OpenVINO files that contradict their metadata, fail, or point elsewhere: one line, nothing else read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effnet.export.facts import METADATA_KEY
from effnet.export.trained import ModelChoice
from effnet.inference.engine import open_engine
from tests.limits import refusal, refused
from tests.runs import PREPROCESSING, write_images

onnx = pytest.importorskip("onnx", reason="extra onnx")
pytest.importorskip("onnxruntime", reason="extra onnx")

FLOAT, BYTES, DOUBLE = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "UINT8", "DOUBLE"))
SIDE = PREPROCESSING["image_size"]
METADATA = {
    "model": "efficientnet-lite0",
    "preprocessing": PREPROCESSING,
    "classes": ["cat", "dog"],
    "format": 2,
}
Shape = Sequence[int | str]


def write(
    path: Path,
    *,
    images: Any = ("n", 3, SIDE, SIDE),
    logits: Shape = ("n", 2),
    names: tuple[str, str] = ("images", "logits"),
    dtypes: tuple[int, int] = (FLOAT, FLOAT),
    more_inputs: int = 0,
    more_outputs: int = 0,
    metadata: object = METADATA,
    nodes: Sequence[Any] | None = None,
    weight: Any = None,
) -> Path:
    """Write a graph of two nodes: the mean of each image's channels, times a matrix of three rows."""
    helper = onnx.helper
    first, last = names
    if nodes is None:
        nodes = [
            helper.make_node("ReduceMean", [first], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["means", "weight"], [last]),
        ]
    classes = logits[-1] if isinstance(logits[-1], int) else 2
    if weight is None:
        weight = onnx.numpy_helper.from_array(np.ones((3, classes), np.float32), "weight")
    inputs = [helper.make_tensor_value_info(first, dtypes[0], images)]
    inputs += [helper.make_tensor_value_info(f"more{n}", FLOAT, [1]) for n in range(more_inputs)]
    outputs = [helper.make_tensor_value_info(last, dtypes[1], logits)]
    for number in range(more_outputs):
        nodes = [*nodes, helper.make_node("Identity", [last], [f"more{number}"])]
        outputs.append(helper.make_tensor_value_info(f"more{number}", FLOAT, logits))
    graph = helper.make_graph(nodes, "graph", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    helper.set_model_props(model, {METADATA_KEY: text})
    path.write_bytes(model.SerializeToString())
    return path


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "larger images": {"images": ("n", 3, 64, 64)},
    "flat images": {"images": ("n", 3 * SIDE * SIDE)},
    "four channels": {"images": ("n", 4, SIDE, SIDE)},
    "another name": {"names": ("pictures", "logits")},
    "another name of the logits": {"names": ("images", "probabilities")},
    "two inputs": {"more_inputs": 1},
    "two outputs": {"more_outputs": 1},
    "more classes": {"logits": ("n", 5)},
    "metadata of a list": {"metadata": [1]},
    "metadata of a huge image": {
        "metadata": {**METADATA, "preprocessing": {**PREPROCESSING, "image_size": 10**9}}
    },
    "metadata with a path": {"metadata": {**METADATA, "model": "../../x"}},
    "deep metadata": {"metadata": "[" * 100_000},
    "metadata with a long integer": {"metadata": '{"model": ' + "9" * 5000 + "}"},
}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_file_that_contradicts_its_metadata(tmp_path: Path, name: str, engine: str) -> None:
    pytest.importorskip(engine)
    if engine == "openvino" and name.startswith("another name"):
        pytest.skip("OpenVINO is called by position")
    path = write(tmp_path / "model.onnx", **CONTRADICTIONS[name])
    with refused(path):
        open_engine(ModelChoice(weights=path), engine)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_honest_one_answers(tmp_path: Path, engine: str) -> None:
    pytest.importorskip(engine)
    opened = open_engine(ModelChoice(weights=write(tmp_path / "model.onnx")), engine)
    answer = opened(np.zeros((3, SIDE, SIDE, 3), np.uint8))
    assert answer == pytest.approx(np.full((3, 2), 0.5))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_that_returns_something_else_than_it_says(tmp_path: Path, engine: str) -> None:
    """One row for all images, under an output of one row for each."""
    pytest.importorskip(engine)
    nodes = [
        onnx.helper.make_node("ReduceMean", ["images"], ["means"], axes=[0, 2, 3], keepdims=0),
        onnx.helper.make_node("Unsqueeze", ["means", "zero"], ["row"]),
        onnx.helper.make_node("MatMul", ["row", "weight"], ["logits"]),
    ]
    zero = onnx.helper.make_node(
        "Constant", [], ["zero"], value=onnx.numpy_helper.from_array(np.array([0], np.int64))
    )
    path = write(tmp_path / "model.onnx", nodes=[zero, *nodes])
    with refused(path):
        open_engine(ModelChoice(weights=path), engine)(np.zeros((3, SIDE, SIDE, 3), np.uint8))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd", "/dev/zero"])
def test_weights_in_another_place_are_not_read(tmp_path: Path, engine: str, place: str) -> None:
    pytest.importorskip(engine)
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (tmp_path / "folder").mkdir()
    weight = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "weight")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": "24"}.items():
        weight.external_data.add(key=key, value=value)
    path = write(tmp_path / "folder/model.onnx", weight=weight)
    with refused(path):
        open_engine(ModelChoice(weights=path), engine)(np.zeros((1, SIDE, SIDE, 3), np.uint8))


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(1000), b"<?xml version='1.0'?><net/>", b"<" * 5000], ids=range(5)
)
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_files_that_are_none(tmp_path: Path, content: bytes, suffix: str) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino")
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with refused(path):
        open_engine(ModelChoice(weights=path))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "val", {"cat": 1, "dog": 1})
    path = write(tmp_path / "model.onnx", images=("n", 3, 64, 64))
    picture = str(tmp_path / "val/cat/0.jpg")
    refusal(path, "classify", "--pretrained-from-file", str(path), picture, capsys=capsys)
    arguments = ["--pretrained-from-file", str(path), "--workspace", str(tmp_path / "run"), "--device", "cpu"]
    refusal(path, "evaluate", str(tmp_path), *arguments, capsys=capsys)
