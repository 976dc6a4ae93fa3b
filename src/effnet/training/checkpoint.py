"""Files of checkpoints: complete or absent, written in the background, and read without executing pickles."""

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet.runtime.disk import retrying
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_path, atomic_paths
from effnet.training.content import check_content
from effnet.training.copies import Copied, Copies
from effnet.weights import WeightsMetadata
from effnet.weights.digest import with_digest
from effnet.weights.files import read_torch_file, save_weights
from effnet.weights.history import with_todays_quantizers

_WEIGHTS = ("state_dict", "state_dict_ema")
_GATHERED = "checkpoint_[0-9][0-9][0-9][0-9].pth.tar"


def previous_of(checkpoint: Path) -> Path:
    """Return the path under which the predecessor of a checkpoint is kept, such as `checkpoint.previous.pth.tar`."""
    name = checkpoint.name
    suffix = ".pth.tar" if name.endswith(".pth.tar") else checkpoint.suffix
    return checkpoint.with_name(f"{name.removesuffix(suffix)}.previous{suffix}")


class CheckpointFiles:
    """Checkpoints of a workspace: the latest, the one before it, the best, and the last few by epoch.

    They are written by a thread, one at a time, from copies of the tensors. After the first, a complete checkpoint is
    on the disk at every moment.

    Args:
        workspace: folder, made if absent.
        filename: name of the latest one.
        keep: how many to keep under ``checkpoint_<epoch>.pth.tar`` as well, where the first epoch is 0000; below 0 all.
        retry_minutes: how long to try again to write a file that the disk does not take.

    Attributes:
        latest: path of the latest checkpoint.
        previous: path of the one before.
        best: path of the best epoch's.
        averaged: path of the mean of the last epochs' weights.
    """

    BEST, AVERAGED = "model_best.pth.tar", "model_averaged.safetensors"

    def __init__(self, workspace: Path, filename: str, keep: int, retry_minutes: float = 0.0) -> None:
        self.workspace = workspace
        self.latest = workspace / filename
        self.previous = previous_of(self.latest)
        self.best = workspace / self.BEST
        self.averaged = workspace / self.AVERAGED
        self.keep = keep
        self._copies = Copies()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._latest_is_ours = False
        self._retry_minutes = retry_minutes

    def save(self, content: Mapping[str, Any], *, is_best: bool = False, gathered: bool = False) -> None:
        """Copy a checkpoint's content, and write it in the background.

        Waits for a checkpoint that is still being written, so none is left out.

        Args:
            content: tensors on any device, which may change as soon as this returns, and plain values; with `epoch`,
                the finished epochs.
            is_best: keep it as the best one, too.
            gathered: the end of an epoch, to be kept under its name if the workspace gathers checkpoints.

        Raises:
            UserError: the checkpoint before this one could not be written.
        """
        self.flush()
        copied = self._copies.take(content)
        self._writing = self._writer.submit(
            self._write, copied, is_best=is_best, gathered=gathered and self.keep != 0
        )

    def save_averaged(self, state_dict: Mapping[str, Tensor], metadata: WeightsMetadata) -> None:
        """Write the mean of the last epochs' weights.

        Raises:
            UserError: it could not be written.
        """
        retrying(lambda: save_weights(self.averaged, state_dict, metadata), self._retry_minutes)

    def flush(self) -> None:
        """Wait until all that was saved is on the disk.

        Raises:
            UserError: it could not be written.
        """
        if self._writing is None:
            return
        error = self._writing.exception()  # which a signal may interrupt
        self._writing = None
        if error is not None:
            raise error

    def kept(self) -> list[Path]:
        """Return the checkpoints beside the latest and its predecessor: those by epoch, last first, and the best."""
        gathered = sorted(self.workspace.glob(_GATHERED), reverse=True)
        return [*gathered, *([self.best] if self.best.is_file() else [])]

    def _write(self, copied: Copied, *, is_best: bool, gathered: bool) -> None:
        """Write the latest checkpoint, and with it the best and the epoch's.

        The latest appears last: a run that is killed before goes on from its predecessor, and writes the others again.
        """
        content = with_digest(copied.wait())
        retrying(lambda: self._write_files(content, is_best=is_best, gathered=gathered), self._retry_minutes)
        self._latest_is_ours = True
        if gathered and self.keep > 0:
            for old in sorted(self.workspace.glob(_GATHERED))[: -self.keep]:
                old.unlink(missing_ok=True)

    def _write_files(self, content: Mapping[str, Any], *, is_best: bool, gathered: bool) -> None:
        best = [self.best] if is_best else []
        by_epoch = [self._gathered(int(content["epoch"]))] if gathered else []
        with atomic_paths(*best, *by_epoch, self.latest) as (*others, written):
            # Into an open file, Python's lock is held for shorter times than to a path.
            with written.open("wb") as file:
                torch.save(dict(content), file)
            for other in others[: len(best)]:
                # A copy rather than a second name: damage to one of the two files spares the other.
                shutil.copyfile(written, other)
            for other in others[len(best) :]:
                _link(written, other)
            self._keep_previous()

    def _gathered(self, finished_epochs: int) -> Path:
        return self.workspace / f"checkpoint_{finished_epochs - 1:04}.pth.tar"

    def _keep_previous(self) -> None:
        """Keep the latest checkpoint as the previous one; a damaged one would replace the last that is not."""
        if self._latest_is_ours or is_readable(self.latest):
            with atomic_path(self.previous) as temporary:
                _link(self.latest, temporary)


def _link(source: Path, path: Path) -> None:
    """Make `path` a second name of a file, or a copy where there are no hard links."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def is_readable(path: Path) -> bool:
    """Return True for a file of `torch.save` that is there and undamaged."""
    try:
        read_torch_file(path)
    except UserError:
        return False
    return True


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Return the content of a training checkpoint. No pickle is executed.

    Raises:
        UserError: a file that can't be read, or is damaged; names the one before, if that is there.
        UserError: it holds weights alone, or an entry of another kind than it must be.
    """
    try:
        content = read_torch_file(Path(path))
    except UserError as error:
        before = previous_of(Path(path))
        raise UserError(f"{error}; the one before is {before}" if before.is_file() else str(error)) from error
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
