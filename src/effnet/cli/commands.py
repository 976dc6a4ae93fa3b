"""The table of commands."""

import argparse
from collections.abc import Callable, Sequence

from effnet.cli.benchmark import add_benchmark
from effnet.cli.classify import add_classify
from effnet.cli.export import add_export
from effnet.cli.flags import Parser
from effnet.cli.models import add_models
from effnet.cli.prepare import add_prepare
from effnet.cli.quantize import add_quantize
from effnet.cli.train import add_evaluate, add_train

Command = Callable[[argparse.Namespace], int]

COMMANDS = (
    add_train,
    add_evaluate,
    add_quantize,
    add_classify,
    add_export,
    add_prepare,
    add_models,
    add_benchmark,
)


def command_parser(prog: str | None = None) -> Parser:
    """Return the parser of all commands.

    Args:
        prog: program name for a command's help, for scripts that run one command only.
    """
    parser = Parser(prog="effnet", description="Train, quantize and deploy EfficientNet image classifiers.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for add in COMMANDS:
        add(commands, prog)
    return parser


def run(argv: Sequence[str], prog: str | None = None) -> int:
    """Parse arguments, run the command and return its exit code.

    Args:
        argv: name of the command and its arguments.
        prog: as in `command_parser`.
    """
    namespace = command_parser(prog).parse_args(argv)
    command: Command = namespace.command
    return command(namespace)
