"""Metrics of a pass over the data, and of a run from those of its epochs."""

from collections.abc import Iterator

import pytest
import torch

from effnet.data import Batch
from effnet.training import rates as module
from effnet.training.rates import Rates, over_epochs


def test_latencies_of_known_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each look at the clock is its next value: the start, and around each wait and each computation.
    steps = [1.0, 5.0, 2.0]
    ticks = [0.0]
    for seconds in steps:
        ticks += [ticks[-1], ticks[-1] + 0.5, ticks[-1] + 0.5, ticks[-1] + 0.5 + seconds]
    clock = iter([*ticks, *[ticks[-1]] * 3])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    batches: Iterator[Batch] = iter(
        [Batch(torch.zeros(4, 3, 1, 1), torch.zeros(4), torch.zeros(4)) for _ in steps]
    )
    rates = Rates(torch.device("cpu"), world_size=2)
    for _ in rates.over(batches):
        with rates.compute():
            pass
    measured = rates.summary()
    assert measured["compute_latency"] == pytest.approx(8 / 3)
    assert measured["compute_latency_at95"] == pytest.approx(2 + 0.9 * 3)
    assert measured["compute_latency_at100"] == 5.0
    assert measured["data_time"] == 0.5
    assert measured["compute_ips"] == pytest.approx(24 / 8)
    assert measured["total_ips"] == pytest.approx(24 / 9.5)


def test_a_run_s_metrics() -> None:
    first = {"train.loss": 3.0, "val.top1": 60.0, "train.total_ips": 100.0, "train.data_time": 0.1}
    second = {"train.loss": 2.0, "val.top1": 50.0, "train.total_ips": 300.0, "train.data_time": 0.3}
    first |= {"val.compute_latency": 1.0, "val.compute_latency_at99": 2.0, "val.compute_latency_at100": 9.0}
    second |= {"val.compute_latency": 2.0, "val.compute_latency_at99": 3.0, "val.compute_latency_at100": 4.0}
    assert over_epochs([first, second]) == pytest.approx(
        {
            "train.loss": 2.0,
            "val.top1": 50.0,
            # 600 images an epoch take 6 s and then 2 s.
            "train.total_ips": 1200 / 8,
            "train.data_time": 0.2,
            "val.compute_latency": 1.5,
            "val.compute_latency_at99": 2.5,
            "val.compute_latency_at100": 9.0,
        }
    )
    assert over_epochs([]) == {}
