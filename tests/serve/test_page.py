"""The server's page in a browser: photographs are dropped on it."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NARROW, WIDE, Browser
from tests.runs import CLASSES
from tests.serve.serving import TOKEN, Running, photographs

PHOTOGRAPHS = photographs(3)

DROP = """
const data = new DataTransfer();
for (const [name, content] of arguments[0]) {
  const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], name, {type: "image/jpeg"}));
}
document.getElementById("drop").dispatchEvent(
  new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
"""
CARDS = """return [...document.querySelectorAll("#answers article")].map(card => ({
  name: card.querySelector("h2").textContent,
  facts: card.querySelector(".facts").textContent,
  bad: [...card.querySelectorAll(".bad")].map(each => each.textContent),
  rows: [...card.querySelectorAll(".row")].map(row => [...row.children].map(each => each.textContent)),
}))"""


def drop(browser: Browser, files: list[tuple[str, bytes]]) -> None:
    browser.run(DROP, [[name, base64.b64encode(data).decode()] for name, data in files])
    browser.wait("document.getElementById('state').textContent === 'done'")


@pytest.fixture
def page(browser: Browser, server: Running) -> Browser:
    """The page with the token typed in."""
    browser.open(server.address + "/", WIDE)
    browser.wait("!document.getElementById('secret').hidden")
    browser.messages()  # the browser's own about status 401
    script = "const t = document.getElementById('token'); t.value = arguments[0]; t.dispatchEvent(new Event('change'))"
    browser.run(script, TOKEN)
    browser.wait("!document.getElementById('choice').hidden")
    return browser


def test_photographs_are_answered(page: Browser, server: Running) -> None:
    drop(page, [(f"<b>{index}</b>.jpg", photo) for index, photo in enumerate(PHOTOGRAPHS)])
    cards: list[dict[str, Any]] = page.run(CARDS)
    assert {card["name"] for card in cards} == {"<b>0</b>.jpg", "<b>1</b>.jpg", "<b>2</b>.jpg"}
    for card in cards:
        index = int(card["name"][3])
        (expected,) = server.classify([PHOTOGRAPHS[index]]).json["images"]
        shown = [[each["name"], f"{100 * each['probability']:.1f} %"] for each in expected["predictions"]]
        assert card["rows"] == shown
        assert bool(card["bad"]) == expected["unknown"]
        assert card["facts"].startswith("one on torch, ")
        assert card["facts"].endswith(" ms")
    assert page.messages() == []
    assert page.foreign_requests() == []


def test_the_other_model_and_a_broken_file(page: Browser) -> None:
    page.run("document.getElementById('model').value = 'many'")
    drop(page, [("broken.jpg", b"nothing"), ("good.jpg", PHOTOGRAPHS[0])])
    cards = {card["name"]: card for card in page.run(CARDS)}
    assert "can't be decoded" in cards["broken.jpg"]["bad"][0]
    assert cards["good.jpg"]["facts"].startswith("many on torch")
    assert {row[0] for row in cards["good.jpg"]["rows"]} <= set(CLASSES)


def test_a_heat_map_takes_the_photograph_s_place(page: Browser) -> None:
    drop(page, [("photo.jpg", PHOTOGRAPHS[1])])
    find = "document.querySelector('#answers article')"
    photograph = page.run(f"return {find}.querySelector('img').src")
    page.run(f"{find}.querySelector('button').click()")
    page.wait(f"{find}.querySelector('img').src !== '{photograph}'")
    page.wait(f"{find}.querySelector('img').naturalWidth > 0")
    assert page.run(f"return {find}.querySelector('img').alt") == "heat map over photo.jpg"
    page.run(f"{find}.querySelector('button').click()")
    assert page.run(f"return {find}.querySelector('img').src") == photograph
    assert page.messages() == []


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everybody_can_use_it(
    browser: Browser, server: Running, size: tuple[int, int], dark: bool, tmp_path: Path
) -> None:
    browser.open(server.address + "/", size, dark=dark)
    browser.wait("!document.getElementById('secret').hidden")
    browser.run("document.getElementById('token').value = arguments[0]; showModels()", TOKEN)
    browser.wait("!document.getElementById('choice').hidden")
    drop(browser, [("photograph.jpg", PHOTOGRAPHS[2]), ("broken.jpg", b"nothing")])
    assert browser.violations() == []
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    browser.screenshot(tmp_path / "page.png")
