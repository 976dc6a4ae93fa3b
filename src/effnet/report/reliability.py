"""The chart of how often answers of a confidence are right."""

from typing import Any

from effnet.report.charts import Chart, colour, dash, short
from effnet.report.findings import Findings


def reliability_chart(findings: Findings, name: str) -> Chart | None:
    """Return the reliability diagram of a validation; None where there is none.

    Args:
        findings: the validation.
        name: see `Chart`.
    """
    labels = {value: _label(value) for value in findings.reliability}
    cells = [
        (labels[value], low, high, images, confidence, accuracy)
        for value, rows in findings.reliability.items()
        for low, high, images, confidence, accuracy in rows
    ]
    if not cells:
        return None
    names = ("series", "from", "to", "images", "confidence", "accuracy")
    columns = {
        key: [short(cell) for cell in column]
        for key, column in zip(names, zip(*cells, strict=True), strict=True)
    }
    metrics = findings.metrics
    errors = [f"expected calibration error of raw logits {metrics['ece']:.3f}"] if "ece" in metrics else []
    if "calibrated_ece" in metrics and len(labels) > 1:
        errors.append(f"with the temperature {metrics['calibrated_ece']:.3f}")
    bins = "; ".join(
        f"{row[0]}: of answers with confidence {row[4]:.2f}, {row[5]:.2f} are right" for row in cells
    )
    return Chart(
        name,
        "Reliability",
        "Share of right answers among those of a confidence; on the diagonal confidence is what it says. "
        f"{', '.join(errors).capitalize()}.",
        f"Line chart, accuracy over confidence in bins, with the diagonal. {bins}.",
        _spec(list(labels.values())),
        columns,
    )


def _label(temperature: float) -> str:
    return "raw logits" if temperature == 1 else f"temperature {temperature:.3g}"


def _spec(labels: list[str]) -> dict[str, Any]:
    share: dict[str, Any] = {"type": "quantitative", "scale": {"domain": [0, 1]}}
    series: dict[str, Any] = {"field": "series", "type": "nominal", "title": None}
    tooltip = [
        {"field": "series", "type": "nominal", "title": "answers"},
        {"field": "confidence", "type": "quantitative", "format": ".3f"},
        {"field": "accuracy", "type": "quantitative", "format": ".3f"},
        {"field": "images", "type": "quantitative"},
    ]
    encoding: dict[str, Any] = {
        "color": {**series, "scale": colour(labels)},
        "strokeDash": {**series, "scale": dash(labels)},
        "tooltip": tooltip,
    }
    ends = [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]
    return {
        "encoding": {
            "x": {**share, "field": "confidence", "title": "confidence"},
            "y": {**share, "field": "accuracy", "title": "accuracy"},
        },
        "layer": [
            {"data": {"values": ends}, "mark": {"type": "line", "strokeWidth": 1, "color": "#888888"}},
            {
                "mark": {"type": "line", "point": {"size": 60}, "tooltip": True},
                "encoding": encoding,
            },
        ],
    }
