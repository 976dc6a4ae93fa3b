"""Power from counters of files, images for a joule, and the cost of an epoch."""

import json
import time
from pathlib import Path

import pytest
import torch

from effnet.benchmark import measure
from effnet.benchmark.cost import cost_facts
from effnet.benchmark.power import PowerMeter
from effnet.cli import main

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of `time.perf_counter`, in its last element."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[-1])
    return now


def counter(folder: Path, name: str, microjoules: int, largest: int = 10**9) -> Path:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder / name / "energy_uj"


def test_the_packages_are_added_and_their_parts_are_not(tmp_path: Path, clock: list[float]) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        counter(tmp_path, name, 1_000_000)
    meter = PowerMeter(CPU, tmp_path)
    meter.start()
    clock.append(102.0)
    counter(tmp_path, "intel-rapl:0", 61_000_000)
    counter(tmp_path, "intel-rapl:1", 41_000_000)
    counter(tmp_path, "intel-rapl:0:0", 31_000_000)
    meter.stop()
    assert meter.watts == pytest.approx((60 + 40) / 2)


def test_a_counter_that_begins_again(tmp_path: Path, clock: list[float]) -> None:
    counter(tmp_path, "intel-rapl:0", 900_000_000)
    meter = PowerMeter(CPU, tmp_path)
    meter.start()
    clock.append(104.0)
    counter(tmp_path, "intel-rapl:0", 100_000_000)
    meter.stop()
    assert meter.watts == pytest.approx(200 / 4)
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").unlink()
    meter.start()
    clock.append(105.0)
    counter(tmp_path, "intel-rapl:0", 50_000_000).with_name("max_energy_range_uj").unlink()
    meter.stop()
    assert meter.watts is None


@pytest.mark.parametrize("content", [None, "", "many"])
def test_without_counters_the_power_is_not_known(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        counter(tmp_path, "intel-rapl:0", 0).write_text(content)
    meter = PowerMeter(CPU, tmp_path)
    meter.start()
    meter.stop()
    assert meter.watts is None


def test_figures_by_hand() -> None:
    # 1,281,167 images at 355.88 a second take an hour.
    facts = cost_facts(355.88, 71.176, 2.5)
    assert facts == pytest.approx({"epoch_hours": 1, "images_per_joule": 5, "epoch_cost": 2.5}, rel=1e-4)
    assert cost_facts(355.88, None, None).keys() == {"epoch_hours"}


def test_the_table_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Meter(PowerMeter):
        """Always 50 W."""

        def stop(self) -> None:
            self.watts = 50.0

    monkeypatch.setattr(measure, "PowerMeter", Meter)
    file = tmp_path / "train.json"
    flags = (
        "--arch efficientnet-widese-b0 --image-size 32 -b 2 --rounds 1 --steps 1 --device cpu --eager-only"
    )
    command = ["benchmark", "train", *flags.split(), "--no-baselines", "--json", str(file)]
    assert main([*command, "--price-per-hour", "3"]) == 0
    result = json.loads(file.read_text())
    row, rate = result["rows"]["effnet"], result["rows"]["effnet"]["images_per_second"]
    assert result["price_per_hour"] == 3
    assert row["images_per_joule"] == pytest.approx(rate / 50)
    assert row["epoch_cost"] == pytest.approx(3 * 1_281_167 / rate / 3600)
    shown = capsys.readouterr().out
    assert all(heading in shown for heading in ("images/J", "hours", "cost"))
    assert f"{row['epoch_cost']:.2f}" in shown
