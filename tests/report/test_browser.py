"""Pages as a person sees them: in headless Chromium, at a desk and on a phone, by day and by night."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vl_convert", reason="extra report")

from effnet.cli import main
from effnet.report.live import LiveServer
from effnet.report.page import Report, render
from effnet.report.runs import read_runs
from tests.browser import NARROW, WIDE, Browser
from tests.report.answers import many_findings
from tests.report.logs import metrics_of, record, write_log

pytestmark = pytest.mark.slow
READY = 'document.documentElement.dataset.ready === "true"'


@pytest.fixture(scope="module")
def pages(trained: list[Path], images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of one real run with its answers, of three compared, and of one with a thousand classes."""
    folder = tmp_path_factory.mktemp("pages")
    names = {name: folder / f"{name}.html" for name in ("one", "three", "large")}
    flags = ["--device", "cpu", "--data", str(images), "--pictures", str(folder / "pictures")]
    assert main(["report", str(trained[0]), "--output", str(names["one"]), *flags]) == 0
    assert main(["report", *map(str, trained), "--output", str(names["three"])]) == 0
    runs = read_runs([write_log(folder / "run", 400)])
    names["large"].write_text(render(Report(runs, {0: many_findings()}, names["large"])))
    return names


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["desk", "phone"])
@pytest.mark.parametrize("name", ["one", "three", "large"])
def test_a_page(
    name: str, size: tuple[int, int], dark: bool, pages: dict[str, Path], browser: Browser, tmp_path: Path
) -> None:
    browser.open(pages[name].as_uri(), size, dark=dark)
    browser.wait(READY)
    drawn = browser.run(
        """return [...document.querySelectorAll('.chart .drawing')]
            .map(e => e.querySelectorAll('svg path').length)"""
    )
    assert len(drawn) > 5
    assert all(drawn)
    scripted = (
        "return [document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]"
    )
    width, background = browser.run(scripted)
    assert width <= size[0], "the page is wider than the window"
    cut = browser.run(
        """return [...document.querySelectorAll('.chart .drawing svg')].flatMap(svg =>
            [...svg.querySelectorAll('text')].filter(text =>
                text.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1)
            .map(text => text.textContent))"""
    )
    assert cut == [], "words that the edge of a drawing cuts off"
    assert background == ("rgb(21, 24, 29)" if dark else "rgb(255, 255, 255)")
    assert browser.violations() == []
    assert browser.messages() == []
    assert browser.foreign_requests() == []


def test_confusions_are_sorted_and_searched(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["large"].as_uri())
    browser.wait(READY)

    def table() -> list[list[str]]:
        script = """return [...document.querySelectorAll('[data-table=confusions] tbody tr')]
            .map(row => [...row.cells].map(cell => cell.textContent))"""
        found: list[list[str]] = browser.run(script)
        return found

    findings = many_findings()
    wrong = [cell for cell in findings.cells if cell[0] != cell[1]]
    most = max(cell[2] for cell in wrong)
    assert len(table()) == 50
    assert table()[0][2] == str(most)
    browser.run("document.querySelectorAll('[data-table=confusions] thead button')[2].click()")
    assert table()[0][2] == "1"
    search = """const e = document.querySelector('[data-table=confusions] input');
        e.value = arguments[0];
        e.dispatchEvent(new Event('input'))"""
    browser.run(search, "NUMBER 777")
    expected = {(findings.classes[a], findings.classes[b], str(n)) for a, b, n in wrong if 777 in (a, b)}
    assert {tuple(row[:3]) for row in table()} == expected
    browser.run(search, "no such class")
    assert table() == []
    told = "return document.querySelector('[data-table=confusions] [role=status]').textContent"
    assert "0 of 0" in browser.run(told)


def test_the_matrix_is_ordered_and_searched(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["large"].as_uri())
    browser.wait(READY)
    told = "document.querySelector('.matrix [role=status]').textContent"
    assert browser.run(f"return {told}") == "1000 of 1000 classes"
    browser.run(
        """const e = document.querySelector('.matrix input');
        e.value = 'number 500';
        e.dispatchEvent(new Event('input'))"""
    )
    found = {each for a, b, _ in many_findings().cells if 500 in (a, b) for each in (a, b)}
    browser.wait(f"{told} === '{len(found)} of 1000 classes'")
    select = """const e = document.querySelector('.matrix select');
        e.selectedIndex = 2;
        e.dispatchEvent(new Event('change'))"""
    browser.run(select)
    browser.wait("document.querySelector('.matrix canvas') !== null")
    assert browser.messages() == []


def test_colours_can_be_switched_and_settings_filtered(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["three"].as_uri())
    browser.wait(READY)
    colour = "return document.querySelector('.chart svg text').getAttribute('fill')"
    before = browser.run(colour)
    browser.run("document.getElementById('theme').click()")
    browser.wait(READY)
    assert browser.run(colour) != before
    assert browser.run("return document.getElementById('theme').textContent") == "Light colours"
    browser.run("document.getElementById('theme').click(); localStorage.clear()")
    visible = """return [...document.querySelectorAll('#recipe-table tbody tr')]
        .filter(e => e.checkVisibility()).map(e => e.cells[0].textContent)"""
    assert set(browser.run(visible)) >= {"optimizer.lr", "optimizer.use_ema", "optimizer.optimizer"}
    assert "model.arch" not in browser.run(visible)
    browser.run("document.querySelector('[name=settings][value=all]').click()")
    assert "model.arch" in browser.run(visible)


def test_every_chart_can_be_saved(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["one"].as_uri())
    browser.wait(READY)
    browser.run("""window.saved = [];
        HTMLAnchorElement.prototype.click = function () {
            window.saved.push([this.download, this.href.slice(0, 22)]); };
        for (const button of document.querySelectorAll('.chart [data-save]')) button.click();""")
    count = browser.run("return document.querySelectorAll('.chart [data-save]').length")
    browser.wait(f"window.saved.length === {count}")
    saved = dict(browser.run("return window.saved"))
    assert saved["loss.png"] == "data:image/png;base64,"
    assert saved["loss.svg"].startswith("blob:")
    assert saved["loss.csv"].startswith("blob:")
    assert browser.messages() == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[LiveServer, Path]]:
    log = write_log(tmp_path / "run", 2, finished=False)
    with LiveServer([tmp_path / "run"]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server, log
        server.shutdown()
        thread.join()


def test_the_live_page_follows_the_run(served: tuple[LiveServer, Path], browser: Browser) -> None:
    server, log = served
    browser.open(server.address)
    browser.wait(READY)

    def add(*records: dict[str, object]) -> None:
        with log.open("a") as file:
            file.writelines(f"{json.dumps(each)}\n" for each in records)

    add(record("iteration", {"train.loss": 1.25, "train.total_ips": 99.0}, 2, 5))
    browser.wait("document.getElementById('live').textContent.includes('step 5, loss 1.2500, 99 images/s')")
    add(record("epoch", metrics_of(2), 2, 30))
    browser.wait("document.querySelector('#runs tbody').textContent.includes('3 of')")
    browser.wait(READY)
    assert browser.messages() == []
    assert browser.foreign_requests() == []


def test_the_live_server_answers_this_machine_only(served: tuple[LiveServer, Path]) -> None:
    server, log = served

    def status(path: str, host: str | None = None) -> int:
        request = urllib.request.Request(server.address + path, headers={"Host": host} if host else {})
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    assert server.server_address[0] == "127.0.0.1"
    assert status("state") == 200
    assert status("state", "localhost:1") == 200
    assert status("", "attacker.example") == 403
    assert status("../../etc/passwd") == 404
    log.unlink()
    assert status("state") == 503


def test_a_port_that_is_taken(served: tuple[LiveServer, Path], capsys: pytest.CaptureFixture[str]) -> None:
    server, log = served
    assert main(["report", "--live", str(log), "--port", str(server.server_address[1])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--port" in line
    assert "take another" in line
