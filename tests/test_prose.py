"""The prose check: each rule finds its words in each kind of text, and leaves code and good sentences alone."""

import tomllib
from pathlib import Path

import pytest

from tests.commands import REPOSITORY
from tools.prose import files_to_check, findings, main


def found(folder: Path, text: str, suffix: str = ".py") -> list[tuple[int, str]]:
    """Line and offending words of each finding in a file with `text`."""
    path = folder / f"file{suffix}"
    path.write_text(text, encoding="utf-8")
    return [(line, message.split('"')[1]) for line, message in findings(path)]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("The processes start anew.", "anew"),
        ("It can be mended.", "mended"),
        ("Each of its peers runs.", "peers"),
        ("The contenders take turns.", "contenders"),
        ("The verb is parsed.", "verb"),
        ("A log of one JSON object a line.", "object a line"),
        ("Class names, one a line.", "one a line"),
        ("A table of the\ndocument's.", "the document"),
        ("The reference has it.", "The reference"),
        ("A kernel and its twin.", "twin"),
    ],
)
def test_words_to_avoid_are_found_in_every_kind_of_text(tmp_path: Path, sentence: str, words: str) -> None:
    assert found(tmp_path, f'"""{sentence}"""') == [(1, words)]
    assert found(tmp_path, f"def f():\n    raise ValueError({sentence!r})") == [(2, words)]
    comment = "\n".join(f"# {line}" for line in sentence.splitlines())
    assert found(tmp_path, f"x = 1\n{comment}") == [(2, words)]
    assert found(tmp_path, f"# Title\n\n{sentence}", ".md") == [(3, words)]


@pytest.mark.parametrize("start", ["What", "Whether", "Which", "How"])
def test_docstrings_begin_with_an_imperative_or_a_noun_phrase(tmp_path: Path, start: str) -> None:
    source = 'class C:\n    a: int = 0\n    """{0} it is."""\n\n    def f(self):\n        """{0} it is."""\n'
    assert found(tmp_path, source.format(start)) == [(3, start), (6, start)]
    assert found(tmp_path, f"# {start} it is.") == []
    assert found(tmp_path, f'"""Return it.\n\n{start} it is."""') == []
    assert found(tmp_path, '"""Gives the exit code."""') == [(1, "Gives")]
    assert found(tmp_path, '"""Parse and run; gives the exit code."""') == [(1, "gives")]
    assert found(tmp_path, '"""Return what --json gives."""') == []


def test_comments_of_other_languages(tmp_path: Path) -> None:
    assert found(tmp_path, "verb: anew  # its peer\n", ".yaml") == [(1, "peer")]
    assert found(tmp_path, "int verb = anew;  // its peer\n", ".cpp") == [(1, "peer")]


def test_names_are_checked_word_by_word(tmp_path: Path) -> None:
    assert found(tmp_path, "def add_peer(Verb, verbose, contenderList): ...") == [
        (1, "peer"), (1, "Verb"), (1, "contender")
    ]  # fmt: skip


def test_code_and_good_sentences_are_left_alone(tmp_path: Path) -> None:
    assert (
        found(tmp_path, "Say `the document` with\n```bash\nverb\n```\nand `--no-peers`, --no-peers.", ".md")
        == []
    )
    good = (
        "The documentation and the documents, a verbose amendment, the reference implementation, quantized twins, "
        "the float twin and a one-line file."
    )
    assert found(tmp_path, f'"""{good}"""') == []


def test_the_paths_exist_and_hold_what_they_should() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["prose"]
    for path in [*settings["paths"], *settings["skip"]]:
        assert (REPOSITORY / path).exists(), path
    checked = files_to_check(settings["paths"], settings["skip"])
    assert len(checked) > 300
    assert REPOSITORY / "README.md" in checked
    assert REPOSITORY / "benchmarks/results" not in {path.parent.parent for path in checked}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = REPOSITORY / "tests/test_prose.py"
    assert main([str(file)]) == 0  # skipped, since it holds the words
    assert capsys.readouterr().out == ""
