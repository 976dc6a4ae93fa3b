"""Automatic augmentations, one file each with its form on pixels and its DALI form side by side.

A new one is a module here that makes an `AUGMENTATION`, and its name in `effnet.recipe.choices.AugmentationName`.
"""

from effnet.data.augmentations.form import Augmentation, DaliForm, DaliOperation, PixelForm
from effnet.data.augmentations.strength import repeated, repeated_dali
from effnet.recipe.choices import AugmentationName
from effnet.runtime.registry import ModuleRegistry

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "DaliForm",
    "DaliOperation",
    "PixelForm",
    "repeated",
    "repeated_dali",
]

AUGMENTATIONS: ModuleRegistry[Augmentation] = ModuleRegistry(AugmentationName, __name__, "AUGMENTATION")
"""the registry, by the value of ``--augmentation``"""
