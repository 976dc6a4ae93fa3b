"""The table of commands."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from effnet.cli.benchmark import add_benchmark
from effnet.cli.classify import add_classify
from effnet.cli.compare import add_compare
from effnet.cli.completion import add_completion
from effnet.cli.doctor import add_doctor
from effnet.cli.export import add_export
from effnet.cli.find_lr import add_find_lr
from effnet.cli.flags import Parser, add_quiet_flag
from effnet.cli.init import add_init
from effnet.cli.models import add_models
from effnet.cli.predict import add_predict
from effnet.cli.prepare import add_prepare
from effnet.cli.push import add_push
from effnet.cli.quantize import add_quantize
from effnet.cli.report import add_report
from effnet.cli.serve import add_serve
from effnet.cli.train import add_evaluate, add_train
from effnet.cli.watch import add_watch
from effnet.runtime.errors import UserError
from effnet.runtime.memory import is_out_of_memory
from effnet.runtime.progress import silent, working

Command = Callable[[argparse.Namespace], int]

# Flags that a command's memory grows with, the most effective first.
_MEMORY_FLAGS = ("--batch-size", "--max-batch-size", "--image-size", "--size", "--workers")

COMMANDS = (
    add_init,
    add_train,
    add_evaluate,
    add_find_lr,
    add_quantize,
    add_classify,
    add_predict,
    add_compare,
    add_serve,
    add_export,
    add_push,
    add_report,
    add_prepare,
    add_models,
    add_benchmark,
    add_doctor,
    add_completion,
    add_watch,
)

_GROUPS = {
    "data": ("init", "prepare"),
    "training": ("train", "find-lr", "evaluate", "quantize", "watch", "report"),
    "answers": ("classify", "predict", "serve", "compare"),
    "models": ("models", "export", "push"),
    "this machine": ("doctor", "benchmark", "completion"),
}
"""headings of the help"""


def command_parser(prog: str | None = None) -> Parser:
    """Return the parser of all commands.

    Args:
        prog: program name for a command's help, for scripts that run one command only.
    """
    parser = Parser(
        prog="effnet",
        usage="effnet COMMAND [options]",
        description="Train, quantize and deploy EfficientNet image classifiers.",
        epilog="effnet COMMAND --help lists the options of a command.",
        groups=_GROUPS,
    )
    commands = parser.add_subparsers(prog=parser.prog, metavar="COMMAND", required=True, parser_class=Parser)
    for add in COMMANDS:
        add(commands, prog)
    _add_quiet_flags(parser)
    return parser


def _add_quiet_flags(parser: Parser) -> None:
    """Give `--quiet` to every command that computes and has none of the recipe's."""
    for command in parser.commands().values():
        _add_quiet_flags(command)
    computes = parser.get_default("command") is not None and parser.get_default("needs_pytorch") is not False
    if computes and "--quiet" not in parser._option_string_actions:
        add_quiet_flag(parser)


def run(argv: Sequence[str], prog: str | None = None) -> int:
    """Parse arguments, run the command and return its exit code.

    Args:
        argv: name of the command and its arguments.
        prog: as in `command_parser`.

    Raises:
        UserError: bad input, or too little memory; the flags that take less are named.
    """
    parser = command_parser(prog)
    namespace, unknown = parser.parse_known_args(argv)
    leaf = leaf_parser(parser, argv)
    if unknown:
        leaf.error(f"unrecognized arguments: {' '.join(unknown)}")
    command: Command = namespace.command
    try:
        with silent(_is_quiet(namespace)):
            _load_pytorch(namespace)
            return command(namespace)
    except UserError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    lower = " or ".join(flag for flag in _MEMORY_FLAGS if flag in leaf._option_string_actions)
    raise UserError(f"out of memory; lower {lower}" if lower else "out of memory")


def _is_quiet(namespace: argparse.Namespace) -> bool:
    # Some commands write their --json to a file.
    return bool(getattr(namespace, "quiet", False)) or getattr(namespace, "json", False) is True


def _load_pytorch(namespace: argparse.Namespace) -> None:
    """Say on a terminal that PyTorch is loaded, which takes seconds, where a command needs it."""
    if getattr(namespace, "needs_pytorch", True) and sys.stderr.isatty():
        with working("loading PyTorch"):
            import_module("torch")


def leaf_parser(parser: Parser, argv: Sequence[str]) -> Parser:
    """Return the parser of the command that arguments begin with, such as that of `effnet export onnx`."""
    commands = parser.commands()
    if not argv or argv[0] not in commands:
        return parser
    return leaf_parser(commands[argv[0]], argv[1:])
