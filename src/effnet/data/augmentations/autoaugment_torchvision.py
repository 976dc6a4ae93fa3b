"""AutoAugment (arXiv 1805.09501) with the ImageNet policy of that paper, as torchvision has it."""

from functools import partial

from effnet.data.augmentations.form import Augmentation, DaliForm, DaliOperation
from effnet.data.augmentations.sub_policies import Step, dali_form
from effnet.data.augmentations.torchvision_form import TorchvisionForm


def _dali(side: int) -> DaliForm:
    """Return DALI's policy ``reduced_image_net``: the same rows; other magnitudes in posterize, solarize and color."""
    from effnet.data.dali.library import augmentations, auto_augment

    policy = auto_augment.get_reduced_image_net_policy()
    sub_policies: list[list[Step]] = []
    operations: dict[str, DaliOperation] = {}
    for row in policy.sub_policies:
        sub_policies.append([Step(operation.name, share, level or 0) for operation, share, level in row])
        operations |= {operation.name: DaliOperation(operation.name, operation) for operation, _, _ in row}
    identity = DaliOperation("identity", augmentations.identity)
    return dali_form(sub_policies, operations, identity, policy.num_magnitude_bins)


AUGMENTATION = Augmentation(
    "autoaugment-torchvision",
    "AutoAugment with torchvision's ImageNet policy (arXiv 1805.09501)",
    pixels=partial(TorchvisionForm, "AutoAugment"),
    dali=_dali,
)
