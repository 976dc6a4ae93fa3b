"""The documentation site: what is made for it from the code, the links of the pages, and the built pages."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import effnet
from effnet.cli.commands import command_parser
from tests.commands import REPOSITORY
from tools import site_pages
from tools.pictures import LARGEST

DOCS = REPOSITORY / "docs"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.glob("*.md"), *(REPOSITORY / "recipes").glob("*.md")])
_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^) ]+)\)")
# Other hosts that pages link to. No test fetches them; `make links` does, where there is a network.
HOSTS = {"arxiv.org", "doi.org", "github.com", "vega.github.io"}


def links(page: Path) -> list[str]:
    return _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_a_page_and_its_heading(page: Path) -> None:
    for link in links(page):
        address = urlsplit(link)
        if address.netloc:
            assert address.scheme == "https"
            assert address.hostname in HOSTS, f"{link}: name its host in HOSTS"
            continue
        target = (page.parent / address.path).resolve() if address.path else page
        assert target.exists(), link
        assert not address.fragment or address.fragment in anchors(target), link


def test_links_are_found() -> None:
    assert {"data.md", "choices.md#engines"} <= {link for page in PAGES for link in links(page)}
    assert any(urlsplit(link).hostname == "arxiv.org" for page in PAGES for link in links(page))


def test_pictures_are_small_shown_and_described() -> None:
    pictures = {path.resolve() for path in (DOCS / "pictures").iterdir()}
    assert len(pictures) >= 5
    assert all(path.stat().st_size < LARGEST for path in pictures)
    shown = set()
    for page in PAGES:
        for text, place in re.findall(r"!\[([^]]*)\]\(([^) ]+)\)", page.read_text(encoding="utf-8")):
            assert len(text.split()) > 5, f"{page.name}: describe {place} for those who can't see it"
            shown.add((page.parent / place).resolve())
    assert shown == pictures


def test_navigation() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    names = site_pages.pages()
    shown = site_pages.with_navigation(index, [*names, "no-link-yet"])
    assert shown.startswith(index)
    trees = re.findall(r"```\{toctree\}\n.*?\n\n(.*?)\n```", shown, re.DOTALL)
    listed = "\n".join(trees).split()
    assert sorted(listed) == sorted({*names, *listed, "no-link-yet"} - {"index"})  # each once
    assert listed[-1] == "no-link-yet"


def test_flags_of_every_command() -> None:
    page = site_pages.flags()
    commands = dict(site_pages.leaves(command_parser()))
    assert len(commands) > 15
    for name, (_, parser) in commands.items():
        assert f"## {name}\n" in page
        for action in parser._actions:
            for flag in action.option_strings:
                assert re.search(rf"`{flag}[` ]", page) or flag in ("-h", "--help"), f"{name} {flag}"
    # A setting of a run stands on the page once, not once for each command that has it.
    assert len(re.findall(r"`--label-smoothing X`", page)) == 1
    assert r"`--class-weights none or auto or FILE`" in page


class Addresses(HTMLParser):
    """Addresses that a browser loads for a page by itself, and those that its links lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.linked: set[str] = set()
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a":
            self.linked.add(found.get("href") or "")
        elif tag == "img" and not found.get("alt"):
            self.unnamed.append(found.get("src") or "")
        for name in ("src", "href", "data", "poster"):
            if tag != "a" and found.get(name):
                self.loaded.add(str(found[name]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="extra docs")
    root = tmp_path_factory.mktemp("site")
    sphinx = [sys.executable, "-m", "sphinx", "-E", "-q", "-W", "--keep-going", "-c", "docs"]
    done = subprocess.run(
        [*sphinx, "-d", root / "doctrees", ".", root / "html"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root / "html"


@pytest.mark.slow
def test_the_site_needs_no_other_host(site: Path) -> None:
    """It is built without a warning, has every page and public name, and loads nothing from elsewhere."""
    built = {page.relative_to(site).with_suffix("").as_posix() for page in site.rglob("*.html")}
    assert {f"docs/{name}" for name in site_pages.pages()} <= built
    for page in site.rglob("*.html"):
        addresses = Addresses()
        addresses.feed(page.read_text(encoding="utf-8"))
        assert not addresses.unnamed, page
        for address in addresses.loaded:
            assert not urlsplit(address).netloc, f"{page}: {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet
    api = (site / "docs/api.html").read_text(encoding="utf-8")
    assert all(f'id="effnet.{name}"' in api for name in effnet.__all__)


def rows_of(section: str) -> list[list[str]]:
    """Cells of the rows of a section's table."""
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def test_what_is_called_how_exists() -> None:
    """Every flag, command and name that "Coming from another library" translates to."""
    page = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    commands = dict(site_pages.leaves(command_parser()))
    known = {flag for _, parser in commands.values() for flag in parser._option_string_actions}
    nvidia, *others = page.split("\n## ")[1:]
    for section, is_ours in ((nvidia, True), *((other, False) for other in others)):
        rows = rows_of(section)
        assert len(rows) > 5
        for there, *_, here in rows:
            same = here.startswith("the same") and not is_ours
            shown = re.findall(r"--[a-z][\w-]*", f"{here} {there if same else ''}")
            assert set(shown) <= known | {"--nproc_per_node"}, here
            for name in re.findall(r"`effnet ([a-z]+)", here):
                assert any(command.split()[1] == name for command in commands), name
            assert set(re.findall(r"effnet\.([a-z_]+)", here)) <= set(effnet.__all__), here


def test_a_page_that_is_named_becomes_a_link() -> None:
    text = "See `docs/data.md`, `docs/no-such.md`, [`docs/data.md`](data.md) and `recipes/README.md`."
    assert site_pages.with_links(text, "docs/scaling") == (
        "See [docs/data.md](data.md), `docs/no-such.md`, [`docs/data.md`](data.md) and "
        "[recipes/README.md](../recipes/README.md)."
    )
    assert site_pages.with_links("`docs/data.md`", "README") == "[docs/data.md](docs/data.md)"
