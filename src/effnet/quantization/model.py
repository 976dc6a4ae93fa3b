"""Quantization as a transformation of a finished model: layers are replaced by those with quantizers in them."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from effnet.models.config import MODEL_CONFIGS, ModelConfig
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import Classifier, ConvBNAct, FusedMBConv, MBConv, SqueezeExcitation
from effnet.models.replace import replace_modules
from effnet.quantization.layers import (
    QuantClassifier,
    QuantConv2d,
    QuantFusedMBConv,
    QuantMBConv,
    QuantSqueezeExcitation,
    quantized_activation,
    quantizers_of,
)


def quantize(model: EfficientNet) -> EfficientNet:
    """Replace the layers of a float model by quantized ones, in place. The weights stay.

    From then on, loading a state dict with quantizers' entries switches off those that have none in it; a float
    model's leaves them as they are.

    Args:
        model: plain, on any device.

    Returns:
        `model`, whose `config` is that of the quantized model (`ModelConfig.twin`).
    """
    replace_modules(model, _quantized)
    twin = MODEL_CONFIGS[model.config.twin]
    model.config = replace(model.config, name=twin.name, twin=twin.twin, quantized=True)
    model.register_load_state_dict_pre_hook(_switch_off_absent)
    return model


def build(config: ModelConfig) -> EfficientNet:
    """Return a freshly initialised model of a configuration, quantized if the configuration is."""
    if not config.quantized:
        return EfficientNet(config)
    twin = MODEL_CONFIGS[config.twin]
    return quantize(EfficientNet(replace(config, name=twin.name, twin=twin.twin, quantized=False)))


def _quantized(module: nn.Module) -> nn.Module:
    match module:
        case ConvBNAct():
            module.conv = QuantConv2d.of(module.conv)
            module.act = quantized_activation(module.act)
        case SqueezeExcitation():
            return QuantSqueezeExcitation(module)
        case MBConv():
            return QuantMBConv.of(module)
        case FusedMBConv():
            return QuantFusedMBConv.of(module)
        case Classifier():
            return QuantClassifier(module)
    return module


def _switch_off_absent(model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    if any(key.endswith("._amax") for key in state_dict):
        for name, quantizer in quantizers_of(model).items():
            if f"{prefix}{name}._amax" not in state_dict:
                quantizer.switch(False)
