"""DALI itself: the one module that imports it, whose error says what to install."""

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

try:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.auto_aug import augmentations, auto_augment, rand_augment, trivial_augment
    from nvidia.dali.auto_aug.core import signed_bin
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator, LastBatchPolicy
except ImportError:
    raise UserError(f"--data-backend dali-cpu and dali-gpu need DALI: {install_command('dali')}") from None

__all__ = [
    "INTERPOLATIONS",
    "DALIClassificationIterator",
    "LastBatchPolicy",
    "augmentations",
    "auto_augment",
    "fn",
    "pipeline_def",
    "rand_augment",
    "signed_bin",
    "trivial_augment",
    "types",
]

INTERPOLATIONS = {
    "nearest": types.INTERP_NN,
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
    "triangular": types.INTERP_TRIANGULAR,
}
