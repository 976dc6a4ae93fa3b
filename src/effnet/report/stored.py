"""Answers that an evaluation has left in a run's folder as CSV files, for a report without the images."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from effnet.report.findings import Bin, Findings

CONFUSION, PER_CLASS, RELIABILITY = "confusion.csv", "per_class.csv", "reliability.csv"
"""names under which the files of `effnet evaluate --confusion`, `--per-class` and `--reliability` are looked for"""
_LARGEST = 1 << 30
_LOG = logging.getLogger("effnet")


def stored(folder: Path) -> Findings | None:
    """Return what the files in a run's folder tell; None without any. One of another kind is named in the log."""
    found = Findings("", ())
    sources = []
    for name, read in ((CONFUSION, _confusion), (PER_CLASS, _per_class), (RELIABILITY, _reliability)):
        path = folder / name
        if not path.is_file() or path.stat().st_size > _LARGEST:
            continue
        try:
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                found = read(found, list(csv.reader(file)))
            sources.append(name)
        except (OSError, ValueError, IndexError, csv.Error):
            _LOG.warning("%s: is not as `effnet evaluate` writes it, and is left out", path)
    return replace(found, source=", ".join(sources)) if sources else None


def _confusion(found: Findings, rows: Sequence[Sequence[str]]) -> Findings:
    classes, columns = [row[0] for row in rows[1:]], rows[0][1:]
    if list(columns[: len(classes)]) != classes:
        raise ValueError("the columns are not the classes")
    cells = [
        (true, chosen, count)
        for true, row in enumerate(rows[1:])
        for chosen, text in enumerate(row[1 : len(classes) + 1])
        if (count := int(text)) > 0
    ]
    return replace(found, classes=classes, cells=cells)


def _per_class(found: Findings, rows: Sequence[Sequence[str]]) -> Findings:
    head = rows[0]
    if head[:2] != ["class", "images"]:
        raise ValueError("no table of classes")
    kept = [
        (place, name)
        for place, name in enumerate(head)
        if place and name not in ("right", "top1", "mostly_mistaken_for")
    ]
    by_class = {row[0]: {name: float(row[place] or "nan") for place, name in kept} for row in rows[1:]}
    classes = found.classes or list(by_class)
    if not by_class.keys() <= set(classes):
        raise ValueError("other classes than the confusion matrix")
    return replace(found, classes=classes, by_class=by_class)


def _reliability(found: Findings, rows: Sequence[Sequence[str]]) -> Findings:
    if list(rows[0]) != ["temperature", "from", "to", "images", "confidence", "accuracy"]:
        raise ValueError("no table of confidence")
    bins: dict[float, list[Bin]] = {}
    for temperature, low, high, images, confidence, accuracy in rows[1:]:
        row = (float(low), float(high), int(images), float(confidence), float(accuracy))
        bins.setdefault(float(temperature), []).append(row)
    return replace(found, reliability=bins)
