"""The network: stem, seven stages of MBConv blocks, head and classifier."""

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from effnet.models.config import ModelConfig, StageConfig
from effnet.models.layers import Classifier, ConvBNAct, MBConv


class EfficientNet(nn.Module):
    """EfficientNet as `config` describes it (arXiv 1905.11946).

    State-dict keys: ``stem.*``, ``layers.0.block0.*`` to ``layers.6.blockK.*``, ``features.*``, ``classifier.fc.*``.

    Example:
        >>> import torch
        >>> from effnet.models.config import MODEL_CONFIGS
        >>> model = EfficientNet(MODEL_CONFIGS["efficientnet-b0"]).eval()
        >>> model(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1000])
    """

    metadata: Any = None
    """`effnet.weights.WeightsMetadata` of the weights that were loaded, None before; not part of the state dict."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        stages = config.stages()
        self.stem = ConvBNAct(config, 3, config.stem_channels, kernel_size=3, stride=2)
        self.layers = nn.Sequential(*self._build_stages(config, stages))
        self.features = ConvBNAct(config, stages[-1].out_channels, config.head_channels)
        self.classifier = Classifier(config.head_channels, config.num_classes, config.dropout)
        self._initialise(config)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch.

        Args:
            x: normalised images, floating point, shape (N, 3, H, W); any H and W of at least 32.

        Returns:
            Logits of shape (N, num_classes).
        """
        return self.classifier(self.features(self.layers(self.stem(x))))

    def extract_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the feature maps at every scale, for use as a backbone.

        Args:
            x: as in `forward`.

        Returns:
            ``layer1`` to ``layer7``, the outputs of the stages, and ``features``, the head's: shapes
            (N, C, H / s, W / s) with s = 2, 4, 8, 16, 16, 32, 32 and 32, rounded up.
        """
        outputs = {}
        x = self.stem(x)
        for number, layer in enumerate(self.layers, start=1):
            x = outputs[f"layer{number}"] = layer(x)
        outputs["features"] = self.features(x)
        return outputs

    def get_classifier(self) -> nn.Linear:
        """Return the layer that makes logits of the pooled features."""
        return self.classifier.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one for another number of classes, on the same device."""
        old = self.classifier.fc
        self.classifier.fc = nn.Linear(
            old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype
        )
        nn.init.zeros_(self.classifier.fc.bias)
        self.config = replace(self.config, num_classes=num_classes)

    @staticmethod
    def _build_stages(config: ModelConfig, stages: tuple[StageConfig, ...]) -> list[nn.Module]:
        total = sum(stage.depth for stage in stages)
        built = 0
        layers: list[nn.Module] = []
        for stage in stages:
            blocks = OrderedDict[str, nn.Module]()
            for index in range(stage.depth):
                survival_prob = 1.0 - (1.0 - config.survival_prob) * built / total
                blocks[f"block{index}"] = MBConv(config, stage, index == 0, survival_prob)
                built += 1
            layers.append(nn.Sequential(blocks))
        return layers

    @torch.no_grad()
    def _initialise(self, config: ModelConfig) -> None:
        """He initialisation (arXiv 1502.01852) of convolutions; zero biases; the rest as PyTorch does it."""
        if self.stem.conv.weight.is_meta:
            return  # nothing to fill, and pretending takes seconds for the large models
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode=config.conv_init, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
