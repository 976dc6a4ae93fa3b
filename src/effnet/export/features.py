"""The network without its classifier, as exported files have it that return features."""

import typing

from torch import Tensor, nn

from effnet.models.efficientnet import EfficientNet
from effnet.recipe.choices import FeaturesName
from effnet.runtime.errors import UserError


class FeatureExtractor(nn.Module):
    """The features that a model computes before its classifier.

    Args:
        model: has `extract_features`, as `EfficientNet`.
        kind: ``map`` for the head's output (N, C, H, W), ``pooled`` for its mean over height and width (N, C).

    Raises:
        UserError: it has none.
    """

    def __init__(self, model: nn.Module, kind: FeaturesName) -> None:
        super().__init__()
        if not hasattr(model, "extract_features"):
            raise UserError(f"--features: {type(model).__name__} has no extract_features; export its logits")
        self.model, self.kind = typing.cast(EfficientNet, model), kind

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of normalised images (N, 3, H, W)."""
        features = self.model.extract_features(images)["features"]
        return features.mean((2, 3)) if self.kind == "pooled" else features
