"""Folders of images through PyTorch's DataLoader."""

from effnet.data.backends.form import Backend
from effnet.data.batch import DataSource
from effnet.data.folder import list_images, split_classes
from effnet.data.loader import open_loaders
from effnet.data.request import DataRequest


def open_pytorch(request: DataRequest) -> DataSource:
    """Open ``path/train`` and ``path/val``; see `effnet.data.open_data`."""
    classes = request.classes
    if classes is None:
        classes = split_classes(request.path, request.splits)
    limit = request.recipe.data.max_pixels
    images = {split: list_images(request.path, split, classes, max_pixels=limit) for split in request.splits}
    return open_loaders(request, images, classes)


BACKEND = Backend(
    "pytorch",
    "Folders of images, decoded by Pillow in the worker processes of PyTorch's DataLoader",
    open_pytorch,
    resizes=True,
)
