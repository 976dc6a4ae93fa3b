"""The folder of a run, looked at before hours of training rely on it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from effnet.recipe import RunSettings
from effnet.runtime.disk import check_room, check_writable


def prepare_workspace(run: RunSettings) -> Path:
    """Make the folder of a run, remove what killed runs left in it, and check that its files can be written.

    Args:
        run: names the files: the log, and those of a training or of an evaluation.

    Returns:
        The folder.

    Raises:
        DiskError: a file can't be written.
    """
    workspace = Path(run.workspace)
    check_writable(workspace / run.report_file, make_folder=True, flag="--workspace and --report-file")
    if not (run.evaluate or run.no_checkpoints):
        checkpoint = workspace / run.checkpoint_filename
        check_writable(checkpoint, make_folder=True, flag="--workspace and --checkpoint-filename")
    for flag, target in (
        ("--per-class", run.per_class),
        ("--confusion", run.confusion),
        ("--reliability", run.reliability),
    ):
        if target is not None:
            check_writable(Path(target), flag=flag)
    return workspace


def check_room_for(checkpoint: Mapping[str, object], workspace: Path) -> None:
    """Check that a checkpoint fits on the disk beside the one that it will replace.

    Raises:
        DiskError: it does not.
    """
    check_room(workspace, _size(checkpoint), "a checkpoint")


def _size(content: object) -> int:
    """Return the bytes of all tensors in nested mappings and sequences."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        return sum(map(_size, content.values()))
    return sum(map(_size, content)) if isinstance(content, list | tuple) else 0
