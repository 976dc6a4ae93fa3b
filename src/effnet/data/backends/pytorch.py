"""Images of any data source through PyTorch's DataLoader."""

from effnet.data.backends.form import Backend
from effnet.data.batch import DataSource
from effnet.data.loader import open_loaders
from effnet.data.request import DataRequest
from effnet.data.sources import open_splits


def open_pytorch(request: DataRequest) -> DataSource:
    """Open a data source; see `effnet.data.open_data`."""
    opened = open_splits(
        request.recipe, request.path, request.splits, request.classes, stored=request.stored_split
    )
    source = open_loaders(request, opened.images, opened.classes)
    source.made_split = opened.made
    return source


BACKEND = Backend(
    "pytorch",
    "Images of any source, decoded in PyTorch's DataLoader, or by threads in turns with a training on a CPU",
    open_pytorch,
    resizes=True,
    reads_datasets=True,
)
