"""Flags of a data source, for commands that take one without a whole recipe."""

import argparse

from effnet.cli.flags import add_flags
from effnet.recipe import Recipe

DATA_HELP = (
    "folder with train/<class>/ and val/<class>/, or with <class>/ folders only; or a table of paths and labels: .csv, "
    ".jsonl, .parquet"
)
_CONTENT = (
    *("source", "root", "path_column", "label_column", "label_separator"),
    *("split_column", "weight_column", "fold_column"),
)
_DIVISION = ("val_split", "fold", "group_column", "seed")
SOURCE_SETTINGS = (*_CONTENT, *_DIVISION)
"""the settings of these flags"""


def add_source_flags(parser: argparse._ActionsContainer, *, divides: bool = True) -> None:
    """Add the flags that say what a data source holds.

    Args:
        parser: parser of the command, or a group of it.
        divides: add those that divide a source without splits, too.
    """
    add_flags(parser, (*_CONTENT, *(_DIVISION if divides else ())))


def source_recipe(namespace: argparse.Namespace) -> Recipe:
    """Return a recipe with the settings that these flags give."""
    given = {name: value for name, value in vars(namespace).items() if name in SOURCE_SETTINGS}
    return Recipe().replace(given)
