"""Pictures of a model card."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from effnet.runtime.plots import new_figure

CURVE = "learning-curve.svg"
_SHOWN = {"train.loss": "training loss", "val.loss": "validation loss"}


def draw_learning_curve(curve: Sequence[Mapping[str, float]], folder: Path) -> str | None:
    """Draw losses and top-1 accuracy by epoch.

    Args:
        curve: metrics of each epoch.
        folder: folder to write to.

    Returns:
        Name of the file; None where matplotlib is missing or there are fewer than two epochs.
    """
    if len(curve) < 2 or importlib.util.find_spec("matplotlib") is None:
        return None
    epochs = range(1, len(curve) + 1)
    figure = new_figure("a learning curve", figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in _SHOWN.items():
        left.plot(epochs, [row.get(name, float("nan")) for row in curve], label=label)
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    for name, label in (("val.top1", "weights"), ("val_ema.top1", "averaged weights")):
        if any(name in row for row in curve):
            right.plot(epochs, [row.get(name, float("nan")) for row in curve], label=label)
            right.legend()
    right.set(xlabel="epoch", ylabel="top-1 accuracy, %")
    # Without the date, so that the same run gives the same file.
    figure.savefig(folder / CURVE, metadata={"Date": None})
    return CURVE
