"""Training images as crop and flip leave them."""

from effnet.data.augmentations.form import Augmentation

AUGMENTATION = Augmentation("none", "Crop and flip alone", pixels=lambda: None, dali=lambda side: None)
