"""`effnet models`."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from effnet.cli.flags import Verbs

if TYPE_CHECKING:
    from effnet.models.profile import Profile


def add_models(verbs: Verbs, prog: str | None) -> None:
    """Add `effnet models`."""
    parser = verbs.add_parser("models", prog=prog, help="list the models")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(verb=_models)


def _models(namespace: argparse.Namespace) -> int:
    from effnet.models import list_models
    from effnet.models.profile import profile
    from effnet.weights import publishers_of

    rows = {name: (profile(name), publishers_of(name)) for name in list_models()}
    if namespace.json:
        print(
            json.dumps({name: {**asdict(size), "weights": weights} for name, (size, weights) in rows.items()})
        )
    else:
        _print_table(rows)
    return 0


def _print_table(rows: "dict[str, tuple[Profile, tuple[str, ...]]]") -> None:
    table = Table(box=None)
    table.add_column("model", no_wrap=True)
    for heading in ("parameters", "GMAC", "M act.", "px"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for name, (size, weights) in rows.items():
        table.add_row(
            name,
            f"{size.parameters:,}",
            f"{size.macs / 1e9:.2f}",
            f"{size.activations / 1e6:.2f}",
            str(size.image_size),
            ", ".join(weights),
        )
    Console().print(table)
