"""TrivialAugment, wide (arXiv 2103.10158): one operation at a random magnitude."""

from functools import partial

import numpy as np
import numpy.typing as npt

from effnet.data.augmentations.form import Augmentation, DaliForm, DaliOperation
from effnet.data.augmentations.torchvision_form import TorchvisionForm

_NUM_BINS = 31


def _dali(side: int) -> DaliForm:
    from effnet.data.dali.library import trivial_augment

    suite = trivial_augment.get_trivial_augment_wide_suite()
    operations = [DaliOperation(operation.name, operation) for operation in suite]

    def draw(random: np.random.Generator) -> npt.NDArray[np.int32]:
        return random.integers([len(operations), _NUM_BINS, 2], size=(1, 3), dtype=np.int32)

    return DaliForm([operations], _NUM_BINS, draw)


AUGMENTATION = Augmentation(
    "trivialaugment",
    "TrivialAugment, wide (arXiv 2103.10158): one operation at a random magnitude",
    pixels=partial(TorchvisionForm, "TrivialAugmentWide"),
    dali=_dali,
)
