"""Choice of the checkpoint that a run goes on from, and the settings that the run inherits from it."""

import functools
import logging
from pathlib import Path
from typing import Any

from effnet.recipe import RunSettings, flatten
from effnet.runtime.errors import UserError
from effnet.runtime.log import read_records
from effnet.training.checkpoint import CheckpointFiles, is_readable, read_checkpoint
from effnet.weights.files import read_torch_file

_LOG = logging.getLogger("effnet")

RESUME_AUTO = "auto"
# The log may be ahead of the checkpoints by two epochs: one that is being written, and one that is yet to be saved.
_EPOCHS_WITHOUT_CHECKPOINT = 2
# Where a run computes and what it writes belongs to each command.
_INHERITED_GROUPS = ("model", "data", "task", "optimizer", "schedule", "compute", "quantization")
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
    """Return the checkpoint that `run.resume` names; for `auto` the newest undamaged one, or None without any.

    Raises:
        UserError: there is none to evaluate, or a run would start from scratch beside the results of another.
    """
    if run.resume != RESUME_AUTO:
        return run.resume
    files = CheckpointFiles(Path(run.workspace), run.checkpoint_filename, 0)
    faults: list[str] = []
    for path in (files.latest, files.previous):
        try:
            content = read_torch_file(path)
        except UserError as error:
            faults.append(str(error).partition(";")[0])
        else:
            epoch = content.get("epoch") if isinstance(content, dict) else None
            _tell(f"--resume auto: goes on from {path}, epoch {epoch}", *faults)
            return str(path)
    if run.evaluate:
        raise UserError(f"--resume auto: there is no checkpoint to evaluate ({'; '.join(faults)})")
    if not run.overwrite:
        _check_start_from_scratch(run, files, faults)
    return None


@functools.cache  # a command asks more than once
def _tell(*facts: str) -> None:
    _LOG.info("%s", "; ".join(facts))


def _check_start_from_scratch(run: RunSettings, files: CheckpointFiles, faults: list[str]) -> None:
    """Refuse to start from scratch where the latest checkpoint is damaged, or missing beside other results."""
    kept = files.kept()
    log = Path(run.workspace) / run.report_file
    lost = any(path.exists() for path in (files.latest, files.previous)) or bool(kept)
    if not lost and not run.no_checkpoints and finished_epochs(log) > _EPOCHS_WITHOUT_CHECKPOINT:
        lost = True
        faults = [*faults, f"{log} is of a run with finished epochs"]
    if not lost:
        return
    usable = next((path for path in kept if is_readable(path)), None)
    remedy = f"go on with --resume {usable}, or " if usable else ""
    raise UserError(
        f"--resume auto: {'; '.join(faults)}; {remedy}start from scratch with --overwrite or in another --workspace"
    )


def finished_epochs(log: Path) -> int:
    """Return the number of finished epochs that a run's log records; 0 without a log."""
    return len({record.get("epoch") for record in read_records(log, "epoch")})


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
