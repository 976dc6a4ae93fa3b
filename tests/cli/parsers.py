"""The parsers of all commands, for tests of every flag."""

import argparse
from collections.abc import Iterator

from effnet.cli.commands import command_parser
from effnet.cli.flags import Parser


def leaves(parser: Parser | None = None, *names: str) -> Iterator[tuple[tuple[str, ...], Parser]]:
    """Yield the words and the parser of every command, such as ``("export", "onnx")``."""
    parser = parser or command_parser()
    commands = parser.commands()
    if not commands:
        yield names, parser
    for name, command in commands.items():
        yield from leaves(command, *names, name)


def arguments_of(parser: Parser) -> list[argparse.Action]:
    """Return the flags and positional arguments of a command but `--help`."""
    return [action for action in parser._actions if action.dest != "help"]
