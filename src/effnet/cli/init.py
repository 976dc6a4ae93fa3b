"""`effnet init`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import path
from effnet.cli.flags import Commands
from effnet.cli.messages import say, shown_log
from effnet.cli.sources import DATA_HELP, SOURCE_SETTINGS, add_source_flags, source_recipe
from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.fitting.facts import DataFacts, MachineFacts

_RARE = 10  # images of a class below which it is named


def add_init(commands: Commands, prog: str | None) -> None:
    """Add `effnet init`."""
    parser = commands.add_parser(
        "init", prog=prog, help="look at a data set and this machine, and write a recipe for them"
    )
    parser.add_argument("dir", type=path, metavar="DIR", help=DATA_HELP)
    parser.add_argument(
        "--out",
        type=path,
        default="recipe.yaml",
        metavar="FILE",
        help="recipe to write [default: recipe.yaml]",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a recipe that is there")
    add_source_flags(parser)
    parser.set_defaults(command=_init)


def _init(namespace: argparse.Namespace) -> int:
    from effnet.fitting.advice import advise, recipe_text
    from effnet.fitting.facts import data_facts, machine_facts
    from effnet.runtime.files import write_text

    out, given = Path(namespace.out), source_recipe(namespace)
    if out.exists() and not namespace.overwrite:
        raise UserError(f"--out {out} is there; name another file, or give --overwrite")
    with shown_log():
        data, machine = data_facts(given, Path(namespace.dir)), machine_facts()
        advised = advise(data, machine)
        command = f"effnet train {namespace.dir} --recipe {out}"
        lines = _facts(data, machine)
        write_text(
            out, recipe_text(advised, _source_settings(namespace), "\n".join([*lines, f"  {command}"]))
        )
        for line in (*lines, *_warnings(data)):
            say(line)
        for row in advised:
            say(f"  {row.name:<20} {row.value!s:<20} {row.reason}".rstrip())
        say(f"recipe: {out}; train with: {command}")
    return 0


def _source_settings(namespace: argparse.Namespace) -> dict[str, object]:
    """Return the settings of the source that were given."""
    return {name: value for name, value in vars(namespace).items() if name in SOURCE_SETTINGS}


def _facts(data: "DataFacts", machine: "MachineFacts") -> list[str]:
    counts = sorted(data.counts.values())
    kind = "several labels for an image" if data.several_labels else "one label for an image"
    place = f"{machine.gpu}, {machine.gpu_memory:.0f} GiB" if machine.gpu else "no GPU"
    return [
        f"{data.train_images:,} training and {data.val_images:,} validation images, {kind}, {len(counts)} classes of "
        f"{counts[0]:,} to {counts[-1]:,} images, shorter side {data.side} px (median)",
        f"{place}, {machine.cores} cores",
    ]


def _warnings(data: "DataFacts") -> list[str]:
    rare = [name for name, count in data.counts.items() if count < _RARE]
    found = {
        f"{len(rare)} classes have fewer than {_RARE} training images, such as {rare[:1]}": bool(rare),
        f"{data.duplicates} training images are copies of others; see effnet prepare check": bool(
            data.duplicates
        ),
        f"{data.leaks} validation images are copies of training images, so that validation is too kind; see effnet "
        "prepare check": bool(data.leaks),
        "too many images to search for copies here; effnet prepare check does": data.leaks is None,
    }
    return [f"note: {text}" for text, applies in found.items() if applies]
