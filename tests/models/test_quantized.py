"""Quantized models: the published files' entries, arithmetic that is ONNX's, and forms that keep it."""

import copy
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("modelopt")

from effnet import create_model
from effnet.models import ModelError, build_model
from effnet.models.config import MODEL_CONFIGS
from effnet.models.efficientnet import EfficientNet
from effnet.models.inference_form import inference_form
from effnet.models.kernels import cpu_depthwise
from effnet.models.layers import Conv2d
from effnet.models.quantized import QuantSqueezeExcitation, quantizers_of, weighted_layers
from effnet.models.quantizer import Quantizer
from effnet.models.weights import load_weights, save_weights


def small(name: str) -> EfficientNet:
    """A model of a few narrow blocks, with BatchNorm's statistics of something seen."""
    torch.manual_seed(0)
    model = EfficientNet(replace(MODEL_CONFIGS[name], width=0.25, depth=0.3, num_classes=10))
    model.train()
    for _ in range(3):
        model(torch.randn(8, 3, 64, 64))
    return model.eval()


def ranged(model: EfficientNet, *, asymmetric: bool = True) -> EfficientNet:
    """With ranges for all quantizers that are on."""
    for layer in weighted_layers(model).values():
        layer._weight_quantizer.follow(layer.weight)
    for quantizer in quantizers_of(model).values():
        if quantizer.is_on and not quantizer.shape:
            quantizer.switch(True, asymmetric=asymmetric)
            quantizer.set_range(-0.3, 4.0)
    return model


@pytest.mark.parametrize("name", ["efficientnet-quant-b0", "efficientnet-quant-b4"])
def test_keys_and_shapes_in_order(name: str, shapes: dict[str, dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in build_model(name).state_dict().items()}
    assert list(ours.items()) == list(shapes[name].items())


def test_a_published_file_brings_its_ranges(
    shapes: dict[str, dict[str, list[int]]], deterministic: ModuleType, tmp_path: Path
) -> None:
    name = "efficientnet-quant-b0"
    published = {}
    for key, shape in shapes[name].items():
        stage = re.sub(
            r"^layers\.(\d)", lambda found: f"layer{int(found[1]) + 1}", key
        )  # as version 21.03.0 has it
        values = np.abs(np.asarray(deterministic.fill(key, tuple(shape)), dtype=np.float32)) + 0.01
        published[f"module.{stage}"] = torch.tensor(values)
    torch.save(published, tmp_path / "weights.pth")
    model = create_model(name, weights=tmp_path / "weights.pth")
    loaded = model.state_dict()
    for key in ("layers.3.block1.se.mul_b_quantizer._amax", "stem.conv._weight_quantizer._amax"):
        theirs = published["module." + key.replace("layers.3.", "layer4.")]
        assert torch.equal(loaded[key], theirs)
    assert all(quantizer.has_range for quantizer in quantizers_of(model).values() if quantizer.is_on)
    # A file of which some quantizers are missing, as --keep-float leaves it, switches those off.
    partial = {key: value for key, value in loaded.items() if not key.startswith("stem.conv._")}
    save_weights(tmp_path / "partial.pth", partial)
    report = load_weights(model, tmp_path / "partial.pth")
    assert report.quantizer_entries == 0
    assert not model.stem.conv._input_quantizer.is_on
    assert model.state_dict().keys() == partial.keys()


def test_float_weights_load_and_give_the_float_model_until_calibrated(tmp_path: Path) -> None:
    plain, quantized = small("efficientnet-b0"), small("efficientnet-quant-b0")
    quantized.load_state_dict(
        {key: value.reshape(quantized.state_dict()[key].shape) for key, value in plain.state_dict().items()}
    )
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(quantized(x), plain(x), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(ranged(quantized)(x), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(), (6, 1, 1, 1)])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_rounding_is_that_of_pytorch_s_operator(shape: tuple[int, ...], asymmetric: bool) -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(shape)
    quantizer.switch(True, asymmetric=asymmetric)
    x = torch.randn(6, 8, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    if shape:
        quantizer.follow(x)
        zeros = torch.zeros(6, dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(
            x, quantizer.channel_scales().flatten(), zeros, 0, -127, 127
        )
    else:
        quantizer.set_range(-0.278, 1.5)
        grid = quantizer.grid
        assert (grid.zero_point == 0) != asymmetric
        assert grid.low <= -0.278 + grid.scale / 2
        assert grid.high >= 1.5 - grid.scale / 2
        expected = torch.fake_quantize_per_tensor_affine(x, grid.scale, grid.zero_point, -128, 127)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), x)
    ours = quantizer.eval()(x)
    (gradient,) = torch.autograd.grad(ours.sum(), x)
    # Multiplying by 1 / scale moves what lies halfway between two levels by a step, now and then.
    differs = (ours - expected).abs() > 1e-6
    assert differs.float().mean() < 0.01
    assert torch.equal(gradient, expected_gradient)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert (quantizer(torch.zeros(6, 8)) == 0).all()


def test_half_precision_keeps_its_type() -> None:
    quantizer = Quantizer()
    quantizer.set_range(-1.0, 1.0)
    x = torch.linspace(-2, 2, 50, dtype=torch.bfloat16)
    rounded = quantizer(x)
    assert rounded.dtype == torch.bfloat16
    assert rounded.min() >= -1.02
    assert (rounded - x.clamp(-1, 1)).abs().max() <= 0.01


def test_weights_ranges_follow_them_in_training_only() -> None:
    quantizer = Quantizer((4, 1))
    weight = torch.randn(4, 3)
    quantizer.follow(weight)
    quantizer.eval()(weight * 2)
    assert torch.equal(quantizer._amax.flatten(), weight.abs().amax(1))
    quantizer.train()(weight * 2)
    assert torch.equal(quantizer._amax.flatten(), 2 * weight.abs().amax(1))


def test_state_dicts_switch_quantizers_on() -> None:
    one, other = Quantizer(), Quantizer(is_on=False)
    one.switch(True, asymmetric=True)
    one.set_range(-0.5, 2.0)
    other.load_state_dict(one.state_dict())
    assert other.grid == one.grid
    with pytest.raises(RuntimeError, match="has 1 numbers, not 4"):
        Quantizer((4, 1)).load_state_dict({"_amax": torch.ones(())})


@pytest.mark.parametrize("name", ["efficientnet-quant-b0", "efficientnet-quant-lite0"])
@pytest.mark.parametrize("unsigned", [False, True])
def test_the_form_for_engines_is_the_same_function(name: str, unsigned: bool) -> None:
    model = ranged(small(name))
    form = inference_form(model, unsigned=unsigned)
    assert not [module for module in form.modules() if isinstance(module, Quantizer | torch.nn.BatchNorm2d)]
    x = torch.randn(32, 3, 64, 64)
    with torch.no_grad():
        logits, expected, ours = model(x), with_pytorchs_operators(model)(x), form(x)
    # Folding BatchNorm moves some values over the edge between two levels, in some of the images.
    assert (expected - ours).abs().amax(1).quantile(0.4) <= 1e-5
    # So does the operator itself, which multiplies by the step's length where the model divides by its inverse.
    assert (logits.argmax(1) == ours.argmax(1)).float().mean() >= 0.9


class Operator(torch.nn.Module):
    """PyTorch's own operator in a quantizer's place."""

    only_rounds_to, only_collects, is_on = None, False, True

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        if self.quantizer.shape:
            scales = self.quantizer.channel_scales().flatten()
            zeros = torch.zeros_like(scales, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(x, scales, zeros, 0, -127, 127)
        grid = self.quantizer.grid
        return torch.fake_quantize_per_tensor_affine(x, grid.scale, grid.zero_point, -128, 127)


def with_pytorchs_operators(model: EfficientNet) -> EfficientNet:
    model = copy.deepcopy(model)
    for name, quantizer in quantizers_of(model).items():
        if quantizer.is_on:
            model.set_submodule(name, Operator(quantizer))
    return model


def test_compiles(tmp_path: Path) -> None:
    model = ranged(small("efficientnet-quant-lite0"))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        compiled: Tensor = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
        assert (compiled - model(x)).abs().max() <= 0.1 * compiled.abs().max()


def test_gradients_reach_all_weights() -> None:
    model = ranged(small("efficientnet-quant-b0")).train()
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_quantized_file_is_recognised(tmp_path: Path) -> None:
    from effnet.models.weights import load_model

    save_weights(tmp_path / "w.pth", build_model("efficientnet-quant-lite0").state_dict())
    assert load_model(tmp_path / "w.pth").config.name == "efficientnet-quant-lite0"
    with pytest.raises(ModelError, match=r"efficientnet-quant-lite0, not of efficientnet-quant-lite2"):
        create_model("efficientnet-quant-lite2", weights=tmp_path / "w.pth")


def test_the_depthwise_kernel_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    model = ranged(small("efficientnet-quant-b0")).train().to(memory_format=torch.channels_last)
    depthwise = [layer for layer in model.modules() if isinstance(layer, Conv2d) and layer.groups > 1]
    x = torch.randn(8, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    gradients = []
    for use in (False, True):
        for layer in depthwise:
            layer.cpu_kernel = use and cpu_depthwise.is_available()
        model.zero_grad()
        torch.manual_seed(1)
        model(x).square().sum().backward()
        gradients.append({key: value.grad.clone() for key, value in model.named_parameters()})
    for key, reference in gradients[0].items():
        assert (gradients[1][key] - reference).abs().max() <= 1e-3 * reference.abs().max() + 1e-6, key


def test_pooling_and_product_share_a_rounding_only_of_the_same_range() -> None:
    model = ranged(small("efficientnet-quant-b0"))
    se = next(module for module in model.modules() if isinstance(module, QuantSqueezeExcitation))
    x = torch.randn(2, se.squeeze.in_channels, 6, 6)
    with torch.no_grad():
        together = se(x)
        se.pooling._input_quantizer.enable_calib()  # looks at its input by itself
        se.pooling._input_quantizer._calibrator = seen = Recorder()
        assert torch.equal(se(x), together)
        assert torch.equal(seen.last, x)
        se.pooling._input_quantizer.disable_calib()
        se.pooling._input_quantizer.set_range(-0.1, 0.1)
        assert not torch.equal(se(x), together)


class Recorder:
    """A calibrator that keeps what it is shown."""

    def collect(self, x: Tensor) -> None:
        self.last = x
