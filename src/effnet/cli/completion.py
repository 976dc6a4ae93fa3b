"""`effnet completion`: scripts that complete commands, flags and values in a shell. The one module that imports shtab.

A script is made once, so that completing starts no Python; argcomplete would start this program at each Tab.
"""

import argparse
from collections.abc import Iterator
from typing import Any

from effnet.cli.arguments import path
from effnet.cli.flags import Commands, Parser
from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

SHELLS = ("bash", "zsh", "fish", "tcsh")


def add_completion(commands: Commands, prog: str | None) -> None:
    """Add `effnet completion`."""
    parser = commands.add_parser(
        "completion",
        prog=prog,
        help="print a script that completes commands in a shell",
        description="Print a script that completes commands, flags, values and files. For bash, add to ~/.bashrc: "
        'eval "$(effnet completion bash)"; docs/doctor.md has the other shells.',
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(command=_completion, needs_pytorch=False)


def _completion(namespace: argparse.Namespace) -> int:
    from effnet.cli.commands import command_parser

    try:
        import shtab
    except ImportError:
        raise UserError(f"the scripts are made by shtab: {install_command('completion')}") from None
    parser = command_parser()
    for leaf in _leaves(parser):
        for action in leaf._actions:
            _complete(action, shtab)
    print(shtab.complete(parser, shell=namespace.shell))
    return 0


def _leaves(parser: Parser) -> Iterator[Parser]:
    commands = parser.commands()
    if not commands:
        yield parser
    for command in commands.values():
        yield from _leaves(command)


def _complete(action: argparse.Action, shtab: Any) -> None:
    """Say what completes an argument that has no list of values."""
    from effnet.models.registry import list_models

    metavar = str(action.metavar)
    if action.choices is not None or action.type is not path:
        return
    if metavar == "MODEL" and action.option_strings:
        action.choices = list_models()
    elif "DIR" in metavar or metavar == "RUN":
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif any(word in metavar for word in ("FILE", "IMAGE", "SOURCE", "OUT", "TAR", "MODEL", "FOLDER")):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
