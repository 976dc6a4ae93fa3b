"""Cost of an epoch of ImageNet, and images for a joule."""

from typing import Any

from effnet.data.imagenet import NUM_IMAGES


def epoch_hours(images_per_second: float) -> float:
    """Return the hours of an epoch of ImageNet."""
    return NUM_IMAGES["train"] / images_per_second / 3600


def cost_facts(images_per_second: float, watts: float | None, price: float | None) -> dict[str, Any]:
    """Return plain values for JSON: `images_per_joule` where the power is known, `epoch_hours` and `epoch_cost`.

    Args:
        images_per_second: measured speed.
        watts: power that was drawn meanwhile; None if it is not known.
        price: of the machine for an hour, in any currency; None if it is not known, which leaves the cost out.
    """
    hours = epoch_hours(images_per_second)
    facts: dict[str, Any] = {"epoch_hours": hours}
    if watts:
        facts["images_per_joule"] = images_per_second / watts
    if price is not None:
        facts["epoch_cost"] = hours * price
    return facts
