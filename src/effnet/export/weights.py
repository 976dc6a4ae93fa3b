"""Pure weights out of a training checkpoint."""

from pathlib import Path

from effnet.weights import read_weights, save_weights


def export_weights(checkpoint: Path, path: Path, *, ema: bool = False) -> None:
    """Write the weights of a checkpoint, with its metadata, as `.pth` or `.safetensors`.

    Args:
        checkpoint: checkpoint of a training, or any weight file.
        path: file to write; the suffix decides the format.
        ema: take the averaged weights.

    Raises:
        UserError: a file that can't be read or written, or no averaged weights in it.
    """
    weights = read_weights(checkpoint, ema=ema)
    save_weights(path, weights.state_dict, weights.metadata)
    print(f"{path}: {len(weights.state_dict)} tensors, {path.stat().st_size / 2**20:.1f} MiB")
