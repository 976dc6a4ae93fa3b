"""Helpers for tests of resumed runs: end a run at a step, and compare what two runs have left."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from effnet.recipe import Recipe
from effnet.runtime.signals import Interrupted
from effnet.training.checkpoint import read_checkpoint
from effnet.training.moments import Due, Moments
from effnet.training.run import train

Run = Callable[[Recipe, Path | None], object]

# How a run was started differs, and so does the log by its times.
_OF_THE_RUN = ("recipe", "resolved_recipe", "log", "digest", "digest_algorithm")


def interrupted(recipe: Recipe, path: Path | None, look: int, *, rank: int = 0, run: Run = train) -> str:
    """Run until a process receives SIGTERM, and return the message.

    Args:
        recipe: the run's settings.
        path: its images.
        look: number, from 1, of the look for signals before which it arrives: there is one after each step of the
            optimizer and one after each batch of a validation.
        rank: the process that receives it.
        run: `train` or `quantize`.
    """
    looks = 0

    def counted(moments: Moments, step: int) -> Due:
        nonlocal looks
        looks += 1
        if looks == look and int(os.environ.get("RANK", 0)) == rank:
            signal.raise_signal(signal.SIGTERM)
        return original(moments, step)

    original = Moments.look
    try:
        with mock.patch.object(Moments, "look", counted):
            run(recipe, path)
    except Interrupted as stopped:
        return str(stopped)
    return ""


def assert_same(one: Path, other: Path) -> None:
    """Assert that two workspaces hold the same checkpoint, bit by bit, and the same log apart from times and rates."""
    first, second = (dict(read_checkpoint(path / "checkpoint.pth.tar")) for path in (one, other))
    for content in (first, second):
        content["metrics"] = without_rates(content["metrics"])
        for name in _OF_THE_RUN:
            del content[name]
    assert_equal(first, second)
    assert log_of(one) == log_of(other)


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Assert that two nested values hold the same entries, tensors bit by bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_equal(value, other[key], f"{where}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_equal(mine, theirs, f"{where}/{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def without_rates(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics without times, rates and memory."""
    return {
        name: value
        for name, value in metrics.items()
        if not name.endswith(("_ips", "_time", "peak_memory")) and "latency" not in name
    }


def log_of(workspace: Path) -> list[tuple[Any, ...]]:
    """Return the lines of a log without times, rates, the run's own settings, and events `resumed`."""
    lines = []
    for record in map(json.loads, (workspace / "report.json").read_text().splitlines()):
        data = without_rates(record["data"])
        data.pop("recipe", None)
        if data.get("event") != "resumed":
            lines.append((record["type"], record["epoch"], record["step"], data))
    return lines
