"""Properties of every member of the family."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from effnet.models import build_model, list_models, model_config
from effnet.models.config import MODEL_CONFIGS, round_channels
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import StochasticDepth
from effnet.models.profile import profile
from effnet.runtime.errors import UserError

SIZES = {"b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600}


def tiny(**overrides: object) -> EfficientNet:
    """A model of the same form that is quick to run and compile."""
    config = replace(MODEL_CONFIGS["efficientnet-b0"], width=0.25, depth=0.3, num_classes=10)
    return EfficientNet(replace(config, **overrides))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["", "widese-"])
@pytest.mark.parametrize(("member", "size"), SIZES.items())
def test_published_sizes_and_regularisation(family: str, member: str, size: int) -> None:
    config = model_config(f"efficientnet-{family}{member}")
    assert config.image_size == size
    assert config.survival_prob == (0.8 if member in ("b4", "b5", "b6", "b7") else 1.0)
    assert config.dropout == {"b0": 0.2, "b1": 0.2, "b2": 0.3, "b3": 0.3, "b4": 0.4, "b5": 0.4}.get(
        member, 0.5
    )
    assert (config.bn_momentum, config.bn_epsilon) == (0.01, 1e-3)


def test_widese_squeezes_the_expanded_width() -> None:
    with torch.device("meta"):
        plain, wide = build_model("efficientnet-b0"), build_model("efficientnet-widese-b0")
    shapes = {k: v.shape for k, v in plain.state_dict().items()}
    for key, value in wide.state_dict().items():
        if key.endswith("se.squeeze.weight"):
            assert value.shape[0] == value.shape[1] // 4
            assert shapes[key][1] == value.shape[1]


def test_rounding_never_loses_more_than_a_tenth() -> None:
    for factor in (1.1, 1.2, 1.4, 1.6, 1.8, 2.0):
        for channels in (16, 24, 32, 40, 80, 112, 192, 320, 1280):
            rounded = round_channels(channels, factor)
            assert rounded % 8 == 0
            assert rounded >= 0.9 * channels * factor


def test_overrides() -> None:
    model = build_model(
        "efficientnet-b0",
        num_classes=7,
        dropout=0.1,
        survival_prob=0.5,
        activation="relu",
        bn_momentum=0.1,
        bn_epsilon=1e-5,
    )
    assert model.classifier.fc.out_features == 7
    assert model.classifier.dropout.p == 0.1
    assert isinstance(model.stem.act, torch.nn.ReLU)
    assert (model.stem.bn.momentum, model.stem.bn.eps) == (0.1, 1e-5)
    survival = [m.survival_prob for m in model.modules() if isinstance(m, StochasticDepth)]
    assert survival[0] == 1.0
    assert survival[-1] == pytest.approx(1 - 0.5 * 15 / 16)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"dropout": 1.0}, "dropout"),
        ({"survival_prob": 0.0}, "survival_prob"),
        ({"activation": "swoosh"}, "activation"),
        ({"width_factor": 2}, "width_factor"),
    ],
)
def test_overrides_out_of_range(overrides: dict[str, object], word: str) -> None:
    with pytest.raises(UserError, match=word):
        model_config("efficientnet-b0", **overrides)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'efficientnet-b4'"):
        build_model("eficientnet-b4")


def test_he_initialisation_by_fan_in() -> None:
    torch.manual_seed(0)
    weight = build_model("efficientnet-b0").features.conv.weight
    assert weight.std().item() == pytest.approx((2 / 320) ** 0.5, rel=0.01)


def test_features_are_the_stages_outputs() -> None:
    model = tiny().eval()
    x = torch.randn(2, 3, 75, 64)
    with torch.no_grad():
        features = model.extract_features(x)
        logits = model(x)
        assert torch.equal(model.classifier(features["features"]), logits)
    assert list(features) == [f"layer{i}" for i in range(1, 8)] + ["features"]
    sides = [(f.shape[2], f.shape[3]) for f in features.values()]
    assert sides == [(38, 32), (19, 16), (10, 8), (5, 4), (5, 4), (3, 2), (3, 2), (3, 2)]
    assert [f.shape[1] for f in features.values()][:7] == [s.out_channels for s in model.config.stages()]


def test_stochastic_depth_drops_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = StochasticDepth(0.8)
    shortcut, residual = torch.full((4000, 2, 1, 1), 10.0), torch.ones(4000, 2, 1, 1)
    y = layer.train()(shortcut, residual)
    assert set(y.unique().tolist()) == {10.0, 11.25}
    assert torch.equal(y[:, 0], y[:, 1])
    assert y.mean().item() == pytest.approx(11.0, abs=0.03)
    assert torch.equal(layer.eval()(shortcut, residual), shortcut + residual)


@pytest.mark.parametrize("name", list_models())
def test_every_model_runs_at_its_own_size(name: str) -> None:
    assert profile(name).image_size == model_config(name).image_size


def test_published_work_of_b0() -> None:
    counted = profile("efficientnet-b0")
    assert counted.macs == pytest.approx(0.39e9, rel=0.02)
    assert counted.activations == pytest.approx(6.75e6, rel=0.001)


def test_channels_last_is_kept_to_the_end() -> None:
    model = tiny().eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for name, feature in model.extract_features(x).items():
            assert feature.is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_export_with_a_dynamic_batch(padding: str) -> None:
    model = tiny(padding=padding).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 64),), dynamic_shapes={"x": {0: batch}})
    x = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_graph_breaks(training: bool) -> None:
    model = tiny(dropout=0.0, survival_prob=0.9).train(training)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager" if training else "inductor")
    x = torch.randn(4, 3, 64, 64)
    if training:
        # Random choices differ between the two; that it runs as one graph, with gradients, is what is tested.
        compiled(x).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    else:
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_parameter() -> None:
    model = tiny()
    loss: Tensor = model(torch.randn(2, 3, 64, 64)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_another_classifier() -> None:
    model = build_model("efficientnet-lite0", image_size=32)
    features = model.get_classifier().in_features
    model.reset_classifier(7)
    assert model.get_classifier() is model.classifier.fc
    assert model.config.num_classes == 7
    assert model.get_classifier().weight.shape == (7, features)
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert {key for key in model.state_dict() if "classifier" in key} == {
        "classifier.fc.weight",
        "classifier.fc.bias",
    }
