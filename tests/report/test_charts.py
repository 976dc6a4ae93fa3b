"""Charts hold the values of the log, and their files can be read by others."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from effnet.report.charts import packed
from effnet.report.curves import CURVES, curves
from effnet.report.runs import read_runs
from tests.report.logs import metrics_of, write_log


def test_every_chart_has_the_values_of_the_log(tmp_path: Path) -> None:
    places = [write_log(tmp_path / "one", 7), write_log(tmp_path / "two", 4)]
    charts = {chart.name: chart for chart in curves(read_runs(places))}
    assert charts.keys() >= {curve.name for curve in CURVES} | {"top5"}
    for curve in CURVES:
        found = {(row["run"], row["series"], row["epoch"]): row["value"] for row in charts[curve.name].rows()}
        expected = {
            (name, label, epoch + 1): metrics_of(epoch)[metric] * curve.factor
            for name, epochs in (("one", 7), ("two", 4))
            for metric, label in curve.lines.items()
            if metric in metrics_of(0)
            for epoch in range(epochs)
        }
        assert found == pytest.approx(expected, rel=1e-5)


def test_metrics_that_no_run_has_make_no_chart(tmp_path: Path) -> None:
    log = write_log(tmp_path, 2)
    kept = [line for line in log.read_text().splitlines() if '"epoch", "time"' not in line]
    few = {"train.loss": 2.0, "train.skipped_steps": 0.0, "val.top3": 50.0}
    kept += [
        json.dumps({"type": "epoch", "time": 0, "epoch": epoch, "step": 1, "data": few}) for epoch in (0, 1)
    ]
    log.write_text("\n".join(kept))
    assert [chart.name for chart in curves(read_runs([tmp_path]))] == ["loss", "top3"]


def test_words_for_those_who_do_not_see_the_chart(tmp_path: Path) -> None:
    charts = {chart.name: chart for chart in curves(read_runs([write_log(tmp_path, 30)]))}
    values = [metrics_of(epoch)["val.top1"] for epoch in range(30)]
    words = charts["top1"].alternative
    assert f"validation: {values[0]:.4g} in epoch 1, {values[-1]:.4g} in epoch 30" in words
    assert f"highest {max(values):.4g} in epoch {values.index(max(values)) + 1}" in words


def test_packed_columns_are_small_and_the_same(tmp_path: Path) -> None:
    chart = curves(read_runs([write_log(tmp_path, 400)]))[0]
    found = packed(chart.columns)
    unpacked = {
        name: [each["texts"][place] for place in each["places"]] if isinstance(each, dict) else each
        for name, each in found.items()
    }
    assert unpacked == {name: list(column) for name, column in chart.columns.items()}
    assert len(json.dumps(found)) < 0.5 * len(json.dumps(chart.rows()))


def test_pictures_and_tables(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="extra report")
    from effnet.report.pictures import write_pictures

    runs = read_runs([write_log(tmp_path / "one", 5), write_log(tmp_path / 'two "<&>"', 5)])
    charts = curves(runs)[:2]
    files = write_pictures(charts, tmp_path / "pictures")
    assert [file.name for file in files] == [
        f"{name}.{kind}" for name in ("loss", "top1") for kind in ("png", "svg", "csv")
    ]
    with Image.open(files[0]) as picture:
        picture.load()
        assert picture.width > 1280
    drawing = ElementTree.parse(files[1]).getroot()
    texts = {element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Loss", "epoch", "one", 'two "<&>"'} <= texts
    rows = list(csv.DictReader(io.StringIO(files[2].read_text())))
    assert {row["run"] for row in rows} == {"one", 'two "<&>"'}
    first = next(row for row in rows if row["epoch"] == "1" and row["series"] == "validation")
    assert float(first["value"]) == pytest.approx(metrics_of(0)["val.loss"], rel=1e-5)
