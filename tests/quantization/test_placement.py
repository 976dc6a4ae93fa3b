"""The table of places: every quantizer has a row, and NVIDIA's are those for TensorRT."""

import pytest
import torch

from effnet import create_model
from effnet.models.efficientnet import EfficientNet
from effnet.quantization.layers import quantizers_of, weighted_layers
from effnet.quantization.placement import PLACEMENT, place_quantizers, row_of
from effnet.quantization.targets import TARGETS
from effnet.recipe.choices import TargetName
from effnet.runtime.errors import UserError
from tests.quantization.test_layers import small


@pytest.fixture
def model() -> EfficientNet:
    with torch.device("meta"):
        return create_model("efficientnet-quant-b0")


def on(model: EfficientNet) -> set[str]:
    return {name for name, quantizer in quantizers_of(model).items() if quantizer.is_on}


def test_every_quantizer_has_a_row_and_every_row_a_quantizer(model: EfficientNet) -> None:
    rows = [row_of(name) for name in quantizers_of(model)]
    assert set(rows) == set(PLACEMENT)


def test_tensorrt_s_are_the_document_s(model: EfficientNet, shapes: dict[str, dict[str, list[int]]]) -> None:
    place_quantizers(model, "onnxruntime")
    place_quantizers(model, "tensorrt")
    assert list(model.state_dict()) == list(shapes["efficientnet-quant-b0"])


@pytest.mark.parametrize("target", TARGETS)
def test_only_tensorrt_has_no_zero_points(model: EfficientNet, target: TargetName) -> None:
    place_quantizers(model, target)
    activations = [q for q in quantizers_of(model).values() if q.is_on and not q.shape]
    assert {quantizer.is_asymmetric for quantizer in activations} == {target != "tensorrt"}


def test_onnxruntime_s_convolutions_have_quantized_ends(model: EfficientNet) -> None:
    place_quantizers(model, "openvino")
    less = on(model)
    place_quantizers(model, "onnxruntime")
    assert less < on(model)
    assert "layers.1.block1.expand.act._input_quantizer" in on(model) - less
    assert "layers.1.block1.branch_quantizer" in on(model) - less


def test_layers_that_stay_float(model: EfficientNet) -> None:
    place_quantizers(model, "tensorrt", ["stem", "layers.*.se.squeeze", "classifier.fc"])
    off = {name for name in quantizers_of(model) if row_of(name).targets == tuple(TARGETS)} - on(model)
    assert {name.rpartition(".")[0] for name in off} == {
        "stem.conv",
        "classifier.fc",
        *(name.rpartition(".")[0] for name in quantizers_of(model) if ".se.squeeze." in name),
    }
    with pytest.raises(UserError, match=r"no such layer; did you mean layers\.1\.block0\.depsep\.conv"):
        place_quantizers(model, "tensorrt", ["layers.1.block0.depsep.cnv"])


def test_a_float_model_has_no_places() -> None:
    with torch.device("meta"), pytest.raises(UserError, match="use --arch efficientnet-quant-lite0"):
        place_quantizers(create_model("efficientnet-lite0"), "tensorrt")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("reduce_range", [True, False])
def test_products_of_two_pairs_fit_in_16_bits_on_x86(target: TargetName, reduce_range: bool) -> None:
    """x86 without VNNI adds two products of an activation (up to 255) and a weight in a signed number of 16 bits."""
    model = small("efficientnet-quant-lite0")
    place_quantizers(model, target, reduce_range=reduce_range)
    most = 0.0
    for layer in weighted_layers(model).values():
        quantizer = layer._weight_quantizer
        quantizer.follow(layer.weight)
        quantizer.rounds = True
        integers = quantizer(layer.weight) / quantizer.channel_scales()
        torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-3)
        most = max(most, float(integers.abs().max().detach()))
    is_reduced = reduce_range and TARGETS[target].on_x86
    assert round(most) == (63 if is_reduced else 127)
    assert (2 * 255 * round(most) < 2**15) == is_reduced
