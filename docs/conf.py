"""Configuration of the documentation site, which `make docs` builds with Sphinx.

The source folder is the repository, so that a link between two Markdown files leads to the same page there and here.
"""

import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src")]

from tools import site_pages  # noqa: E402

project = "effnet"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "docs/index"
include_patterns = ["docs/*.md", "recipes/README.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
# Folders that are not searched.
exclude_patterns = [
    *(
        ".*",
        "benchmarks",
        "build",
        "cluster",
        "data",
        "dist",
        "efficientnet",
        "runs",
        "src",
        "tests",
        "tools",
    ),
    *("docs/pictures", "docs/templates", "recipes/m*", "recipes/p*"),
]

myst_heading_anchors = 4
highlight_language = "text"
smartquotes = False  # they would make a dash of the two hyphens of a flag
default_role = "literal"  # docstrings have single backticks

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # an attribute that is a property too would be described twice
napoleon_use_rtype = False

html_theme = "furo"
html_title = "effnet"
html_copy_source = False
html_show_copyright = False
templates_path = ["templates"]
# Pages keep their paths, docs/NAME.html; whoever opens the folder is led there.
html_additional_pages = {"index": "start.html"}


def setup(app: Any) -> None:
    """Complete the pages that are made from the code when Sphinx reads them."""
    app.connect("source-read", _complete)


def _complete(app: Any, name: str, source: list[str]) -> None:
    source[0] = site_pages.with_links(source[0], name)
    if name == "docs/index":
        source[0] = site_pages.with_navigation(source[0], site_pages.pages())
    elif name == "docs/flags":
        source[0] += site_pages.flags()
    elif name == "docs/api":
        source[0] += site_pages.api()
