"""RandAugment (arXiv 1909.13719): two operations at magnitude 9 of 30."""

from functools import partial

import numpy as np
import numpy.typing as npt

from effnet.data.augmentations.form import Augmentation, DaliForm, DaliOperation
from effnet.data.augmentations.torchvision_form import TorchvisionForm

_STAGES, _MAGNITUDE, _NUM_BINS = 2, 9, 31


def _dali(side: int) -> DaliForm:
    from effnet.data.dali.library import rand_augment

    suite = rand_augment.get_rand_augment_suite(max_translate_abs=round(side * 100 / 224))
    operations = [DaliOperation(operation.name, operation) for operation in suite]

    def draw(random: np.random.Generator) -> npt.NDArray[np.int32]:
        numbers = random.integers([len(operations), 1, 2], size=(_STAGES, 3), dtype=np.int32)
        return numbers + np.array([0, _MAGNITUDE, 0], np.int32)

    return DaliForm([operations] * _STAGES, _NUM_BINS, draw)


AUGMENTATION = Augmentation(
    "randaugment",
    "RandAugment (arXiv 1909.13719), two operations at magnitude 9 of 30",
    pixels=partial(TorchvisionForm, "RandAugment"),
    dali=_dali,
)
