"""Output of `effnet models`."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from effnet.models import list_models
from effnet.models.profile import profile
from effnet.models.weights import publishers_of


def print_models(*, as_json: bool) -> None:
    """Print every model with its size, work per image and the publishers of its weights."""
    rows = {name: (profile(name), publishers_of(name)) for name in list_models()}
    if as_json:
        print(
            json.dumps({name: {**asdict(size), "weights": weights} for name, (size, weights) in rows.items()})
        )
        return
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
