"""The parts of a model from its classifier down to its stem, which fine-tuning treats differently."""

from torch import nn

from effnet.models.efficientnet import EfficientNet


def parts_of(model: EfficientNet) -> list[nn.Module]:
    """Return classifier, last stage with the head, the other stages, and stem: what fine-tuning changes most first."""
    last = nn.ModuleList([model.features, model.layers[-1]])
    return [model.classifier, last, *reversed(model.layers[:-1]), model.stem]
