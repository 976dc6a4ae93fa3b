"""`effnet compare`."""

import argparse
import logging
from pathlib import Path

from effnet.cli.arguments import MOST_IMAGES, integer, path
from effnet.cli.choice import add_batch_flags
from effnet.cli.flags import Commands
from effnet.cli.messages import say, shown_log
from effnet.cli.sources import add_source_flags, source_recipe

_SHOWN = 24


def add_compare(commands: Commands, prog: str | None) -> None:
    """Add `effnet compare`."""
    parser = commands.add_parser(
        "compare",
        prog=prog,
        help="show where two models disagree",
        description="Compare two models on the same images, such as one in floating point with its INT8 form, or one "
        "before with one after fine-tuning.",
    )
    add = parser.add_argument
    for number in ("first", "second"):
        add(
            number,
            type=path,
            metavar="MODEL",
            help=f"{number} model: weights, a run's folder, a file of effnet export, or a model's name",
        )
    add(
        "--data",
        required=True,
        type=path,
        metavar="DIR",
        help="images: those of val/ where there is one, else all; class folders are their labels, a folder without any "
        "has none; or a table",
    )
    add("--no-labels", action="store_true", help="take class folders for folders like others")
    add(
        "--output",
        "-o",
        type=path,
        metavar="FILE",
        help="page to write, which needs no other file [default: compare.html, with --json none]",
    )
    add(
        "--shown",
        type=integer(1, MOST_IMAGES),
        default=_SHOWN,
        metavar="N",
        help=f"images to show, those that differ most [default: {_SHOWN}]",
    )
    add("--no-heat-maps", action="store_true", help="show the images without heat maps")
    add("--device", default="auto", choices=("auto", "cuda", "cpu"), help="where to run [default: auto]")
    add_batch_flags(parser)
    add_source_flags(parser, divides=False)
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_compare)


def _compare(namespace: argparse.Namespace) -> int:
    from effnet.inference.classifier import load
    from effnet.inference.compare.comparison import compare
    from effnet.inference.compare.lines import lines
    from effnet.report.compare import write_comparison
    from effnet.runtime.disk import check_writable
    from effnet.runtime.text import to_json

    output = namespace.output or (None if namespace.json else "compare.html")
    recipe = source_recipe(namespace)
    with shown_log(logging.WARNING):
        if output is not None:
            check_writable(Path(output), flag="--output")
        first, second = (
            load(name, device=namespace.device, batch_size=namespace.batch_size)
            for name in (namespace.first, namespace.second)
        )
        comparison = compare(
            (first, second),
            (namespace.first, namespace.second),
            Path(namespace.data),
            recipe,
            labelled=not namespace.no_labels,
            batch_size=namespace.batch_size,
            workers=namespace.workers,
        )
        if output is not None:
            write_comparison(
                comparison, Path(output), shown=namespace.shown, with_heat_maps=not namespace.no_heat_maps
            )
    if namespace.json:
        print(to_json(comparison.to_dict(namespace.shown)))
        return 0
    for line in lines(comparison):
        say(line)
    say(f"{output}: {min(namespace.shown, comparison.summary()['images'])} images that differ most")
    return 0
