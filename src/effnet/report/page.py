"""A report as one HTML page that needs nothing else: no network, no further files."""

import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effnet.report.charts import DARK, LIGHT, Chart, config, packed, short
from effnet.report.curves import curves
from effnet.report.findings import Findings, Mistake
from effnet.report.html import data_uri, environment, policy, template_text
from effnet.report.recipes import compare
from effnet.report.reliability import reliability_chart
from effnet.report.runs import Run
from effnet.report.summary import facts_table, summarise
from effnet.report.vega import NOTICE, javascript
from effnet.runtime.text import printable, to_json


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        runs: the runs, in the order of their colours.
        findings: by position of a run, what its weights answer.
        output: where the page will lie, from which links to files start; None for no links.
        live: the page asks the server that it comes from for news.
    """

    runs: Sequence[Run]
    findings: Mapping[int, Findings] = field(default_factory=dict)
    output: Path | None = None
    live: bool = False

    def charts(self) -> list[Chart]:
        """Return the charts over epochs."""
        return curves(self.runs)

    def reliability(self, place: int) -> Chart | None:
        """Return the reliability diagram of a run; None without one."""
        if place not in self.findings:
            return None
        name = "reliability" if len(self.runs) == 1 else f"reliability-{place + 1}"
        return reliability_chart(self.findings[place], name)

    def all_charts(self) -> list[Chart]:
        """Return every chart of the page."""
        diagrams = (self.reliability(place) for place in sorted(self.findings))
        return [*self.charts(), *(chart for chart in diagrams if chart is not None)]


def render(report: Report) -> str:
    """Return the page.

    Raises:
        UserError: a package of the extra `report` is not installed.
    """
    sections = [_answers(report, place) for place in sorted(report.findings)]
    template = environment().get_template("report.html")
    scripts = {"vega": javascript(), "page": template_text("report.js")}
    return template.render(
        title=_title(report.runs),
        runs=report.runs,
        summaries=[summarise(run) for run in report.runs],
        charts=report.charts(),
        comparison=compare(report.runs),
        machines=facts_table(report.runs),
        files=[_files(run, report.output) for run in report.runs],
        events=[_events(run) for run in report.runs],
        sections=sections,
        live=report.live,
        style=template_text("report.css"),
        scripts=scripts,
        policy=policy(scripts.values(), asks_server=report.live),
        notice=NOTICE,
        data=_embedded(
            {
                "charts": [_chart(chart) for chart in report.all_charts()],
                "tables": [section["tables"] for section in sections],
                "themes": {LIGHT: config(LIGHT), DARK: config(DARK)},
                "live": report.live,
                "version": version(report.runs),
            }
        ),
    )


def version(runs: Sequence[Run]) -> str:
    """Return a text that changes when a page of the runs would show something else."""
    return " ".join(f"{len(run.epochs)}{'.' if run.is_finished else ''}" for run in runs)


def _title(runs: Sequence[Run]) -> str:
    names = [run.name for run in runs]
    return names[0] if len(names) == 1 else f"{len(names)} runs: {', '.join(names)}"


def _chart(chart: Chart) -> dict[str, Any]:
    return {
        "name": chart.name,
        "title": chart.title,
        "spec": chart.spec,
        "columns": packed(chart.columns),
        "hidden": list(chart.hidden),
    }


def _files(run: Run, output: Path | None) -> list[tuple[str, str, int]]:
    """Return name, address relative to the page (empty for none) and bytes of the files in a run's folder."""
    try:
        files = sorted(
            path for path in run.folder.iterdir() if path.is_file() and not path.name.startswith(".")
        )
        sizes = [path.stat().st_size for path in files]
    except OSError:  # removed meanwhile
        return []
    return [
        (printable(path.name), "" if output is None else _address(path, output), size)
        for path, size in zip(files, sizes, strict=True)
    ]


def _address(path: Path, output: Path) -> str:
    relative = os.path.relpath(path.absolute(), output.absolute().parent)
    quoted = urllib.parse.quote(os.fsencode(relative))
    return quoted if quoted.startswith(".") else f"./{quoted}"  # a name with a colon is no scheme


def _events(run: Run) -> list[str]:
    shown = []
    for event in run.events:
        what = event.get("event", "event")
        rest = ", ".join(
            f"{name} {len(value)}" if isinstance(value, Mapping | list) else f"{name} {value}"
            for name, value in event.items()
            if name != "event"
        )
        shown.append(printable(f"{what}: {rest}" if rest else what)[:300])
    return shown


def _answers(report: Report, place: int) -> dict[str, Any]:
    """Return what the page shows of a run's answers."""
    run, findings = report.runs[place], report.findings[place]
    classes = [printable(name) for name in findings.classes]
    metrics = {
        name: value for name, value in findings.metrics.items() if not name.endswith(("_ips", "_time"))
    }
    return {
        "run": run,
        "place": place,
        "source": printable(findings.source),
        "images": findings.images,
        "metrics": {name: value for name, value in metrics.items() if "latency" not in name},
        "reliability": report.reliability(place),
        "mistakes": [_mistake(mistake, report.output) for mistake in findings.mistakes],
        "tables": {
            "run": run.name,
            "classes": classes,
            "cells": [number for cell in findings.cells for number in cell],
            "metrics": _by_class(findings),
        },
    }


def _by_class(findings: Findings) -> dict[str, list[Any]]:
    """Return the metrics of each class as columns, with the classes' positions as the first one."""
    if not findings.by_class:
        return {}
    places = {name: place for place, name in enumerate(findings.classes)}
    names = list(next(iter(findings.by_class.values())))
    columns: dict[str, list[Any]] = {"class": [places[name] for name in findings.by_class]}
    for name in names:
        values = [short(float(metrics[name])) for metrics in findings.by_class.values()]
        columns[name] = [None if value != value else value for value in values]  # NaN has no JSON
    return columns


def _mistake(mistake: Mistake, output: Path | None) -> dict[str, Any]:
    file = Path(mistake.file) if mistake.file else None
    is_file = file is not None and output is not None and file.is_file()
    return {
        "file": printable(mistake.file),
        "address": _address(file, output) if is_file and file is not None and output is not None else "",
        "label": printable(mistake.label),
        "answers": [(printable(answer.label), answer.probability) for answer in mistake.answers],
        "picture": _picture(mistake.pixels),
        "heat_map": None if mistake.heat_map is None else _picture(mistake.heat_map),
    }


def _picture(pixels: Any) -> str:
    from PIL import Image

    return data_uri(Image.fromarray(pixels))


def _embedded(data: Mapping[str, Any]) -> str:
    """Return data as JSON in which no text can end the script element or begin a tag."""
    text = to_json(data)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
