"""The model of scaling: its limits, its parts, and the measurements in NVIDIA's README."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.commands import main
from benchmarks.scaling import (
    PUBLISHED,
    Cluster,
    Layer,
    Workload,
    buckets,
    checkpoint_seconds,
    expected_largest,
    exposed_seconds,
    layers,
    simulate,
    simulate_published,
    simulate_workload,
    sum_seconds,
)
from effnet.weights import create_model

B0 = Workload("efficientnet-b0", 2489, 256)
IDEAL = Cluster(
    link_bandwidth=math.inf,
    network_bandwidth=math.inf,
    latency=0,
    input_rate=math.inf,
    jitter=0,
    disk_bandwidth=1,
)


@pytest.mark.parametrize("gpus", [1, 2, 8, 16])
def test_nothing_is_lost_on_an_ideal_cluster(gpus: int) -> None:
    assert simulate(B0, IDEAL, gpus).speedup == pytest.approx(gpus)


def test_one_gpu_is_as_fast_as_measured() -> None:
    alone = simulate(B0, Cluster(), 1)
    assert (alone.images_per_second, alone.speedup, alone.bound) == (
        pytest.approx(2489),
        pytest.approx(1),
        "",
    )


def test_slow_input_bounds_all() -> None:
    slow = simulate(B0, replace(IDEAL, input_rate=1000), 16)
    assert slow.images_per_second == pytest.approx(2000)
    assert slow.bound == "input"


def test_a_slow_network_bounds_by_the_bytes_of_the_gradients() -> None:
    # So slow that the backward pass hides nothing worth mentioning.
    cluster = replace(IDEAL, network_bandwidth=1e-3)
    gradients = 4 * sum(parameter.numel() for parameter in create_model("efficientnet-b0").parameters())
    expected = 2 * (2 - 1) / 2 * gradients / 1e6
    simulated = simulate(B0, cluster, 16)
    assert simulated.sum == pytest.approx(expected, rel=0.01)
    assert simulated.bound == "sum"


def test_layers_hold_every_gradient() -> None:
    for arch in ("efficientnet-b0", "efficientnet-b4"):
        parameters = sum(parameter.numel() for parameter in create_model(arch).parameters())
        assert sum(layer.gradient for layer in layers(arch)) == 4 * parameters
        assert checkpoint_seconds(arch, Cluster()) == pytest.approx(16 * parameters / 1e9)


def test_an_epoch_ends_with_a_checkpoint() -> None:
    gradients = sum(layer.gradient for layer in layers(B0.arch))
    disk = gradients * 4 / 1e9 / 100  # GB/s at which the checkpoint takes 100 seconds
    (row,) = simulate_workload(B0, replace(IDEAL, disk_bandwidth=disk), [8])
    assert row["checkpoint_seconds"] == pytest.approx(100)
    assert row["epoch_seconds"] == pytest.approx(1_281_167 / (8 * 2489) + 100)


def test_buckets_fill_from_the_output_on() -> None:
    megabyte = 1 << 20
    of_layers = [Layer(megabyte, 30), Layer(3 * megabyte, 20), Layer(megabyte // 2, 10), Layer(megabyte, 40)]
    # The last layer fills the first bucket of one megabyte; then two are needed for four, and one is left.
    assert buckets(of_layers, 3) == [
        (megabyte, 0.4),
        (3 * megabyte + megabyte // 2, pytest.approx(0.7)),
        (megabyte, 1.0),
    ]
    for size in (0.5, 4, 25):
        whole = buckets(layers("efficientnet-b0"), size)
        assert sum(filled for filled, _ in whole) == sum(
            layer.gradient for layer in layers("efficientnet-b0")
        )
        assert whole[-1][1] == pytest.approx(1.0)


def test_small_buckets_hide_more_of_the_sum() -> None:
    ethernet = Cluster(network_bandwidth=3.0)  # 25 Gb/s
    exposed = {size: exposed_seconds(replace(B0, bucket_size=size), 16, ethernet) for size in (4, 25)}
    assert exposed[4] < exposed[25]
    assert exposed[25] <= sum_seconds(21_200_000, 16, ethernet)


def test_expected_largest() -> None:
    # Known means of the largest of n standard normal numbers.
    for count, mean in ((1, 0.0), (2, 0.5642), (8, 1.4236), (64, 2.3437)):
        assert expected_largest(count) == pytest.approx(mean, abs=0.03)


def test_the_published_measurements() -> None:
    rows = simulate_published(Cluster(), 4.0)
    assert len(rows) == sum(map(len, PUBLISHED.values()))
    for row in rows:
        # B0 in mixed precision on two machines fell behind one machine's rate per machine, which no term has.
        within = 0.15 if (row["name"], row["gpus"]) == ("efficientnet-b0 AMP", 16) else 0.065
        assert row["speedup"] == pytest.approx(row["published"], rel=within), row
    bounds = {(row["name"], row["gpus"]): row["bound"] for row in rows}
    assert bounds["efficientnet-b0 AMP", 16] == "input"
    assert bounds["efficientnet-b4 AMP", 64] == "straggler"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scaling.json"
    given = "--images-per-second 1000 --batch-size 128 --gpus 1 4 --input-rate 2000 --json"
    assert main(["scaling", "--simulate", *given.split(), str(out)]) == 0
    one, four = json.loads(out.read_text())["simulated"]
    assert one["speedup"] == pytest.approx(1)
    assert four["images_per_second"] == pytest.approx(2000)
    assert "input" in capsys.readouterr().out
    assert main(["scaling", "--simulate", "--input-rate", "0"]) == 2
    assert "--input-rate must be above 0" in capsys.readouterr().err


def test_the_cost_of_an_epoch_from_a_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"effnet": {"images_per_second": 900.0}, "effnet compiled": {"images_per_second": 1000.0}}
    run = {"arch": "efficientnet-b0", "batch_size": 128, "price_per_hour": 2.0}
    measured, out = tmp_path / "train.json", tmp_path / "scaling.json"
    measured.write_text(json.dumps({**run, "rows": {**row, "torchvision": {"images_per_second": 2000.0}}}))
    command = ["scaling", "--simulate", "--measured", str(measured), "--json", str(out)]
    assert main([*command, "--gpus", "1", "8", "64"]) == 0
    rows = json.loads(out.read_text())["simulated"]
    assert [row["gpus"] for row in rows] == [1, 8, 64]
    assert rows[0]["images_per_second"] == pytest.approx(1000)
    for row in rows:
        assert row["epoch_cost"] == pytest.approx(2 * row["gpus"] * row["epoch_seconds"] / 3600)
    assert rows[0]["epoch_cost"] < rows[1]["epoch_cost"] < rows[2]["epoch_cost"]  # what is lost is paid for
    shown = capsys.readouterr().out
    assert "cost" in shown
    assert f"{rows[2]['epoch_cost']:.2f}" in shown
    assert main([*command, "--price-per-hour", "4", "--gpus", "1"]) == 0
    (other,) = json.loads(out.read_text())["simulated"]
    assert other["epoch_cost"] == pytest.approx(2 * rows[0]["epoch_cost"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": {}, "arch": "efficientnet-b0"}'])
def test_another_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert main(["scaling", "--simulate", "--measured", str(tmp_path / "x.json")]) == 2
    assert "--measured" in capsys.readouterr().err
