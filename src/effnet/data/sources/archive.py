"""A tar or zip archive of images, which is read in place."""

from effnet.data.archive import is_archive
from effnet.data.archive_images import ArchiveImages, ArchiveIndex, index_archive
from effnet.data.folder import LAYOUT
from effnet.data.sources.form import UNSPLIT, Labels, Listing, Source, SourceRequest
from effnet.runtime.errors import UserError


def _classes(request: SourceRequest, index: ArchiveIndex) -> list[str]:
    """Return the class names: those of ``train/``, of ``val/`` where it stands alone, or of the archive.

    Raises:
        UserError: there are none.
    """
    if not index.splits:
        classes = index.classes(UNSPLIT)
    else:
        own = "train" if "train" in request.splits or "train" in index.splits else "val"
        classes = index.classes(own)
    if not classes:
        raise UserError(f"{request.path}: {LAYOUT}, or all in <class>/, and it holds none of these")
    return classes


def _labels(request: SourceRequest) -> Labels:
    return Labels(_classes(request, index_archive(request.path)))


def _list(request: SourceRequest) -> Listing:
    index, limit = index_archive(request.path), request.settings.max_pixels
    classes = list(request.classes or _classes(request, index))
    if request.for_check:
        splits = index.splits or (UNSPLIT,)
        return Listing(classes, {split: index.images(split, index.classes(split), limit) for split in splits})
    if not index.splits:
        return Listing(classes, {UNSPLIT: index.images(UNSPLIT, classes, limit)})
    if missing := [split for split in request.splits if split not in index.splits]:
        raise UserError(f"{request.path} has no {missing[0]}/ folder; {LAYOUT}")
    return Listing(classes, {split: index.images(split, classes, limit) for split in request.splits})


def _list_all(request: SourceRequest) -> ArchiveImages:
    return index_archive(request.path).all_images(request.settings.max_pixels)


SOURCE = Source(
    "archive",
    "A .tar or .zip of such folders, read in place without unpacking",
    is_archive,
    _labels,
    _list,
    _list_all,
)
