"""The inference benchmark: engines beside the baselines, the layouts of NVIDIA's README, and files side by side."""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.benchmark.measure import Timing, interleaved
from effnet.benchmark.tables import inference_tables, markdown, training_table
from effnet.cli import main
from effnet.export.onnx import export_onnx
from effnet.training.step import Normalise
from effnet.weights import WeightsMetadata, create_model, save_weights
from tests.runs import PREPROCESSING, write_images

QUICK = ["--rounds", "2", "--steps", "2", "--seconds", "0.01", "--device", "cpu"]


def row(engine: str, rate: float) -> dict:
    latencies = {"latency": 0.01121, "latency_at95": 0.0099, "latency_at99": 0.01255}
    return {"images_per_second": rate, "engine": engine, **latencies}


def test_the_inference_table_of_nvidias_readme() -> None:
    """Its first row of mixed precision on an A100, but for the padding."""
    run = {"arch": "efficientnet-b0", "batch_size": 1, "precision": "fp16"}
    rows = {"effnet torch": row("torch", 90), "effnet openvino": row("openvino", 105), "timm": row("", 200)}
    title, _, header, rule, line = inference_tables([{**run, "rows": rows}]).splitlines()
    assert title == "FP16 Inference Latency (openvino)"
    names = "Model, Batch Size, Throughput Avg, Latency Avg, Latency 95%, Latency 99%"
    assert [cell.strip() for cell in header.strip("|").split("|")] == names.split(", ")
    assert set(rule) == set("|:-")
    cells = ["efficientnet-b0", "1", "105 img/s", "11.21 ms", "9.90 ms", "12.55 ms"]
    assert [cell.strip() for cell in line.strip("|").split("|")] == cells


def test_the_training_table_of_nvidias_readme() -> None:
    def run(precision: str, rate: float, batch_size: int = 256) -> dict:
        facts = {"arch": "efficientnet-b0", "batch_size": batch_size, "precision": precision}
        rows = {"effnet": row("", rate / 2), "effnet compiled": row("", rate), "timm": row("", 9000)}
        return {**facts, "rows": rows}

    table = training_table([run("tf32", 1078), run("tf32", 900, 8), run("fp16", 2489)])
    header, _, line = table.splitlines()
    assert "Throughput speedup (TF32 to mixed precision)" in header
    cells = ["efficientnet-b0", "1", "1078 img/s", "2489 img/s", "2.31 x", "1.0 x", "1.0 x"]
    assert [cell.strip() for cell in line.strip("|").split("|")] == cells
    lone = training_table([run("tf32", 1078)]).splitlines()[-1]
    assert [cell.strip() for cell in lone.strip("|").split("|")] == [*cells[:3], "-", "-", "1.0 x", "-"]


def test_markdown_is_aligned() -> None:
    lines = markdown(("a", "long name"), [("wide cell", "1"), ("b", "2")]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_ratios_are_of_the_same_round() -> None:
    fast, slow = Timing(0, [20.0, 10.0, 9.0], []), Timing(0, [10.0, 1.0, 3.0], [])
    assert fast.ratio_to(slow) == 3.0


def test_turns_settle_first_and_last_as_long_as_they_may() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    cpu = torch.device("cpu")
    interleaved(steps, images=1, device=cpu, rounds=1, steps=3, warmup=1, settle=2, seconds=1000)
    assert "".join(order) == "ab" + "aa" + "aaa" + "bb" + "bbb"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=("ant", "bee"))
    path = tmp_path_factory.mktemp("weights") / "two.pth"
    save_weights(path, create_model("efficientnet-lite0", num_classes=2).state_dict(), metadata)
    return path


@pytest.mark.slow
def test_a_sweep_in_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    file, text = tmp_path / "sweep.json", tmp_path / "sweep.md"
    models = ["efficientnet-lite0", "efficientnet-b0"]
    flags = ["--arch", *models, "-b", "2", "--precision", "fp32", "bf16", "--image-size", "32"]
    engines = ["--engine", "torch", "tensorrt", "--eager-only", "--json", str(file), "--markdown", str(text)]
    assert main(["benchmark", "inference", *flags, *engines, *QUICK]) == 0
    result = json.loads(file.read_text())
    assert [(run["arch"], run["precision"], run["batch_size"]) for run in result["runs"]] == [
        (arch, precision, 2) for arch in models for precision in ("fp32", "bf16")
    ]
    assert {"commit", "command", "cpu", "versions"} <= result["environment"].keys()
    lite, b0 = result["runs"][0], result["runs"][-1]
    assert set(lite["rows"]) == {"effnet torch", "timm"}
    assert lite["skipped"]["torchvision"] == "torchvision has no efficientnet_lite0"
    assert "GPU" in lite["skipped"]["effnet tensorrt"] or "tensorrt" in lite["skipped"]["effnet tensorrt"]
    assert b0["rows"]["torchvision"]["ratio_to_torchvision"] == 1.0
    assert len(b0["rows"]["effnet torch"]["rounds"]) == 2
    printed = capsys.readouterr().out
    assert printed == text.read_text()
    assert "FP32 Inference Latency (torch)" in printed


@pytest.mark.slow
def test_files_side_by_side(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="extra onnx")
    pytest.importorskip("openvino", reason="extra openvino")
    from effnet.export.trained import ModelChoice, open_trained

    exported, file = tmp_path / "model.onnx", tmp_path / "compared.json"
    trained = open_trained(ModelChoice(weights=weights))
    export_onnx(trained.model, trained.metadata, exported)
    write_images(tmp_path / "val", {"ant": 2, "bee": 2})
    flags = ["--compare", str(weights), str(exported), "-b", "1", "3", "--data", str(tmp_path)]
    assert main(["benchmark", "inference", *flags, *QUICK, "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(Path(row["file"]).name, row["engine"], row["batch_size"]) for row in rows] == [
        (name, engine, batch) for batch in (1, 3)
        for name, engine in (("two.pth", "torch"), ("model.onnx", "openvino"), ("model.onnx", "onnxruntime"))
    ]  # fmt: skip
    assert {row["top1"] for row in rows} == {rows[0]["top1"]}
    assert {row["images"] for row in rows} == {4}
    assert {row["size"] for row in rows} == {weights.stat().st_size, exported.stat().st_size}
    assert {row["precision"] for row in rows} == {"fp32"}
    assert all(row["ratio_fp32"] == 1.0 and row["ratio_torch"] > 0 for row in rows)
    assert f"{rows[0]['right']}/4" in capsys.readouterr().out


def edge_file(path: Path, weights: Path, batch_size: int) -> Path:
    """Metadata of `effnet export executorch` behind bytes that no runtime would read."""
    from effnet.export.edge import formats
    from effnet.export.edge.appended import append_facts
    from effnet.export.trained import ModelChoice, open_trained

    path.write_bytes(b"a model")
    taken = {formats.BATCH_KEY: str(batch_size), formats.BYTES_KEY: "true"}
    append_facts(path, open_trained(ModelChoice(weights=weights)).metadata, "int8", taken)
    return path


def test_files_for_phones_in_their_own_runtime(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stands in for ExecuTorch: its answers to two images at a time are PyTorch's, a batch takes 4 ms by its clock."""
    from effnet.benchmark import phones
    from effnet.export.edge.executorch import EXECUTORCH
    from effnet.export.trained import ModelChoice, open_trained

    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    file, result = edge_file(tmp_path / "two.pte", weights, 2), tmp_path / "compared.json"
    write_images(tmp_path / "val", {"ant": 2, "bee": 3})
    flags = ["benchmark", "inference", "--compare", str(weights), str(file), "-b", "1", "2", *QUICK]
    flags += ["--data", str(tmp_path), "--device", "cpu", "--json", str(result)]
    assert main(flags) == 2
    assert "is not in the cache; `effnet export executorch` puts it there" in capsys.readouterr().err
    EXECUTORCH.converter.folder.mkdir(parents=True)
    (EXECUTORCH.converter.folder / "complete").touch()
    trained = open_trained(ModelChoice(weights=weights))
    normalise = Normalise(trained.preprocessing)

    def run(form: object, path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert (form, path, len(images) % 2) == (EXECUTORCH, file, 0)
        with torch.inference_mode():
            logits = trained.model(normalise(torch.from_numpy(images).permute(0, 3, 1, 2))).numpy()
        return logits, np.array([9.0, *[0.004] * (len(images) // 2 - 1)])

    monkeypatch.setattr(phones, "run_edge", run)
    assert main(flags) == 0
    rows = json.loads(result.read_text())["rows"]
    assert [(row["engine"], row["batch_size"]) for row in rows] == [
        ("torch", 1),
        ("torch", 2),
        ("executorch", 2),
    ]
    torch_row, row = rows[1:]
    assert row["images_per_second"] == pytest.approx(500)
    assert row["latency"] == pytest.approx(0.004)
    assert (row["precision"], row["size"]) == ("int8", file.stat().st_size)
    assert (row["right"], row["images"]) == (torch_row["right"], 5)
    assert row["ratio_torch"] == pytest.approx(statistics.median(500 / rate for rate in torch_row["rounds"]))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--engine", "caffe"], "--engine"),
        (["-b", "0"], "--batch-size"),
        (["--data", "x"], "--compare"),
        (["--compare", "/no/such.onnx"], "/no/such.onnx"),
        (["--arch", "efficientnet-b9"], "efficientnet-b"),
        (["--precision", "tf32", "--device", "cpu"], "--precision tf32"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], flags: list[str], words: str) -> None:
    pytest.importorskip("onnxruntime", reason="extra onnx")
    assert main(["benchmark", "inference", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
