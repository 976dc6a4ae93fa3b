"""The figures of a run, from its log."""

from pathlib import Path

from effnet.runtime.log import read_records


def history_of(log: Path) -> list[dict[str, float]]:
    """Return the metrics of every epoch that a log records."""
    return [record["data"] for record in read_records(log, "epoch")]


def metrics_of(log: Path) -> dict[str, float]:
    """Return the metrics of the last epoch, and the summary of the run, such as `best_top1` (percent)."""
    summaries = [record["data"] for record in read_records(log, "summary")]
    of_run = [data for data in summaries if "best_top1" in data] or summaries
    return {**(history_of(log) or [{}])[-1], **(of_run or [{}])[-1]}
