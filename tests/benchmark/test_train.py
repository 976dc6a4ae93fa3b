"""The training benchmark measures the trainer's own step beside its baselines."""

import json
from pathlib import Path

import pytest
import torch

from effnet.benchmark.baselines import baseline_model
from effnet.benchmark.measure import interleaved
from effnet.cli import main
from effnet.cli.commands import command_parser
from effnet.recipe import Recipe


def test_rounds_are_interleaved_after_the_warm_up() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = interleaved(steps, images=4, device=torch.device("cpu"), rounds=2, steps=2, warmup=1)
    assert "".join(order) == "ab" + "aabb" * 2
    assert {name: len(timing.latencies) for name, timing in timings.items()} == {"a": 4, "b": 4}
    assert sorted(timings["a"].rounds)[0] <= timings["a"].images_per_second <= sorted(timings["a"].rounds)[1]


def test_baselines_are_the_same_networks() -> None:
    recipe = Recipe().replace({"num_classes": 1000})
    for library in ("torchvision", "timm"):
        pytest.importorskip(library)
        model = baseline_model(library, recipe)
        assert sum(parameter.numel() for parameter in model.parameters()) == 5_288_548


@pytest.mark.parametrize("form", ["train", "inference"])
def test_the_flag_of_earlier_releases(form: str) -> None:
    parse = command_parser().parse_args
    assert parse(["benchmark", form]).baselines
    for flag in ("--no-baselines", "--no-peers"):
        assert not parse(["benchmark", form, flag]).baselines


def test_a_library_without_the_model_is_named() -> None:
    with pytest.raises(ImportError, match="torchvision has no efficientnet_widese_b0"):
        baseline_model("torchvision", Recipe().replace({"arch": "efficientnet-widese-b0"}))


def test_result_names_machine_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.json"
    flags = (
        "--arch efficientnet-widese-b0 --image-size 32 -b 2 --rounds 1 --steps 1 --device cpu --eager-only"
    )
    assert main(["benchmark", "train", *flags.split(), "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert list(result["rows"]) == ["effnet"]
    assert result["skipped"]["torchvision"] == "torchvision has no efficientnet_widese_b0"
    assert {"commit", "command", "cpu", "versions"} <= result["environment"].keys()
    assert "torchvision left out" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_prints_the_table_of_nvidias_readme(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text = tmp_path / "sweep.json", tmp_path / "sweep.md"
    flags = "--image-size 32 --rounds 1 --steps 1 --device cpu --eager-only --no-baselines --archs efficientnet-lite0"
    sweep = ["--batch-sizes", "2", "3", "--precisions", "fp32", "bf16"]
    files = ["--json", str(file), "--markdown", str(text)]
    assert main(["benchmark", "train", *flags.split(), *sweep, *files]) == 0
    runs = json.loads(file.read_text())["runs"]
    assert [(run["precision"], run["batch_size"]) for run in runs] == [
        (precision, batch) for precision in ("fp32", "bf16") for batch in (2, 3)
    ]
    rates = [run["rows"]["effnet"]["images_per_second"] for run in runs]
    expected = f"{max(rates[2:]) / max(rates[:2]):.2f} x"
    assert expected in text.read_text()
    assert text.read_text() in capsys.readouterr().out
