"""A comparison as lines for a terminal."""

from effnet.inference.compare.comparison import Comparison, ModelFacts

_CHANGES = 3
"""changed answers that are named"""


def lines(comparison: Comparison) -> list[str]:
    """Return the figures of a comparison, a line each."""
    summary = comparison.summary()
    count = summary["disagreements"]
    found = [
        *(
            f"{name:<17} {_facts(facts)}"
            for name, facts in zip(("first", "second"), comparison.models, strict=True)
        ),
        f"{'images':<17} {summary['images']:,}"
        + (f", {summary['bad_images']:,} more can't be decoded" if summary["bad_images"] else ""),
        f"{'same answer':<17} {summary['agreement']:.2f} %, {count:,} differ",
    ]
    if comparison.targets is not None:
        found.append(
            f"{'top-1 accuracy':<17} first {summary['first_top1']:.2f} %, second {summary['second_top1']:.2f} %"
        )
        found.append(
            f"{'right alone':<17} first {summary['only_first_right']:,}, second {summary['only_second_right']:,}"
        )
    found += [
        f"{'probability moved':<17} {summary['mean_moved']:.4f} on average",
        f"{'divergence':<17} {summary['mean_divergence']:.4f} nats on average",
        f"{'logits':<17} {summary['mean_logit_difference']:.3g} apart on average, "
        f"{summary['largest_logit_difference']:.3g} at most",
    ]
    for change in comparison.changes()[:_CHANGES]:
        found.append(f"{'changed answer':<17} {change['first']} -> {change['second']}: {change['images']:,}")
    return found


def _facts(facts: ModelFacts) -> str:
    return f"{facts.name} ({facts.arch}, {facts.engine}, {facts.precision}, {facts.image_size} px)"
