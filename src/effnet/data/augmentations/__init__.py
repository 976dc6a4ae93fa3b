"""Automatic augmentations, one file each with its Pillow and its DALI form side by side.

A new one is a file that makes an `Augmentation`, a row here, and its name among the choices of
`effnet.recipe.DataSettings.augmentation`.
"""

from effnet.data.augmentations.autoaugment import AUTOAUGMENT
from effnet.data.augmentations.autoaugment_torchvision import AUTOAUGMENT_TORCHVISION
from effnet.data.augmentations.form import Augmentation, DaliForm, DaliOperation, PillowForm
from effnet.data.augmentations.none import NONE
from effnet.data.augmentations.randaugment import RANDAUGMENT
from effnet.data.augmentations.trivialaugment import TRIVIALAUGMENT

__all__ = ["AUGMENTATIONS", "Augmentation", "DaliForm", "DaliOperation", "PillowForm"]

AUGMENTATIONS: dict[str, Augmentation] = {
    row.name: row for row in (NONE, AUTOAUGMENT, AUTOAUGMENT_TORCHVISION, RANDAUGMENT, TRIVIALAUGMENT)
}
"""the registry, by the value of ``--augmentation``"""
