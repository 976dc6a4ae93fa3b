"""The form of an input backend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from effnet.data.batch import DataSource
from effnet.data.packed import is_packed, packed_classes
from effnet.data.request import DataRequest
from effnet.data.sources import Labels, find_labels
from effnet.recipe import Recipe

FindLabels = Callable[[Recipe, Path | str, Sequence[str]], Labels]


def labels_at(recipe: Recipe, path: Path | str, splits: Sequence[str]) -> Labels:
    """Return the labels of a data source or of a packed data set; see `effnet.data.find_classes`."""
    if is_packed(path, splits[0]):
        return Labels(packed_classes(path, splits))
    return find_labels(recipe, path, splits)


@dataclass(frozen=True)
class Backend:
    """An input backend."""

    name: str
    """value of ``--data-backend``"""
    summary: str
    """its input and its decoder, for the documentation's table"""
    open: Callable[[DataRequest], DataSource]
    """opens a data set; it may import an optional package"""
    find_labels: FindLabels = labels_at
    """returns the labels of a data set without opening its images"""
    reads_sources: bool = True
    """every kind of data source can be opened with it"""
    resizes: bool = False
    """images of any side can be asked of it in each epoch (``--progressive-sizes``)"""
    reads_path: bool = True
    """it reads the path; otherwise none has to be given"""
