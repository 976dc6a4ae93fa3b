"""Choice of the checkpoint that a run goes on from, and the settings that the run inherits from it."""

from pathlib import Path
from typing import Any

from effnet.recipe import RunSettings, flatten
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import read_checkpoint

RESUME_AUTO = "auto"
# Where a run computes and what it writes belongs to each command.
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


def resume_path(run: RunSettings) -> str | None:
    """Return the checkpoint that `run.resume` names; for `auto` the workspace's latest one, or None without any.

    Raises:
        UserError: there is none to evaluate.
    """
    if run.resume != RESUME_AUTO:
        return run.resume
    latest = Path(run.workspace) / run.checkpoint_filename
    if run.evaluate and not latest.is_file():
        raise UserError(f"--resume auto: there is no {latest} to evaluate")
    return str(latest) if latest.is_file() else None


def inherited_settings(path: str | Path) -> dict[str, Any]:
    """Return the settings, as they were given, of the run that wrote a checkpoint.

    Of another program's checkpoint this is the model, if the checkpoint names it.

    Raises:
        UserError: see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    if "recipe" not in checkpoint:
        return {"arch": checkpoint["arch"]} if "arch" in checkpoint else {}
    groups = checkpoint["recipe"]
    values = flatten({name: groups[name] for name in _INHERITED_GROUPS if name in groups})
    return {name: value for name, value in values.items() if name not in _NOT_INHERITED and value is not None}
