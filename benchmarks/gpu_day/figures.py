"""Figures of the stages, read from the files that their parts wrote."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Figures = dict[str, float]


def read_figures(stage: str, out: Path) -> Figures:
    """Return the figures of a stage by name, as far as its parts have written their files.

    Args:
        stage: name of a stage.
        out: folder of its files.
    """
    figures: Figures = {}
    for file, read in READERS[stage].items():
        if (out / file).exists():
            figures |= read(out / file)
    return figures | _kernels_beside_others(figures)


def _kernels_beside_others(figures: Figures) -> Figures:
    """Return the ratios of the run with our kernels to the others of the run without, if there are both."""
    ours = [
        rate for name, rate in figures.items() if re.fullmatch("B0, kernels auto, effnet.*images/s", name)
    ]
    return {
        f"B0, kernels auto, effnet's best / {other}": max(ours) / figures[f"B0, {other}, images/s"]
        for other in ("torchvision", "timm compiled")
        if ours and f"B0, {other}, images/s" in figures
    }


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _tests(path: Path) -> Figures:
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    counts = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in _COUNTS}
    failed = counts["failures"] + counts["errors"]
    return {
        "tests passed": counts["tests"] - failed - counts["skipped"],
        "tests failed": failed,
        "tests skipped": counts["skipped"],
    }


_COUNTS = ("tests", "failures", "errors", "skipped")


def _kernels(path: Path) -> Figures:
    rows: Mapping[str, Any] = _json(path)["rows"]
    figures: Figures = {
        "largest error of a kernel": max(max(row["errors"].values()) for row in rows.values())
    }
    for kernel in ("3x3", "5x5"):
        shares = [row["share_of_copy_forward"] for name, row in rows.items() if f" {kernel}/" in name]
        if shares:
            figures[f"{kernel} kernels, share of the copy rate, forward"] = sorted(shares)[len(shares) // 2]
    figures["shapes in which a kernel is faster"] = sum(
        row["part"]["tile"] is not None for row in rows.values()
    )
    figures["shapes"] = len(rows)
    return figures


def _train(name: str) -> Callable[[Path], Figures]:
    def read(path: Path) -> Figures:
        rows: Mapping[str, Any] = _json(path)["rows"]
        figures = {f"{name}, {row}, images/s": values["images_per_second"] for row, values in rows.items()}
        ours = max((r["images_per_second"] for row, r in rows.items() if row.startswith("effnet")), default=0)
        for other in ("torchvision", "timm compiled"):
            if other in rows:
                figures[f"{name}, effnet's best / {other}"] = ours / rows[other]["images_per_second"]
        return figures

    return read


def _inference(name: str) -> Callable[[Path], Figures]:
    def read(path: Path) -> Figures:
        figures: Figures = {}
        for run in _json(path)["runs"]:
            where, rows = f"{name}, batch {run['batch_size']}", run["rows"]
            rates = {row: values["images_per_second"] for row, values in rows.items()}
            ours = {row: rate for row, rate in rates.items() if row.startswith("effnet")}
            figures |= {f"{where}, {row}, images/s": rate for row, rate in rates.items()}
            if ours:
                figures[f"{where}, effnet's best, ms"] = 1000 * run["batch_size"] / max(ours.values())
            if ours and "torchvision" in rates:
                figures[f"{where}, effnet's best / torchvision"] = max(ours.values()) / rates["torchvision"]
        return figures

    return read


def _roofline(name: str) -> Callable[[Path], Figures]:
    def read(path: Path) -> Figures:
        result = _json(path)
        return {
            "copy rate, TB/s": result["ceilings"]["copy"] / 1e12,
            "matrix product, TFLOP/s": result["ceilings"]["matrix"] / 1e12,
            f"{name} training, times its floor": result["training"]["whole"]["gap"],
            f"{name} inference, times its floor": result["inference"]["whole"]["gap"],
        }

    return read


def _profile(path: Path) -> Figures:
    result = _json(path)
    return {
        f"share of the ten most expensive kernels, {kind}": sum(
            k["share"] for k in result[kind]["kernels"][:10]
        )
        for kind in ("training", "inference")
    }


def _epoch(name: str) -> Callable[[Path], Figures]:
    def read(path: Path) -> Figures:
        result = _json(path)
        rates = result["images_per_second"]
        return {
            f"{name}, epoch / step alone": rates["epoch"] / rates["step alone"],
            f"{name}, input alone, images/s": rates["input alone"],
            f"{name}, step alone, images/s": rates["step alone"],
        }

    return read


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # a run that was ended leaves half a line
            return


def _accuracy(path: Path) -> Figures:
    epochs = [record["data"] for record in _records(path) if record["type"] == "epoch"]
    top1 = [epoch[name] for epoch in epochs for name in ("val.ema_top1", "val.top1") if name in epoch]
    rates = [rate for epoch in epochs[1:] if (rate := epoch.get("train.compute_ips")) is not None]
    figures: Figures = {"CIFAR-10, epochs": len(epochs)}
    if top1:
        figures["CIFAR-10, best top-1, %"] = max(top1)
    if rates:
        figures["CIFAR-10, images/s"] = sorted(rates)[len(rates) // 2]
    return figures


_MEASURED = re.compile(r"kernels: measured .* in ([0-9.]+) s")


def _first_start(path: Path) -> Figures:
    found = _MEASURED.findall(path.read_text(errors="replace"))
    return {"choice of kernels at the first start, s": float(found[0])} if found else {}


READERS: dict[str, dict[str, Callable[[Path], Figures]]] = {
    "a-tests": {"tests.xml": _tests},
    "b-kernels": {"kernels-b0.json": _kernels, "first-start.log": _first_start},
    "c-train-b0": {"train-b0.json": _train("B0"), "train-b0-kernels.json": _train("B0, kernels auto")},
    "c-train-b4": {"train-b4-eager.json": _train("B4, eager"), "train-b4.json": _train("B4")},
    "c-inference": {"inference-b0.json": _inference("B0"), "inference-b4.json": _inference("B4")},
    "d-roofline": {
        "profile.json": _profile,
        "roofline-eager.json": _roofline("eager"),
        "roofline.json": _roofline("compiled"),
    },
    "e-input": {"epoch-cifar10.json": _epoch("packed"), "epoch-jpeg.json": _epoch("JPEG")},
    "f-cifar10": {"cifar10/report.json": _accuracy},
}
"""stage to the files of its parts, with the function that reads figures from each"""
