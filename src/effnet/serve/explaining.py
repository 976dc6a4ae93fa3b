"""From a photograph as it was sent to the picture of a heat map."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from effnet.data.decode import BadImageError
from effnet.inference.explain import Explainer, class_index, encoded_picture
from effnet.inference.images import NamedImage
from effnet.runtime.errors import UserError
from effnet.serve.models import Served
from effnet.serve.refusal import Refusal
from effnet.serve.upload import Upload


@dataclass(frozen=True)
class HeatMap:
    """The heat map of a photograph.

    Attributes:
        index: position of the explained class among the model's classes.
        jpeg: the photograph under the heat map.
    """

    index: int
    jpeg: bytes


async def heat_map(
    served: Served, upload: Upload, executor: Executor, *, label: str | None, max_pixels: int
) -> HeatMap:
    """Return the heat map of a photograph.

    Args:
        served: the model.
        upload: the photograph.
        executor: decodes it and computes, beside the thread that computes answers.
        label: the class: its name, its folder's name or its index; None for the most probable one.
        max_pixels: pixels that the photograph may have.

    Raises:
        Refusal: the model has no heat maps or no such class, or the photograph can't be decoded.
    """
    if served.explainer is None:
        engine = served.classifier.engine.name
        raise Refusal(
            422, f"{served.name} has no heat maps on {engine}; serve its weights with --engine torch"
        )
    index = None if label is None else _index(served, label)
    compute = partial(_computed, served.explainer, upload.image(max_pixels), index)
    return await asyncio.get_running_loop().run_in_executor(executor, compute)


def _index(served: Served, label: str) -> int:
    try:
        return class_index(served.classifier.engine, label)
    except UserError:
        raise Refusal(422, f"{served.name} has no class {label!r:.120}") from None


def _computed(explainer: Explainer, image: NamedImage, index: int | None) -> HeatMap:
    try:
        explanation = explainer(image, index)
    except BadImageError as error:
        raise Refusal(422, str(error)) from None
    return HeatMap(explanation.prediction.index, encoded_picture(explanation))
