"""The stages of a day with a GPU: their smallest form runs here, and figures stand beside what was predicted."""

import json
import os
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.commands import build_parser, main
from benchmarks.gpu_day import images
from benchmarks.gpu_day.figures import read_figures
from benchmarks.gpu_day.predictions import MACHINES, PREDICTIONS, eager_shares, image_bytes
from benchmarks.gpu_day.run import Done, run_stages
from benchmarks.gpu_day.stages import REPOSITORY, STAGES, Stage, files_of_gpu_tests, selected
from benchmarks.gpu_day.summary import bytes_table, predictions_table, print_summary
from effnet.cli.commands import command_parser

PAGE = REPOSITORY / "docs" / "gpu-day.md"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every stage in its smallest form, by the script that a person runs."""
    out = tmp_path_factory.mktemp("day")
    done = subprocess.run(
        [REPOSITORY / "benchmarks/gpu_day.sh", "--smallest", "--out", out, "--archive", out / "day.tgz"],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (out / "said.txt").write_text(done.stdout)
    return out


def result(day: Path, file: str) -> Any:
    return json.loads((day / file).read_text())


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_stage_did_what_it_is_for(day: Path) -> None:
    stages = {stage.name: result(day, f"{stage.name}.json") for stage in STAGES}
    assert all(done["failure"] is None for stage in stages.values() for done in stage["parts"].values())
    assert stages["a-tests"]["figures"] == {"tests passed": 3, "tests failed": 0, "tests skipped": 0}
    # One 3x3 kernel over 16 x 16 pixels of 32 channels in FP16.
    (row,) = result(day, "kernels-b0.json")["rows"].values()
    assert row["bytes_forward"] == 2 * 16 * 16 * 32 * 2
    assert 0 < max(row["errors"].values()) < 2e-3
    assert set(result(day, "train-b0.json")["rows"]) == {"effnet", "torchvision", "timm"}
    assert result(day, "train-b4.json")["arch"] == "efficientnet-b4"
    assert [run["batch_size"] for run in result(day, "inference-b0.json")["runs"]] == [1, 2]
    profile = result(day, "profile.json")
    assert [len(profile[kind]["kernels"]) for kind in ("training", "inference")] == [10, 10]
    assert profile["training"]["milliseconds"] > profile["inference"]["milliseconds"]
    assert result(day, "roofline.json")["training"]["whole"]["gap"] > 0
    assert result(day, "epoch-cifar10.json")["data_backend"] == "packed"
    assert result(day, "epoch-jpeg.json")["data_backend"] == "pytorch"
    assert stages["f-cifar10"]["figures"]["CIFAR-10, epochs"] == 1
    assert 0 <= stages["f-cifar10"]["figures"]["CIFAR-10, best top-1, %"] <= 100


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_results_travel_in_one_file_without_checkpoints(day: Path) -> None:
    with tarfile.open(day / "day.tgz") as archive:
        names = set(archive.getnames())
    assert {f"gpu-day/{stage.name}.json" for stage in STAGES} <= names
    assert "gpu-day/cifar10/report.json" in names
    assert not [name for name in names if name.endswith(".tar") or "/data/" in name]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_cpu_is_not_judged_by_a_gpu_s_figures(day: Path) -> None:
    said = (day / "said.txt").read_text()
    assert "B0, effnet's best / torchvision" in said
    assert not [word for word in ("BELOW", "ABOVE", "MISSING") if word in said]


def run(out: Path, minutes: float, **parts: str) -> dict[str, Done]:
    stage = Stage("a-tests", "a test", minutes, parts, parts)
    return run_stages([stage], out, out / "data")["a-tests"]


def test_a_part_that_fails_stops_no_other(tmp_path: Path) -> None:
    done = run(tmp_path, 5, broken="effnet models --no-such-flag", models="effnet models --json")
    assert done["broken"].failure is not None
    assert "no-such-flag" in done["broken"].failure
    assert done["models"].failure is None
    assert "efficientnet-b0" in (tmp_path / "models.log").read_text()


def test_a_part_that_hangs_is_ended_with_its_workers(tmp_path: Path) -> None:
    (tmp_path / "a-tests.json").write_text("old")
    pulse = tmp_path / "pulse"
    worker = f"import time\nwhile True: open({str(pulse)!r}, 'a').write('.'); time.sleep(0.05)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    done = run(tmp_path, 0.1, hanging=f"python -c {shlex.quote(parent)}", late="effnet models")
    assert [part.failure for part in done.values()] == [
        "ended: the stage's time was up",
        "left out: the stage's time was up",
    ]
    assert result(tmp_path, "a-tests.json")["parts"].keys() == {"hanging", "late"}
    beats = pulse.stat().st_size
    assert beats
    time.sleep(0.5)
    assert pulse.stat().st_size == beats


def parts() -> Iterator[str]:
    for stage in STAGES:
        assert stage.minutes < 9
        assert stage.smallest.keys() <= stage.parts.keys()
        yield from (*stage.parts.values(), *stage.smallest.values())


def test_the_parts_are_commands(tmp_path: Path) -> None:
    checked = set()
    for command in parts():
        program, *arguments = command.format(out=tmp_path, data=tmp_path, tests="tests").split()
        if program == "effnet":
            assert callable(command_parser().parse_args(arguments).command)
        elif arguments[1] in ("benchmarks", "benchmarks.gpu_day.smallest"):
            assert callable(build_parser().parse_args(arguments[2:]).command)
        checked.add(arguments[1] if program == "python" else program)
    assert checked == {
        "effnet",
        "benchmarks",
        "benchmarks.gpu_day.smallest",
        "benchmarks.gpu_day.images",
        "pytest",
    }


def test_stages_are_selected_by_name_and_letter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [stage.name for stage in selected(["c-inference", "a"])] == ["a-tests", "c-inference"]
    assert selected([]) == list(STAGES)
    assert main(["gpu-day", "z", "--out", str(tmp_path)]) == 2
    assert "no stage 'z'; they are a-tests" in capsys.readouterr().err
    assert main(["gpu-day"]) == 2
    assert "--out" in capsys.readouterr().err


def test_tests_of_gpus_are_found() -> None:
    found = files_of_gpu_tests()
    assert "tests/kernels/test_cuda.py" in found
    assert "tests/test_docs.py" not in found


def results(gpu: str, **figures: float) -> dict[str, dict[str, Any]]:
    return {"d-roofline": {"gpu": gpu, "smallest": False, "parts": {}, "figures": figures}}


def test_deviations_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {
        "copy rate, TB/s": 3.0,
        "matrix product, TFLOP/s": 500.0,
        "compiled training, times its floor": 20.0,
    }
    troubles = print_summary(results("NVIDIA H100 80GB HBM3", **figures))
    lines = {line.strip().split("  ")[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()}
    assert lines["copy rate, TB/s"] == "predicted"
    assert lines["matrix product, TFLOP/s"] == "BELOW"
    assert lines["compiled training, times its floor"] == "ABOVE"
    assert lines["eager training, times its floor"] == "MISSING"
    assert troubles == 5
    # The same rate of copy is far too low for the other machine.
    assert print_summary(results("NVIDIA H200", **figures)) == 6


def test_bytes_are_those_counted_by_hand() -> None:
    # docs/performance.md had these from sums by hand, images a second at 4.3 TB/s.
    for arch, implementation, megabytes in (
        ("efficientnet-b0", "training, kernels, compiled", 159),
        ("efficientnet-b0", "training, library, compiled", 191),
        ("efficientnet-b0", "training, library, eager", 289),
        ("efficientnet-b0", "inference, library, compiled", 59),
        ("efficientnet-b4", "training, kernels, compiled", 1218),
        ("efficientnet-b4", "training, library, eager", 2221),
    ):
        assert image_bytes(arch, implementation) / 1e6 == pytest.approx(megabytes, rel=0.01)


def test_predictions_follow_from_nvidia_s_figures() -> None:
    # 2,489 images/s of 289 MB on an A100, whose large copies move 1.84 TB/s.
    low, high = eager_shares()
    assert low < 2489 * 289e6 / 1.84e12 < high
    for name, prediction in PREDICTIONS.items():
        for machine in MACHINES:
            least, most = prediction.ranges[machine]
            assert least is None or most is None or least <= most, name
    h100, h200 = (PREDICTIONS["B0, torchvision, images/s"].ranges[machine][0] for machine in MACHINES)
    assert h200 / h100 == pytest.approx(4.8 / 3.35)


def test_the_page_has_the_predictions() -> None:
    for table in (predictions_table(), bytes_table()):
        assert table in PAGE.read_text(), "paste: python -m benchmarks gpu-day --predictions"
    measured = predictions_table([results("NVIDIA H100 PCIe", **{"copy rate, TB/s": 1.8})])
    assert "H100: 1.8" in measured


def test_figures_of_a_run_that_was_ended(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    lines = [
        {
            "type": "epoch",
            "data": {"val.top1": top1, "val.ema_top1": top1 + 5, "train.compute_ips": 100.0 * top1},
        }
        for top1 in (20.0, 50.0, 40.0)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"type": "epo'
    (tmp_path / "cifar10" / "report.json").write_text(text)
    assert read_figures("f-cifar10", tmp_path) == {
        "CIFAR-10, epochs": 3,
        "CIFAR-10, best top-1, %": 55.0,
        "CIFAR-10, images/s": 5000.0,
    }


def test_images_that_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images_of_cifar: Path) -> None:
    monkeypatch.setattr(images, "DATA", tmp_path / "carried")
    monkeypatch.setattr(images, "_WHEELS", ())
    monkeypatch.setattr(images, "_JPEG_NAMES", 30)
    carried = images.carry(images_of_cifar)
    said = images.prepare(tmp_path / "data", carried)
    assert "carried along" in said
    small, photographs = tmp_path / "data" / "cifar10", tmp_path / "data" / "photographs"
    assert [len(list((small / split).glob("*/*"))) for split in ("train", "val")] == [36, 4]
    assert len(list(photographs.glob("train/*/*"))) == 30
    originals = {path.read_bytes() for path in images_of_cifar.rglob("*.JPEG")}
    assert {path.read_bytes() for path in photographs.glob("train/*/*")} == originals
    assert (tmp_path / "data" / "cifar10-packed" / "train" / "index.json").exists()
    assert images.prepare(tmp_path / "data", carried) == said


@pytest.fixture
def images_of_cifar(tmp_path: Path) -> Path:
    """A folder like ``../shared``: ten images in each of four classes in an archive, and twelve photographs."""
    shared = tmp_path / "shared"
    images._made_up(tmp_path / "made" / "train", images=10, side=(32, 32))
    for late in range(4, 10):
        for path in (tmp_path / "made" / "train" / f"class{late:02d}").iterdir():
            path.unlink()
        (tmp_path / "made" / "train" / f"class{late:02d}").rmdir()
    (shared / "data").mkdir(parents=True)
    with tarfile.open(shared / "data" / images.CIFAR, "w:gz") as archive:
        archive.add(tmp_path / "made" / "train", arcname="train")
    images._made_up(tmp_path / "large", images=2, side=(64, 48))
    for index, path in enumerate(sorted((tmp_path / "large").glob("*/*"))[:12]):
        target = shared / "data" / "imagenet-sample" / "val" / f"n{index:08d}" / "photograph.JPEG"
        target.parent.mkdir(parents=True)
        # Names of photographs are their own.
        path.rename(target.with_name(f"photograph{index}.JPEG"))
    return shared
