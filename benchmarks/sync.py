"""Synchronisation of many processes on this machine's cores, beside what the model of `benchmarks.scaling` predicts.

The smallest number of processes is measured and gives the model its rates; the others are predicted from them and
measured. All share the cores and their memory, so that n processes have n times the work of one, and each a share of
the rate at which the machine sums.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.scaling import Cluster, buckets, expected_largest, layers, sum_seconds
from effnet.benchmark.environment import environment
from effnet.benchmark.tables import markdown
from effnet.runtime.errors import UserError

Seconds = dict[str, list[float]]
_LOOKS = 0.1  # seconds
_MOST_SECONDS = 1800.0


@dataclass(frozen=True)
class Plan:
    """Settings of the benchmark.

    Attributes:
        processes: numbers of processes, at least 2 each, in rising order.
        arch, image_size, batch_size: of the training step of each process.
        bucket_size: megabytes of gradients in one all-reduce.
        rounds: rounds, of which the median is taken.
    """

    processes: Sequence[int] = (2, 4, 8, 16)
    arch: str = "efficientnet-b0"
    image_size: int = 32
    batch_size: int = 8
    bucket_size: float = 4.0
    rounds: int = 15


def benchmark_sync(plan: Plan) -> dict[str, Any]:
    """Measure and predict.

    Returns:
        Plain values for JSON: a row for each number of processes with `measured` and `predicted` milliseconds.

    Raises:
        UserError: a process failed.
    """
    measured = {count: _measured(_run(plan, count)) for count in plan.processes}
    base = plan.processes[0]
    sizes = [size for size, _ in buckets(layers(plan.arch), plan.bucket_size)]
    rows = [
        {
            "processes": count,
            "measured": _milliseconds(measured[count]),
            "predicted": _milliseconds(predict(measured[base], base, count, sizes)),
        }
        for count in plan.processes
    ]
    return {"benchmark": "sync", **asdict(plan), "rows": rows, "environment": environment()}


def predict(measured: dict[str, float], base: int, count: int, sizes: Sequence[int]) -> dict[str, float]:
    """Return the seconds of `count` processes from those of `base` on the same cores.

    Args:
        measured: of `base` processes, as `_measured` returns it.
        base, count: numbers of processes.
        sizes: bytes of each bucket of gradients.

    Returns:
        `compute` of one step, the `wait` for the slowest, the `sum` of the gradients and the whole `step`, in which
        nothing overlaps: sums take the same cores as the backward pass.
    """
    latency = measured["number"] / (2 * math.ceil(math.log2(base)))
    rounds = len(sizes) * measured["number"]
    rate = 2 * (base - 1) * sum(sizes) / max(measured["sum"] - rounds, 1e-9)  # bytes of the whole machine
    cluster = Cluster(gpus_per_node=count, link_bandwidth=rate / count / 1e9, latency=latency * 1e6)
    summing = sum(sum_seconds(size, count, cluster) for size in sizes)
    compute = measured["compute"] * count / base
    wait = compute * measured["jitter"] * expected_largest(count)
    return {"compute": compute, "wait": wait, "sum": summing, "step": compute + wait + summing}


def _measured(processes: list[Seconds]) -> dict[str, float]:
    """Return medians over rounds, in seconds, and the jitter: the deviation of a process's time from their mean."""

    def rounds(name: str) -> list[tuple[float, ...]]:
        return list(zip(*(of[name] for of in processes), strict=True))

    alone = rounds("alone")
    means = [statistics.fmean(times) for times in alone]
    return {
        "compute": statistics.median(means),
        "wait": statistics.median(max(times) - mean for times, mean in zip(alone, means, strict=True)),
        "jitter": statistics.median(statistics.stdev(times) / statistics.fmean(times) for times in alone),
        "sum": statistics.median(max(times) for times in rounds("sums")),
        "number": statistics.median(max(times) for times in rounds("number")),
        "step": statistics.median(max(times) for times in rounds("together")),
    }


def _milliseconds(seconds: dict[str, float]) -> dict[str, float]:
    return {name: 1000 * seconds[name] for name in ("compute", "wait", "sum", "step")}


def _run(plan: Plan, count: int) -> list[Seconds]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outs = [folder / f"{rank}.json" for rank in range(count)]
        command = [sys.executable, "-m", "benchmarks.sync_process", str(folder / "store")]
        settings = json.dumps(asdict(plan))
        processes = [
            subprocess.Popen(
                [*command, str(rank), str(count), settings, str(out)], stderr=subprocess.PIPE, text=True
            )
            for rank, out in enumerate(outs)
        ]
        try:
            _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return [json.loads(out.read_text()) for out in outs]


def _wait(processes: list[subprocess.Popen[str]]) -> None:
    """Wait until all have ended; one that fails ends the wait, since the others would wait for it."""
    end = time.monotonic() + _MOST_SECONDS
    codes: list[int | None] = [None]
    while None in codes and not any(codes) and time.monotonic() < end:
        time.sleep(_LOOKS)
        codes = [process.poll() for process in processes]
    for process, code in zip(processes, codes, strict=True):
        if code:
            assert process.stderr is not None
            said = process.stderr.read().strip().splitlines()
            raise UserError(f"a process failed: {' '.join(said[-1:])}")
    if None in codes:
        raise UserError(f"the processes have not ended after {_MOST_SECONDS:g} seconds")


def report(result: dict[str, Any]) -> str:
    """Return the result as Markdown: milliseconds, measured and predicted."""
    names = ("compute", "wait", "sum", "step")
    rows = [
        [
            str(row["processes"]),
            *(f"{row['measured'][name]:.1f} / {row['predicted'][name]:.1f}" for name in names),
        ]
        for row in result["rows"]
    ]
    return markdown(("processes", *(f"{name}, ms" for name in names)), rows)
