"""The page as text: nothing in it comes from elsewhere, and no name can do anything in it."""

import base64
import hashlib
import html.parser
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("vl_convert", reason="extra report")

from effnet.report.findings import Answer
from effnet.report.page import Report, render
from effnet.report.runs import Run, read_runs
from tests.report.answers import many_findings
from tests.report.logs import HOSTILE, write_log


class Elements(html.parser.HTMLParser):
    """Elements of a page with their attributes, and the text of each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def test_a_run_of_400_epochs_and_1000_classes_is_below_5_mb(tmp_path: Path) -> None:
    runs = read_runs([write_log(tmp_path, 400)])
    page = render(Report(runs, {0: many_findings()}, tmp_path / "page.html"))
    assert len(page.encode()) < 5_000_000
    data = Elements(page).data
    (table,) = data["tables"]
    assert len(table["classes"]) == 1000
    assert sum(table["cells"][2::3]) == 50_000


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = render(Report(read_runs([write_log(tmp_path)]), output=tmp_path / "page.html"))
    elements = Elements(page)
    assert not elements.all("link")
    assert all("src" not in script for script in elements.all("script"))
    (policy,) = [meta["content"] for meta in elements.all("meta") if meta.get("http-equiv")]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in elements.scripts[1:]
    ]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes


def test_hostile_names_are_text(tmp_path: Path) -> None:
    folder = tmp_path / "</script><img src=x onerror=alert(1)>\x1b\udcff"
    log = write_log(Path(os.fsdecode(os.fsencode(folder))), 2)
    (log.parent / '" onclick="alert(1)').write_text("")
    lines = log.read_text().replace('"a processor"', json.dumps(HOSTILE)).splitlines()
    lines.append(json.dumps({"type": "event", "data": {"event": HOSTILE, HOSTILE: HOSTILE}}))
    log.write_text("\n".join(lines))
    findings = many_findings(30, mistakes=1)
    classes = [f"{HOSTILE}{index}" for index in range(30)]
    mistake = replace(findings.mistakes[0], file=HOSTILE, label=HOSTILE, answers=(Answer(HOSTILE, 1.0),))
    by_class = dict(zip(classes, findings.by_class.values(), strict=True))
    findings = replace(findings, classes=classes, by_class=by_class, mistakes=[mistake])
    page = render(Report(read_runs([log]), {0: findings}, tmp_path / "page.html"))
    elements = Elements(page)
    assert len(elements.scripts) == 3
    assert [
        each for each in elements.all("img") if not str(each["src"]).startswith("data:image/jpeg;base64,")
    ] == []
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert elements.data["tables"][0]["classes"] == classes
    assert "49" not in elements.data["tables"][0]["classes"][0]
    page.encode()  # no surrogates


def test_links_lead_to_the_files(tmp_path: Path) -> None:
    log = write_log(tmp_path / "runs" / "a #1?")
    (log.parent / "100%: x.txt").write_text("x")
    output = tmp_path / "pages" / "page.html"
    elements = Elements(render(Report(read_runs([log]), output=output)))
    links = [
        unquote(str(link["href"])) for link in elements.all("a") if not str(link["href"]).startswith("#")
    ]
    assert {(output.parent / link).resolve() for link in links} == {
        log.resolve(),
        (log.parent / "100%: x.txt").resolve(),
    }


def test_a_run_without_an_epoch_is_shown_while_it_goes_on(tmp_path: Path) -> None:
    runs: list[Run] = read_runs([write_log(tmp_path, 0, finished=False)], may_begin=True)
    assert "No epoch is finished yet." in render(Report(runs, live=True))


def test_a_report_without_images_loads_no_pytorch(tmp_path: Path) -> None:
    write_log(tmp_path, 2)
    script = (
        "import sys; from effnet.cli import main; "
        f"code = main(['report', {str(tmp_path)!r}, '--output', {str(tmp_path / 'page.html')!r}]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert (tmp_path / "page.html").stat().st_size > 100_000
