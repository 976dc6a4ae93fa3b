"""The commands that the documents show exist: each is parsed, its settings and its recipe are checked."""

import argparse
import os
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
import torch.distributed.run

from benchmarks import commands as laboratory
from effnet.cli import commands
from effnet.cli.flags import given_settings
from effnet.recipe import Recipe
from effnet.recipe.catalog import find_recipe
from tests.commands import REPOSITORY, shown_commands

PAGES = [
    path
    for where in ("*.md", "docs/*.md", "recipes/*.md", "benchmarks/*/*/*.md")
    for path in REPOSITORY.glob(where)
]
COMMANDS = [
    pytest.param(command, id=f"{path.relative_to(REPOSITORY)}: {command}")
    for path in sorted(PAGES)
    for command in dict.fromkeys(shown_commands(path.read_text(encoding="utf-8")))
]
LABORATORY = ["python", "-m", "benchmarks"]
# Pages of results keep the commands that they were measured with, of which some are the laboratory's by now.
MOVED = re.compile("effnet benchmark (?=epoch|kernels|roofline|scaling|suite)")
# What a page leaves open, and what stands here for it.
PLACES = {"N": "1", "NAME": "finetune", "COMMAND": "train"}
# Recipes that `effnet init` writes where a reader calls it.
WRITTEN = re.findall(r"effnet init \S+ --out (\S+)", "\n".join(page.read_text("utf-8") for page in PAGES))


def parse(argv: Sequence[str], prog: str | None = None) -> int:
    """Parse the arguments of a command in place of running it."""
    return check(commands.command_parser(prog).parse_args(argv))


def check(namespace: argparse.Namespace) -> int:
    """Resolve the settings and the recipe of parsed arguments."""
    if hasattr(namespace, "recipe"):
        Recipe().replace(given_settings(namespace))
        if namespace.recipe is not None and namespace.recipe not in WRITTEN:
            find_recipe(namespace.recipe)
    return 0


def run_script(script: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with patch.dict(os.environ), pytest.raises(SystemExit) as end:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    return int(end.value.code or 0)


def test_commands_are_found_wherever_they_stand() -> None:
    page = (
        "1. In a list:\n   ```bash\n   effnet one -a\n   ls\n   ```\n\n    effnet two \\\n        -b\n\n"
        "| `effnet three\n-c` | `effnet four` |\n\n```text\neffnet five -d\n```\n"
    )
    assert shown_commands(page) == ["effnet one -a", "effnet two -b", "effnet three -c"]
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(arguments: argparse.Namespace) -> None:
        """Stand-in for `torchrun`'s main function: one process."""
        script = Path(arguments.training_script).name
        code = run_script(script, arguments.training_script_args, monkeypatch)
        assert code == 0, capsys.readouterr().err

    monkeypatch.setattr(commands, "run", parse)
    monkeypatch.setattr(torch.distributed.run, "run", start)
    words = [
        PLACES.get(word, word)
        for word in shlex.split(MOVED.sub("python -m benchmarks ", command), comments=True)
    ]
    if words[:3] == LABORATORY:
        check(laboratory.build_parser().parse_args(words[3:]))
        return
    program, *arguments = words
    if program == "python" and arguments[0].startswith("examples/"):
        assert (REPOSITORY / arguments[0]).is_file()  # tests/test_examples.py runs them
        return
    script = "src/effnet/__main__.py" if program == "effnet" else arguments.pop(0)
    code = run_script(script, arguments, monkeypatch)
    assert code == 0, capsys.readouterr().err
