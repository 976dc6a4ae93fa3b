"""Archives made from folders, for tests."""

import tarfile
import zipfile
from pathlib import Path


def make_tar(folder: Path, path: Path, above: str = "") -> Path:
    """Pack what is in a folder as ``tar`` does."""
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=above or ".")
    return path


def make_zip(folder: Path, path: Path, above: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Pack what is in a folder as ``zip -r`` does."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, Path(above) / file.relative_to(folder))
    return path
