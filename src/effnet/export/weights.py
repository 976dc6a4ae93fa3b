"""The weights of a training checkpoint, without the training's state."""

from pathlib import Path

from effnet.export.trained import ModelChoice
from effnet.runtime.disk import check_writable
from effnet.runtime.text import printable
from effnet.weights import load_model, read_weights, save_weights
from effnet.weights.tensors import check_finite


def export_weights(
    checkpoint: Path, path: Path, *, ema: bool = False, num_classes: int | None = None
) -> None:
    """Write the weights of a checkpoint, with its metadata, as `.pth` or `.safetensors`.

    Args:
        checkpoint: checkpoint of a training, or any weight file.
        path: file to write; the suffix decides the format.
        ema: take the averaged weights.
        num_classes: classes that the checkpoint must have; None for any number.

    Raises:
        UserError: a file that can't be read or written, or no averaged weights in it, or some that are not finite.
        UserError: another number of classes.
    """
    check_writable(path)
    if num_classes is not None:
        found = load_model(checkpoint, ema=ema).config.num_classes
        ModelChoice(num_classes=num_classes).check_classes(found, checkpoint)
    weights = read_weights(checkpoint, ema=ema)
    check_finite(weights.state_dict, str(checkpoint))
    save_weights(path, weights.state_dict, weights.metadata)
    print(f"{printable(path)}: {len(weights.state_dict)} tensors, {path.stat().st_size / 2**20:.1f} MiB")
