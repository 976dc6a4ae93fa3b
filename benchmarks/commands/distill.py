"""`python -m benchmarks distill`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands


def add_distill(commands: Commands) -> None:
    """Add `python -m benchmarks distill`."""
    parser = commands.add_parser(
        "distill", help="gain from a teacher on a small set; needs effnet[lite] for the default one"
    )
    parser.add_argument("data", metavar="DIR", help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the runs and the results")
    parser.add_argument("--student", default="efficientnet-b0", help="[default: efficientnet-b0]")
    parser.add_argument("--teacher", default="efficientnet-lite2", help="[default: efficientnet-lite2]")
    parser.add_argument("--images", type=int, default=2000, help="training images [default: 2000]")
    parser.add_argument("--val-images", type=int, default=2000, help="validation images [default: 2000]")
    parser.add_argument("--image-size", type=int, default=96, metavar="PIXELS", help="[default: 96]")
    parser.add_argument("--epochs", type=int, default=12, help="of the students [default: 12]")
    parser.add_argument("--seeds", type=int, default=2, help="students of each kind [default: 2]")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.distill import Plan, measure, table

    values = {name: value for name, value in vars(namespace).items() if name in Plan.__dataclass_fields__}
    rows = measure(Plan(**{**values, "data": Path(namespace.data), "out": Path(namespace.out)}))
    print(table(rows))
    return 0
