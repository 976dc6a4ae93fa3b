"""Automatic augmentation in DALI's graph."""

from typing import Any

from effnet.data.augmentations.form import FILL, DaliForm, DaliOperation
from effnet.data.dali.library import signed_bin


def augmented(form: DaliForm, images: Any, drawn: Any) -> Any:
    """Apply what `DaliForm.draw` drew for each image of a batch."""
    for stage, operations in enumerate(form.stages):
        magnitude = signed_bin(drawn[stage, 1], random_sign=drawn[stage, 2])
        images = _applied(operations, images, drawn[stage, 0], magnitude, form.num_bins)
    return images


def _applied(
    operations: list[DaliOperation], images: Any, chosen: Any, magnitude: Any, num_bins: int, first: int = 0
) -> Any:
    """Apply the chosen one of `operations`, numbered from `first`; a batch is split until one remains."""
    if len(operations) == 1:
        return operations[0].run(
            images, magnitude_bin=magnitude, num_magnitude_bins=num_bins, fill_value=FILL
        )
    half = len(operations) // 2
    if chosen < first + half:
        images = _applied(operations[:half], images, chosen, magnitude, num_bins, first)
    else:
        images = _applied(operations[half:], images, chosen, magnitude, num_bins, first + half)
    return images
