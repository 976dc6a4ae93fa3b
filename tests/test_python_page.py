"""The examples of docs/python.md run and print what the page says, and the page has every public name."""

import doctest
import re
from pathlib import Path

import pytest

import effnet
from tests.commands import REPOSITORY, blocks

PAGE = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-images").symlink_to(images)
    monkeypatch.chdir(tmp_path)
    examples = "\n".join(blocks(PAGE, "python"))
    test = doctest.DocTestParser().get_doctest(examples, {}, "docs/python.md", None, None)
    assert len(test.examples) > 20
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_every_public_name_is_on_the_page() -> None:
    shown = set(re.findall(r"effnet\.(\w+)", PAGE)) | set(re.findall(r"`(\w+)`", PAGE))
    assert set(effnet.__all__) <= shown
    assert sorted(effnet.__all__) == [name for name in dir(effnet) if name in effnet.__all__]
