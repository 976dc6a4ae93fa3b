"""`python -m benchmarks confidence`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import path
from effnet.cli.flags import Commands


def add_confidence(commands: Commands) -> None:
    """Add the command to the laboratory's parser."""
    parser = commands.add_parser(
        "confidence",
        help="calibration error and unknown images of a trained run, on images that it has not seen",
    )
    parser.add_argument("model", type=path, metavar="MODEL", help="checkpoint, or folder of a run")
    parser.add_argument(
        "known", type=path, metavar="DIR", help="folder with <class>/ folders of unseen images"
    )
    parser.add_argument(
        "unknown", type=path, nargs="*", metavar="DIR", help="folders of images of other things"
    )
    parser.set_defaults(command=_confidence)


def _confidence(namespace: argparse.Namespace) -> int:
    from benchmarks.confidence import measure

    unknown = [Path(folder) for folder in namespace.unknown]
    for name, value in measure(Path(namespace.model), Path(namespace.known), unknown).items():
        print(f"{name} {value if isinstance(value, str) else format(value, '.4g')}")
    return 0
