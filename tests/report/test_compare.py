"""The page of a comparison, in a browser and as text."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from effnet.cli import main
from effnet.weights import WeightsMetadata, create_model, save_weights
from tests.browser import NARROW, WIDE, Browser
from tests.runs import PREPROCESSING

NAMES = ("<img src=y>", "amper&amp;sand \x1b[31m", "quo\"te'")
PHOTO = '"><img src=x onerror=alert(2)>.png'
SHOWN = 6


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two models with classes and images of unpleasant names."""
    folder = tmp_path_factory.mktemp("page")
    torch.manual_seed(0)
    model = create_model("efficientnet-lite0", num_classes=3)
    metadata = WeightsMetadata(
        "efficientnet-lite0",
        {**PREPROCESSING, "image_size": 96, "resize": 100},
        padding="same",
        classes=NAMES,
    )
    for name in ("first", "second"):
        torch.nn.init.normal_(model.get_classifier().weight)
        save_weights(folder / f"{name}.safetensors", model.state_dict(), metadata)
    for number, name in enumerate(NAMES):
        (folder / "val" / name).mkdir(parents=True)
        for index in range(4):
            path = folder / "val" / name / (PHOTO if index == 0 else f"{index}.png")
            Image.new("RGB", (120, 90), (60 * index, 80 * number, 100)).save(path)
    arguments = ["compare", *(str(folder / f"{name}.safetensors") for name in ("first", "second"))]
    arguments += ["--data", str(folder / "val"), "--output", str(folder / "page.html"), "-j", "0"]
    assert main([*arguments, "--shown", str(SHOWN), "--device", "cpu"]) == 0
    return folder / "page.html"


class Elements(HTMLParser):
    """Counts the elements of a page and gathers the addresses in it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_page_needs_no_other_file_and_names_stay_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    elements = Elements()
    elements.feed(text)
    assert elements.tags.count("script") == 1
    assert elements.tags.count("img") == 3 * SHOWN  # a photograph and two heat maps for each
    assert all(address.startswith("data:image/jpeg;base64,") for address in elements.addresses)
    assert "\x1b" not in text
    assert len(text) < 1_000_000


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_in_a_browser(browser: Browser, page: Path, size: tuple[int, int], dark: bool) -> None:
    browser.open(page.as_uri(), size, dark=dark)
    browser.wait("document.readyState === 'complete'")
    assert browser.run("return document.querySelectorAll('.cards > li').length") == SHOWN
    browser.run("document.querySelectorAll('img').forEach(image => { image.loading = 'eager' })")
    browser.wait("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.violations() == []
    assert browser.messages() == []
    assert browser.foreign_requests() == []


def test_classes_can_be_searched_and_sorted(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri())
    first = "document.querySelector('#by-class tbody th').textContent"
    click = "document.querySelector('#by-class thead button').click()"
    browser.run(click)
    names = [browser.run(f"return {first}")]
    browser.run(click)
    names.append(browser.run(f"return {first}"))
    assert set(names) <= {"<img src=y>", "amper&amp;sand \\x1b[31m", "quo\"te'"}
    assert names[0] != names[1]
    browser.run(
        "const field = document.getElementById('search'); field.value = 'QUO'; field.dispatchEvent(new Event('input'))"
    )
    shown = "[...document.querySelectorAll('#by-class tbody tr')].filter(row => !row.hidden).length"
    assert browser.run(f"return {shown}") == 1
