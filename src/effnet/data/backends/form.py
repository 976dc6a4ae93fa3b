"""The form of an input backend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from effnet.data.batch import DataSource
from effnet.data.packed import is_packed, packed_classes
from effnet.data.places import DataPlace, Datasets
from effnet.data.request import DataRequest
from effnet.data.sources import Labels, find_labels
from effnet.recipe import Recipe

FindLabels = Callable[[Recipe, DataPlace | str, Sequence[str]], Labels]


def labels_at(recipe: Recipe, path: DataPlace | str, splits: Sequence[str]) -> Labels:
    """Return the labels of a data source or of a packed data set; see `effnet.data.find_classes`."""
    if not isinstance(path, Datasets) and is_packed(path, splits[0]):
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
    reads_datasets: bool = False
    """it reads PyTorch data sets, too"""
    reads_path: bool = True
    """it reads the path; otherwise none has to be given"""
