"""The network: stem, stages of blocks, head and classifier."""

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from effnet.models.config import ModelConfig, StageConfig
from effnet.models.layers import BLOCKS, Classifier, ConvBNAct


class EfficientNet(nn.Module):
    """EfficientNet (arXiv 1905.11946) or EfficientNetV2 (arXiv 2104.00298), as `config` describes it.

    Keys of the state dict: ``stem.*``, ``layers.S.blockK.*`` for block K of stage S, ``features.*``,
    ``classifier.fc.*``.

    Example:
        >>> import torch
        >>> from effnet.models.config import MODEL_CONFIGS
        >>> model = EfficientNet(MODEL_CONFIGS["efficientnet-b0"]).eval()
        >>> model(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1000])
    """

    metadata: Any = None
    """`effnet.weights.WeightsMetadata` of the loaded weights, None before; not part of the state dict"""

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
        """Return the outputs of the stages and of the head, for use as a backbone.

        Args:
            x: as in `forward`.

        Returns:
            ``layer1``, ``layer2`` and so on, the outputs of the stages, and ``features``, the output of the head. Their
            shapes are (N, C, H / s, W / s), rounded up, where s is the product of the strides so far: 2, 4, 8, 16, 16,
            32, 32 and 32 in models of seven stages; V2-S and V2-B0 to V2-B3 have six, without the second to last.
        """
        outputs = {}
        x = self.stem(x)
        for number, layer in enumerate(self.layers, start=1):
            x = outputs[f"layer{number}"] = layer(x)
        outputs["features"] = self.features(x)
        return outputs

    def get_classifier(self) -> nn.Linear:
        """Return the linear layer that computes the logits from the pooled features."""
        return self.classifier.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a freshly initialised one on the same device.

        Args:
            num_classes: number of logits that it returns.
        """
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
                blocks[f"block{index}"] = BLOCKS[stage.kind](config, stage, index == 0, survival_prob)
                built += 1
            layers.append(nn.Sequential(blocks))
        return layers

    @torch.no_grad()
    def _initialise(self, config: ModelConfig) -> None:
        """Initialise convolutions as He et al. (arXiv 1502.01852) and biases with zeros; leave the rest to PyTorch."""
        if self.stem.conv.weight.is_meta:
            return  # no values to set, and the calls take seconds for the large models
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode=config.conv_init, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
