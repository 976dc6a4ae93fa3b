"""Files of class names, for `--class-map`."""

from pathlib import Path

from effnet.runtime.errors import UserError


def read_class_map(path: str) -> list[str]:
    """Return the class folders that a file names, one per line.

    Raises:
        UserError: the file can't be read, is empty, or names a folder twice.
    """
    try:
        classes = Path(path).read_text(encoding="utf-8", errors="surrogateescape").split()
    except OSError as error:
        raise UserError(f"--class-map {path}: {error.strerror}") from None
    if not classes:
        raise UserError(f"--class-map {path} names no class; give one folder name per line")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"--class-map {path} names {twice} twice")
    return classes
