"""A format that models are written in, as `effnet export` knows it."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet.cli.flags import Parser

if TYPE_CHECKING:
    from effnet.export.writer import Writer


@dataclass(frozen=True)
class Format:
    """A format that models are written in: a subcommand of `effnet export`.

    Attributes:
        name: the subcommand.
        summary: what is written, for the help and for the documentation's table.
        add_flags: adds the subcommand's flags.
        run: writes the file; returns the exit code.
        description: more for the subcommand's own help.
        writer: returns the format's part of `effnet export all`; None where it has none.
    """

    name: str
    summary: str
    add_flags: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]
    description: str | None = None
    writer: "Callable[[], Writer] | None" = None
