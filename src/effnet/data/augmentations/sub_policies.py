"""Policies in the manner of AutoAugment: one sub-policy, a sequence of operations, is chosen for an image."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from effnet.data.augmentations.form import DaliForm, DaliOperation


class Step(NamedTuple):
    """A step of a sub-policy."""

    operation: str
    probability: float
    """of being applied"""
    level: int
    """of the operation's magnitude, from 0"""


class Applied(NamedTuple):
    """An operation that has been drawn for an image."""

    operation: str
    level: int
    negated: bool
    """the magnitude is to be negated, if the operation has a sign"""


SubPolicies = Sequence[Sequence[Step]]


def drawn(sub_policies: SubPolicies, random: np.random.Generator) -> list[Applied | None]:
    """Draw a sub-policy and which of its steps are applied.

    Returns:
        For each step of the sub-policy its operation, or None where the step is not applied.
    """
    steps = sub_policies[int(random.integers(len(sub_policies)))]
    return [
        Applied(step.operation, step.level, bool(random.integers(2)))
        if random.random() < step.probability
        else None
        for step in steps
    ]


def dali_form(
    sub_policies: SubPolicies, operations: Mapping[str, DaliOperation], identity: DaliOperation, num_bins: int
) -> DaliForm:
    """Return the form of a policy that draws for a sample what `drawn` draws.

    Args:
        sub_policies: of at most as many steps as the form then has stages.
        operations: DALI's operations by the names that the sub-policies use.
        identity: operation of a step that is not applied.
        num_bins: levels of a magnitude.
    """
    names = _names_by_stage(sub_policies)

    def draw(random: np.random.Generator) -> npt.NDArray[np.int32]:
        numbers = np.zeros((len(names), 3), np.int32)
        for stage, applied in enumerate(drawn(sub_policies, random)):
            if applied is not None:
                number = 1 + names[stage].index(applied.operation)
                numbers[stage] = number, applied.level, applied.negated
        return numbers

    return DaliForm([[identity, *map(operations.__getitem__, stage)] for stage in names], num_bins, draw)


def _names_by_stage(sub_policies: SubPolicies) -> list[list[str]]:
    """Names of the operations that stand at each place of the sub-policies, each once."""
    stages: list[dict[str, None]] = [{} for _ in range(max(map(len, sub_policies)))]
    for steps in sub_policies:
        for stage, step in zip(stages, steps, strict=False):
            stage[step.operation] = None
    return [list(stage) for stage in stages]
