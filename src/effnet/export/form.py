"""The network in the form that engines run fastest: the same function of the image with fewer operations."""

import copy

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import Conv2d, ConvBNAct, SqueezeExcitation
from effnet.models.replace import replace_modules
from effnet.quantization.exported import export_form


class ConvSqueezeExcitation(nn.Module):
    """Squeeze-and-excitation with its two matrices as 1x1 convolutions.

    All tensors stay images of one pixel, so that an engine with a channel-blocked layout of its own (onnxruntime's
    NCHWc) does not have to convert them for a matrix product.
    """

    def __init__(self, se: SqueezeExcitation) -> None:
        super().__init__()
        self.squeeze = _as_convolution(se.squeeze)
        self.act = se.act
        self.expand = _as_convolution(se.expand)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        gate = self.expand(self.act(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        return x * gate.sigmoid()


def inference_form(model: nn.Module, *, unsigned: bool = True) -> nn.Module:
    """Return a copy of `model` for inference: BatchNorm folded into convolutions, squeeze-and-excitation as 1x1 ones.

    Only this package's own layers are changed. A quantized model's form is `effnet.quantization.exported.export_form`.

    Args:
        model: any module.
        unsigned: store a quantized model's activations as uint8, not int8.

    Returns:
        A model in evaluation mode on the same device; its state dict has other entries.
    """
    if isinstance(model, EfficientNet) and model.config.quantized:
        return export_form(model, unsigned=unsigned)
    return replace_modules(copy.deepcopy(model).eval(), _for_inference)


def _for_inference(module: nn.Module) -> nn.Module:
    if type(module) is ConvBNAct and isinstance(module.conv, Conv2d) and type(module.bn) is nn.BatchNorm2d:
        module.conv = fuse_conv_bn_eval(module.conv, module.bn)
        module.bn = nn.Identity()  # type: ignore[assignment]  # the same interface
    if type(module) is SqueezeExcitation and type(module.squeeze) is nn.Linear:
        return ConvSqueezeExcitation(module)
    return module


def _as_convolution(linear: nn.Linear) -> nn.Conv2d:
    weight = linear.weight
    made = nn.Conv2d(linear.in_features, linear.out_features, 1, device=weight.device, dtype=weight.dtype)
    made.weight = nn.Parameter(weight.detach()[:, :, None, None], requires_grad=False)
    made.bias = linear.bias
    return made
