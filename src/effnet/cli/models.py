"""`effnet models`."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from effnet.cli.flags import Commands
from effnet.runtime.text import to_json

if TYPE_CHECKING:
    from effnet.models.profiles import Profile

_HEADINGS = ("model", "M par.", "GMAC", "M act.", "px", "weights")


def add_models(commands: Commands, prog: str | None) -> None:
    """Add `effnet models`."""
    parser = commands.add_parser(
        "models",
        prog=prog,
        help="list the models",
        description="List the models: millions of parameters, billions of multiply-accumulates and millions of "
        "activations for one image of the given side in pixels, and who publishes weights.",
    )
    parser.add_argument("--json", action="store_true", help="print exact counts, as one JSON object")
    parser.set_defaults(command=_models, needs_pytorch=False)


def _models(namespace: argparse.Namespace) -> int:
    from effnet.models.profiles import list_profiles
    from effnet.weights import publishers_of

    rows = {name: (size, publishers_of(name)) for name, size in list_profiles().items()}
    if namespace.json:
        print(to_json({name: {**asdict(size), "weights": weights} for name, (size, weights) in rows.items()}))
    else:
        _print_table([_HEADINGS, *(_cells(name, *row) for name, row in rows.items())])
    return 0


def _cells(name: str, size: "Profile", weights: Sequence[str]) -> tuple[str, ...]:
    return (
        name,
        f"{size.parameters / 1e6:.2f}",
        f"{size.macs / 1e9:.2f}",
        f"{size.activations / 1e6:.2f}",
        str(size.image_size),
        ", ".join(weights),
    )


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns as wide as their widest cell, numbers aligned to the right; nothing is cut off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *figures, weights in rows:
        aligned = (figure.rjust(width) for figure, width in zip(figures, widths[1:-1], strict=True))
        print("  ".join([name.ljust(widths[0]), *aligned, weights]).rstrip())
