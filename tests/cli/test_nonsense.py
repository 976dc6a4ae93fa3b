"""Nonsense on the command line, made from the parsers' own arguments: one line, exit code 2, nothing on disk changed.

Of every argument of every command its kind decides what is nonsense. The rest of a command line is well-formed, but
its files do not exist, so that a value that gets through ends there: the line must name the argument, not the file.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from effnet.cli import main
from effnet.cli.arguments import ArgumentType
from effnet.cli.flags import Parser
from tests.cli.parsers import arguments_of, leaves

LINES = int(os.environ.get("EFFNET_NONSENSE", "300"))
SEED = int(os.environ.get("EFFNET_NONSENSE_SEED", "0"))

_HUGE = "9" * 25
_NOT_FINITE = ["nan", "inf", "-inf", "Infinity", "1e400", "-1e400", "NaN"]
_NO_DECIMAL = [
    "",
    " ",
    "ten",
    "0x10",
    "1_000",
    " 5",
    "5 ",
    "\u0661",
    "1,5",
    "5\n",
    "--",
    "1e",
    "\u221e",
    "[1]",
    "5\0",
]
NONSENSE = {
    "integer": [*_NOT_FINITE, *_NO_DECIMAL, "1e3", "2.5", "-9", f"-{_HUGE}", _HUGE, "9" * 5000, str(2**64)],
    "number": [*_NOT_FINITE, *_NO_DECIMAL, "0x1p3", "1j", "-7", "1e300", "9" * 400, "9" * 5000],
    "path": ["", "a\0b", "x" * 300, "x/" * 3000, "y" * 5000],
    "choice": ["", "no-such", "\u00e9", "fp33", "a\nb", "\x1b[31m", "x" * 5000, "\udcff", "auto,none"],
}


def kind_of(action: argparse.Action) -> str | None:
    """Return the kind of an argument's value, a key of `NONSENSE`; None for a switch."""
    if isinstance(action.type, ArgumentType):
        return action.type.kind
    return None if action.nargs == 0 else "choice"


def nonsense_for(action: argparse.Action, chance: random.Random) -> list[str]:
    """Return words that give an argument a value of nonsense."""
    flags, kind = action.option_strings, kind_of(action)
    flag = chance.choice(flags) if flags else ""
    if kind is None:
        return [f"{flag}{'=' if flag.startswith('--') else ''}5", f"{flag}-x"][: 1 + chance.randrange(2)][-1:]
    value = chance.choice(NONSENSE[kind])
    if not flags:
        return [value]
    if flag.startswith("--") and not isinstance(action.nargs, int):
        return [f"{flag}={value}"]
    return [flag, *(["1"] * (action.nargs - 1) if isinstance(action.nargs, int) else []), value]


def needed_beside(action: argparse.Action, parser: Parser) -> list[argparse.Action]:
    """Return the arguments that a command needs beside one, and the folder or image at which it would end."""
    groups = [group._group_actions for group in parser._mutually_exclusive_groups if group.required]
    chosen = [actions[0] for actions in groups if action not in actions]
    return [
        other
        for other in arguments_of(parser)
        if other is not action
        and (other.required or other in chosen or (not other.option_strings and other.metavar != "MODEL"))
    ]


def command_lines(count: int, seed: int) -> Iterator[tuple[list[str], argparse.Action]]:
    """Yield command lines with one argument of nonsense, and that argument; all arguments take turns."""
    chance = random.Random(seed)
    every = [(words, parser, action) for words, parser in leaves() for action in arguments_of(parser)]
    for number in range(count):
        if number % len(every) == 0:
            chance.shuffle(every)
        words, parser, action = every[number % len(every)]
        bad = nonsense_for(action, chance)
        good = [
            word
            for other in needed_beside(action, parser)
            for word in [*other.option_strings[:1], "no-such-file"]
        ]
        if action.option_strings:
            bad_first = chance.random() < 0.5 and action.nargs != "+"
            rest = [*bad, *good] if bad_first else [*good, *bad]
        else:
            at = [other for other in arguments_of(parser) if not other.option_strings].index(action)
            rest = [*good[:at], *bad, *good[at:]]
        yield [*words, *rest], action


def names_of(action: argparse.Action) -> set[str]:
    """Return what a message may call an argument."""
    return {*action.option_strings, str(action.metavar), action.dest, "unknown argument"}


@contextmanager
def time_limit(line: list[str], seconds: int = 20) -> Iterator[None]:
    """Fail where a value has been accepted and the command works."""

    def stop(*_: object) -> NoReturn:
        raise TimeoutError(f"still running: {line}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def state_of(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def test_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").write_text("as it is")
    before = state_of(tmp_path)
    wrong = []
    for line, action in command_lines(LINES, SEED):
        with time_limit(line):
            code = main(line)
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        fine = code == 2 and len(lines) == 1 and not captured.out
        if not (fine and any(name in lines[0] for name in names_of(action))):
            wrong.append(f"{line}: {code}, {captured}")
    assert not wrong, "\n".join(wrong)
    assert state_of(tmp_path) == before


def test_nonsense_in_processes(tmp_path: Path) -> None:
    """The same in processes of their own, whose arguments are bytes."""
    lines = [(line, action) for line, action in command_lines(400, seed=1) if "\0" not in "".join(line)]
    for line, action in random.Random(2).sample(lines, 8):
        ended = subprocess.run(
            [sys.executable, "-m", "effnet", *line],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=60,
        )
        error = ended.stderr.decode()
        assert (ended.returncode, len(error.splitlines()), ended.stdout) == (2, 1, b""), (line, error)
        assert any(name in error for name in names_of(action)), (line, error)
    assert list(tmp_path.iterdir()) == []
