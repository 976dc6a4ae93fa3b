"""The classes of two models, which may have them in different orders."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.inference.engine import Engine
from effnet.runtime.errors import UserError


@dataclass(frozen=True)
class Classes:
    """The classes of two models.

    Attributes:
        count: logits of each.
        names: to be shown, in the order of the first model; empty if neither has any.
        folders: names of the folders in a data set, in the same order.
        order: positions of these classes among the second model's logits; None for the same order.
    """

    count: int
    names: Sequence[str]
    folders: Sequence[str]
    order: Sequence[int] | None = None

    def name(self, position: int) -> str:
        """Return the name of a class to be shown."""
        return self.names[position] if self.names else f"class {position}"


def common_classes(first: Engine, second: Engine) -> Classes:
    """Return the classes of two models.

    Raises:
        UserError: they have different ones, or an image may have several of them.
    """
    for engine in (first, second):
        if engine.metadata.several_labels:
            raise UserError(
                f"{engine.metadata.model}: an image may have several labels; models of one label are compared"
            )
    counts = [_count(engine) for engine in (first, second)]
    folders, others = first.metadata.class_folders(), second.metadata.class_folders()
    if counts[0] != counts[1] or (folders and others and set(folders) != set(others)):
        raise UserError(
            f"the models have different classes: the first {_told(counts[0], folders, others)}, the second "
            f"{_told(counts[1], others, folders)}"
        )
    order = None
    if folders and others and folders != others:
        positions = {name: position for position, name in enumerate(others)}
        order = [positions[name] for name in folders]
    names = first.metadata.class_names() or second.metadata.class_names()
    return Classes(counts[0], names, folders or others, order)


def _count(engine: Engine) -> int:
    """Return the number of a model's logits; an exported file need not name its classes."""
    side = engine.preprocessing.image_size
    return int(engine.logits(np.zeros((1, side, side, 3), np.uint8)).shape[1])


def _told(count: int, names: Sequence[str], others: Sequence[str]) -> str:
    """Return the number of a model's classes, and one that another model lacks."""
    only = sorted(set(names) - set(others)) if others else []
    return f"{count} classes" + (f" ({only[0]} among them)" if only else "")
