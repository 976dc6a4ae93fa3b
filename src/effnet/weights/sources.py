"""Local files of published weights."""

import importlib.util
from pathlib import Path

from effnet.runtime.cache import cache_dir
from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command
from effnet.runtime.files import sha256_of
from effnet.weights.download import download
from effnet.weights.published import PublishedWeights


def locate(published: PublishedWeights) -> Path:
    """Return the file of published weights: in the package that contains it, or in the cache, downloaded if necessary.

    Raises:
        UserError: the package is not installed or not the right one, or the download failed; see `download`.
    """
    if published.package:
        return _in_package(published, published.package)
    metadata = published.metadata
    path = cache_dir() / "weights" / metadata.publisher / metadata.file_name
    return download(metadata.source, path, size=metadata.size, sha256=metadata.sha256)


def _in_package(published: PublishedWeights, package: str) -> Path:
    # The package is not imported: only its file is needed.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"the weights {published.metadata.tag} come as a Python package: "
            f"{install_command(published.extra)}"
        )
    path = Path(spec.origin).parent / published.package_file
    if not path.is_file() or sha256_of(path) != published.metadata.sha256:
        raise UserError(
            f"{path}: missing or changed; install its package again: {install_command(published.extra)}"
        )
    return path
