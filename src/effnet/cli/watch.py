"""`effnet watch`."""

import argparse

from effnet.cli.arguments import number, path
from effnet.cli.flags import Commands


def add_watch(commands: Commands, prog: str | None) -> None:
    """Add `effnet watch`."""
    parser = commands.add_parser(
        "watch",
        prog=prog,
        help="follow trainings on a terminal: progress, curves, time left",
        description="Follow trainings by their logs, until all have ended or until Ctrl-C, which ends the view alone. "
        "Without a terminal each epoch gets a line. Exit code: 0, or 1 where a training has stopped before its end.",
    )
    parser.add_argument(
        "runs", type=path, nargs="+", metavar="RUN", help="folder of a run (--workspace), or its log"
    )
    parser.add_argument("--once", action="store_true", help="print the state of now, and end")
    parser.add_argument(
        "--every", type=number(3600, low=0.1), default=2.0, metavar="SECONDS", help="look again [default: 2]"
    )
    parser.set_defaults(command=_watch, needs_pytorch=False)


def _watch(namespace: argparse.Namespace) -> int:
    from effnet.report.watch import follow, show_once

    if namespace.once:
        return show_once(namespace.runs)
    return follow(namespace.runs, seconds=namespace.every)
