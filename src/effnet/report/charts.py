"""A chart: a Vega-Lite specification, its rows, and its description in words."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Column = Sequence[float | int | str | None]

LIGHT, DARK = "light", "dark"
# Each colour of a line has a contrast of at least 3 to 1 with the background.
_COLOURS = {
    LIGHT: ["#0b5cad", "#b43c00", "#00735c", "#8a2f8f", "#6b6100", "#4d4d4d", "#a6266e", "#2d6a2d"],
    DARK: ["#6cb6ff", "#ff9d5c", "#4fd1b3", "#e09be3", "#d9cc52", "#c4c4c4", "#ff8fc0", "#8fd68f"],
}
_TEXT = {LIGHT: "#1f2328", DARK: "#e6e6e6"}
_GRID = {LIGHT: "#d8dbe0", DARK: "#3d4350"}
_DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 4], [1, 3]]


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name: letters, digits and hyphens; names its files.
        title: heading.
        text: a sentence for the reader who meets the chart for the first time.
        alternative: the course of its lines in words, for those who do not see it.
        spec: specification in Vega-Lite's language, without data and colours.
        columns: columns of its data by name, all of one length. They are its CSV file as well, but for `hidden`.
        hidden: columns that only the drawing needs.
    """

    name: str
    title: str
    text: str
    alternative: str
    spec: Mapping[str, Any]
    columns: Mapping[str, Column]
    hidden: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return the data as Vega-Lite takes it."""
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]

    def csv(self) -> str:
        """Return the data as CSV."""
        shown = [name for name in self.columns if name not in self.hidden]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(shown)
        writer.writerows(zip(*(self.columns[name] for name in shown), strict=True))
        return file.getvalue()


def packed(columns: Mapping[str, Column]) -> dict[str, Any]:
    """Return columns for a page: texts, of which there are few different ones, as positions in a list of them."""
    result: dict[str, Any] = {}
    for name, column in columns.items():
        if all(isinstance(value, str) for value in column):
            texts = list(dict.fromkeys(column))
            places = {text: place for place, text in enumerate(texts)}
            result[name] = {"texts": texts, "places": [places[value] for value in column]}
        else:
            result[name] = [short(value) for value in column]
    return result


def short(value: Any) -> Any:
    """Return a number with six digits, which no picture shows more of; anything else as it is."""
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def config(theme: str) -> dict[str, Any]:
    """Return Vega-Lite's configuration of colours and fonts for `LIGHT` or `DARK`."""
    text, grid = _TEXT[theme], _GRID[theme]
    return {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "aria": False,  # the page describes each chart as a whole
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "gridColor": grid,
            "domainColor": grid,
            "tickColor": grid,
        },
        "legend": {
            "labelColor": text,
            "titleColor": text,
            "labelFontSize": 12,
            "labelLimit": 260,
            "orient": "bottom",
            "columns": 2,
            "symbolType": "stroke",
            "symbolSize": 300,
            "symbolStrokeWidth": 2,
        },
        "line": {"strokeWidth": 2},
        "point": {"size": 36, "filled": True},
        "rule": {"color": text},
        "rect": {"color": _COLOURS[theme][0]},
        "bar": {"color": _COLOURS[theme][0]},
        "range": {"category": _COLOURS[theme]},
        "view": {"stroke": grid},
    }


def colour(names: Sequence[str]) -> dict[str, Any]:
    """Return the scale that gives each name a colour, those that follow the last colour the first ones again."""
    return {"domain": list(names)}


def dash(names: Sequence[str]) -> dict[str, Any]:
    """Return the scale that gives each name a pattern of dashes."""
    return {"domain": list(names), "range": [_DASHES[place % len(_DASHES)] for place in range(len(names))]}
