"""The strength of an automatic augmentation: how many times it is applied to an image, on average."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from effnet.data.augmentations.form import DaliForm, DaliOperation, PixelForm
from effnet.data.decode import Pixels


def times(strength: float, random: np.random.Generator) -> int:
    """Draw how often an image is augmented, `strength` on average; nothing is drawn for a whole number."""
    whole = math.floor(strength)
    return whole + (random.random() < strength - whole) if strength > whole else whole


@dataclass(frozen=True)
class _Repeated:
    form: PixelForm
    strength: float

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        for _ in range(times(self.strength, random)):
            pixels = self.form(pixels, random)
        return pixels


def repeated(form: PixelForm | None, strength: float) -> PixelForm | None:
    """Return a form that applies `form` `strength` times on average; None for one that changes nothing."""
    if form is None or strength == 0:
        return None
    return form if strength == 1 else _Repeated(form, strength)


def repeated_dali(form: DaliForm | None, strength: float) -> DaliForm | None:
    """Return a DALI form that draws what `repeated` draws; None for one that changes nothing."""
    if form is None or strength == 0:
        return None
    if strength == 1:
        return form
    from effnet.data.dali.library import augmentations  # an optional package, slow to import

    identity = DaliOperation("identity", augmentations.identity)
    once, most, draw_once = len(form.stages), math.ceil(strength), form.draw

    def draw(random: np.random.Generator) -> npt.NDArray[np.int32]:
        numbers = np.zeros((most, once, 3), np.int32)
        for number in range(times(strength, random)):
            numbers[number] = draw_once(random) + np.array([1, 0, 0], np.int32)
        return numbers.reshape(-1, 3)

    return replace(form, stages=[[identity, *stage] for stage in form.stages] * most, draw=draw)
