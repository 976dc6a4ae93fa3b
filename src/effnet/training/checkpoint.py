"""Files of checkpoints: written so that each is complete or absent, and read without executing pickles."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_file, atomic_path
from effnet.training.content import check_content
from effnet.weights.files import read_torch_file
from effnet.weights.history import with_todays_quantizers

_WEIGHTS = ("state_dict", "state_dict_ema")


def write_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Save tensors and plain values so that `path` holds either what it held before or all of `content`.

    Raises:
        UserError: the file can't be written.
    """
    with atomic_file(path) as file:
        torch.save(dict(content), file)


def copy_atomically(source: Path, path: Path) -> None:
    """Copy a file so that `path` is complete at every moment.

    Raises:
        UserError: the file can't be written.
    """
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


class CheckpointFiles:
    """Checkpoints of a workspace: the latest, the best, and the last few by epoch.

    Args:
        workspace: folder, made if absent.
        filename: name of the latest one.
        keep: how many to keep under ``checkpoint_<epoch>.pth.tar`` as well, where the first epoch is 0000; below 0 all.

    Raises:
        UserError: the folder can't be made or written.
    """

    BEST = "model_best.pth.tar"

    def __init__(self, workspace: Path, filename: str, keep: int) -> None:
        self.workspace = workspace
        self.latest = workspace / filename
        self.best = workspace / self.BEST
        self.keep = keep

    def save(self, content: Mapping[str, Any], *, is_best: bool) -> None:
        """Write the checkpoint of `content["epoch"]` finished epochs."""
        write_atomically(content, self.latest)
        if is_best:
            copy_atomically(self.latest, self.best)
        if self.keep:
            copy_atomically(self.latest, self._gathered(int(content["epoch"])))
        if self.keep > 0:
            for old in sorted(self.workspace.glob("checkpoint_????.pth.tar"))[: -self.keep]:
                old.unlink()

    def _gathered(self, finished_epochs: int) -> Path:
        return self.workspace / f"checkpoint_{finished_epochs - 1:04}.pth.tar"


def prepare_workspace(path: Path) -> None:
    """Make the folder, and check that it can be written before hours of training rely on it.

    Raises:
        UserError: the folder can't be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--workspace {path} can't be written: {error.strerror}") from None


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Return the content of a training checkpoint. No pickle is executed.

    Raises:
        UserError: a file that can't be read.
        UserError: it holds weights alone, or an entry of another kind than it must be.
    """
    content = read_torch_file(Path(path))
    if not isinstance(content, Mapping) or "state_dict" not in content:
        raise UserError(
            f"--resume {path}: holds no training state; for weights use --pretrained-from-file {path}"
        )
    check_content(content, path)
    metadata = content.get("metadata")
    return {
        key: with_todays_quantizers(value, metadata, f"{path}: {key}") if key in _WEIGHTS and value else value
        for key, value in content.items()
    }
