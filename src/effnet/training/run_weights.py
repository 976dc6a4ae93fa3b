"""The weights that a finished run is used by."""

from collections.abc import Mapping
from pathlib import Path

from effnet.runtime.errors import UserError
from effnet.training.checkpoint import CheckpointFiles
from effnet.weights.files import read_torch_file


def best_checkpoint(workspace: Path) -> Path:
    """Return the best checkpoint of a run's folder, or the latest where none was validated.

    Raises:
        UserError: there is none.
    """
    files = CheckpointFiles(workspace, "checkpoint.pth.tar", 0)
    for path in (files.best, files.latest):
        if path.is_file():
            return path
    raise UserError(f"{workspace}: holds no {files.best.name} and no {files.latest.name}")


def averaged_is_better(path: Path) -> bool:
    """Return True if a training's checkpoint says that its averaged weights were the better ones in validation."""
    if path.suffix == ".safetensors":
        return False
    content = read_torch_file(path)
    progress = content.get("progress") if isinstance(content, Mapping) else None
    return isinstance(progress, Mapping) and progress.get("best_is_ema") is True
