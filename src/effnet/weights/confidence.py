"""Temperature of a model's logits, and a rule for images of none of its classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effnet.runtime.errors import UserError
from effnet.runtime.plain import is_number

COLDEST = 0.01
"""lowest temperature"""
HOTTEST = 100.0
"""highest temperature"""

SCORES = ("energy", "max-probability")
"""scores of an image by which one of none of the classes is told; see `effnet.inference.unknown`"""
_FARTHEST_SCORE = 1e6


@dataclass(frozen=True)
class Unknown:
    """Rule that tells images of none of the classes.

    Attributes:
        score: one of `SCORES`; higher for images of the classes.
        threshold: an image with a lower score is of none of the classes.
    """

    score: str
    threshold: float


@dataclass(frozen=True)
class Confidence:
    """Confidence of a model's answers, fitted on images that it was not trained on.

    Attributes:
        temperature: logits are divided by it before the softmax; 1 changes nothing.
        unknown: rule for images of none of the classes; None without one.
    """

    temperature: float = 1.0
    unknown: Unknown | None = None

    @classmethod
    def from_dict(cls, values: object) -> "Confidence":
        """Return the confidence of a dict as `dataclasses.asdict` makes it; unknown fields are ignored.

        Raises:
            UserError: no such dict, or a value that can't be used.
        """
        if not isinstance(values, Mapping) or not is_number(values.get("temperature"), COLDEST, HOTTEST):
            raise UserError("metadata of weights: confidence has a value that can't be used")
        return cls(float(values["temperature"]), _unknown(values.get("unknown")))


def _unknown(values: Any) -> Unknown | None:
    if values is None:
        return None
    is_right = (
        isinstance(values, Mapping)
        and values.get("score") in SCORES
        and is_number(values.get("threshold"), -_FARTHEST_SCORE, _FARTHEST_SCORE)
    )
    if not is_right:
        raise UserError("metadata of weights: confidence has a rule for unknown images that can't be used")
    return Unknown(values["score"], float(values["threshold"]))
