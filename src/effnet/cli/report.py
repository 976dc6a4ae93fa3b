"""`effnet report`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import integer, path
from effnet.cli.flags import Commands
from effnet.cli.messages import say, shown_log
from effnet.runtime.errors import UserError

_MOST_MISTAKES = 500


def add_report(commands: Commands, prog: str | None) -> None:
    """Add `effnet report`."""
    parser = commands.add_parser(
        "report",
        prog=prog,
        help="make a page of one training or of several",
        description="Make one HTML page of one training or of several beside each other; it needs no network.",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=path, metavar="RUN", help="folder of a run (--workspace), or its log")
    add(
        "--output",
        "-o",
        type=path,
        metavar="FILE",
        help="the page [default: report.html]",
    )
    add(
        "--data",
        type=path,
        metavar="DIR",
        help="evaluate each run's best weights on these images, and show confusions, classes and mistakes",
    )
    add(
        "--mistakes",
        type=integer(0, _MOST_MISTAKES),
        default=24,
        metavar="N",
        help="most confident mistakes to show, with --data [default: 24]",
    )
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to evaluate [default: auto]")
    add("--pictures", type=path, metavar="DIR", help="also write PNG, SVG and CSV of each chart")
    add("--live", action="store_true", help="serve the page on this machine, and follow the runs")
    add(
        "--port",
        type=integer(0, 65535),
        default=8765,
        metavar="N",
        help="port of --live; 0 for a free one [default: 8765]",
    )
    parser.set_defaults(command=_report)


def _report(namespace: argparse.Namespace) -> int:
    if namespace.live:
        return _serve(namespace)
    from effnet.report.write import write_report

    with shown_log():
        written = write_report(
            namespace.runs,
            Path(namespace.output or "report.html"),
            data=None if namespace.data is None else Path(namespace.data),
            pictures=None if namespace.pictures is None else Path(namespace.pictures),
            device=namespace.device,
            mistakes=namespace.mistakes,
        )
    page, *pictures = written
    say(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
    if pictures:
        say(f"{pictures[0].parent}: {len(pictures)} pictures and tables")
    return 0


def _serve(namespace: argparse.Namespace) -> int:
    for flag in ("output", "data", "pictures"):
        if getattr(namespace, flag) is not None:
            raise UserError(f"--live serves the page and writes no file; leave --{flag} out")
    from effnet.report.live import LiveServer

    with LiveServer(namespace.runs, namespace.port) as server:
        say(f"{server.address} follows the run; end with Ctrl+C")
        server.serve_forever()
    return 0
