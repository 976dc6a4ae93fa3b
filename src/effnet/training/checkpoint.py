"""Checkpoints: everything a run needs to go on, in one file that is complete or absent."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from effnet.recipe import RunSettings, flatten
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_file, atomic_path
from effnet.weights.files import read_torch_file
from effnet.weights.history import with_todays_quantizers

RESUME_AUTO = "auto"
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
    """The checkpoints of a workspace: the latest, the best, and the last few by epoch.

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
    """Make the folder, and see that it can be written before hours of training rely on it.

    Raises:
        UserError: it can't.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--workspace {path} can't be written: {error.strerror}") from None


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Content of a training checkpoint. No pickle is executed.

    Raises:
        UserError: a file that can't be read.
        UserError: it holds weights alone.
    """
    content = read_torch_file(Path(path))
    if not isinstance(content, Mapping) or "state_dict" not in content:
        raise UserError(
            f"--resume {path}: holds no training state; for weights use --pretrained-from-file {path}"
        )
    metadata = content.get("metadata")
    return {
        key: with_todays_quantizers(value, metadata, f"{path}: {key}") if key in _WEIGHTS else value
        for key, value in content.items()
    }


# What a resumed run takes over from the checkpoint; where it runs and what it writes belongs to each command.
_INHERITED_GROUPS = ("model", "data", "optimizer", "schedule", "compute", "quantization")
_NOT_INHERITED = {
    "pretrained",
    "pretrained_source",
    "pretrained_from_file",
    "run_epochs",
    "device",
    "workers",
    "calib_data",
    "sensitivity",
}


def inherited_settings(path: str | Path) -> dict[str, Any]:
    """Settings, as they were given, of the run that wrote a checkpoint; of another program's the model, if it says it.

    For the errors see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    if "recipe" not in checkpoint:
        return {"arch": checkpoint["arch"]} if "arch" in checkpoint else {}
    groups = checkpoint["recipe"]
    values = flatten({name: groups[name] for name in _INHERITED_GROUPS if name in groups})
    return {name: value for name, value in values.items() if name not in _NOT_INHERITED and value is not None}


def resolve_resume(run: RunSettings) -> str | None:
    """The checkpoint that `resume` names; `auto` is the workspace's latest one, or None if it has none yet.

    Raises:
        UserError: an evaluation has none.
    """
    if run.resume != RESUME_AUTO:
        return run.resume
    latest = Path(run.workspace) / run.checkpoint_filename
    if run.evaluate and not latest.is_file():
        raise UserError(f"--resume auto: there is no {latest} to evaluate")
    return str(latest) if latest.is_file() else None


def random_states() -> dict[str, Any]:
    """State of PyTorch's generators, for a checkpoint. Samples and mixup need none: they are counted, not drawn."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Inverse of `random_states`; a state of a device that is absent is passed over."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
