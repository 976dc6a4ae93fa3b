"""The help of every command."""

import argparse

import pytest

from effnet.cli import main
from effnet.cli.commands import command_parser
from effnet.cli.flags import Parser
from tests.cli.parsers import arguments_of, leaves

LEAVES = [pytest.param(parser, id=" ".join(words)) for words, parser in leaves(command_parser())]


def words_of(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("parser", LEAVES)
def test_it_fits_eighty_columns_and_names_everything(parser: Parser) -> None:
    text = parser.format_help()
    lines = text.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert lines[0].startswith(f"usage: {parser.prog}")
    whole = words_of(text)
    for action in arguments_of(parser):
        if action.help is argparse.SUPPRESS:
            continue
        for flag in action.option_strings:
            assert flag in whole
        for choice in action.choices or ():
            assert str(choice) in whole


def test_the_usage_names_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    for words, usage in {
        "predict": "usage: effnet predict --out, -o FILE [SOURCE] [MODEL] [options]",
        "export weights": "usage: effnet export weights --checkpoint-path FILE --weight-path FILE [options]",
        "prepare imagenet": "usage: effnet prepare imagenet (--devkit FILE | --val-classes FILE) TRAIN_TAR VAL_TAR OUT"
        " [options]",
        "classify": "usage: effnet classify [IMAGE ...] [options]",
    }.items():
        with pytest.raises(SystemExit):
            main([*words.split(), "--help"])
        shown = capsys.readouterr().out
        assert words_of(shown).startswith(words_of(usage)), shown.splitlines()[0]


def test_many_values_stand_in_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = words_of(capsys.readouterr().out)
    assert "--data-backend, --data-backends NAME" in shown
    assert "one of pytorch, dali-cpu, dali-gpu, packed, synthetic" in shown


def test_the_commands_stand_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: effnet COMMAND [options]\n")
    for name in command_parser().commands():
        assert f"\n  {name} " in shown
    assert shown.index("data:") < shown.index("  init") < shown.index("training:") < shown.index("  train ")
    assert "further:" not in shown, "add the command to a heading in cli/commands.py"
    assert len(shown.splitlines()) < 45
