"""Blocks that are computed again in the backward pass: the same results from fewer kept bytes."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from effnet.kernels.accelerate import accelerate
from effnet.kernels.workload import Workload
from effnet.models.config import MODEL_CONFIGS
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import StochasticDepth
from effnet.quantization.model import build as build_quantized
from effnet.training.recompute import recompute_blocks
from effnet.training.run import train
from tests.runs import quick_recipe
from tests.training.resumed import assert_equal, assert_same

SMALL = {"width": 0.25, "depth": 0.3, "num_classes": 5, "dropout": 0.2, "survival_prob": 0.5}


def network(name: str) -> EfficientNet:
    torch.manual_seed(0)
    config = replace(MODEL_CONFIGS[name], **SMALL)
    return (build_quantized if config.quantized else EfficientNet)(config).to(
        memory_format=torch.channels_last
    )


def pixels() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def trained(model: nn.Module) -> list[dict[str, Tensor]]:
    """Gradients, and the state after two passes with the random numbers of a step."""
    model.train()
    torch.manual_seed(2)
    for _ in range(2):
        model(pixels()).square().mean().backward()
    return [{name: p.grad for name, p in model.named_parameters() if p.grad is not None}, model.state_dict()]


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-v2-s", "efficientnet-quant-b0"])
def test_gradients_and_statistics_are_the_same_bit_for_bit(name: str) -> None:
    plain = network(name)
    other = recompute_blocks(deepcopy(plain))
    assert other.state_dict().keys() == plain.state_dict().keys()
    expected, found = trained(plain), trained(other)
    assert len(expected[0]) > 20
    assert_equal(found, expected)


def test_with_our_kernels_and_a_frozen_part() -> None:
    plain = accelerate(network("efficientnet-b0"), Workload(4, 64, None, False, channels_last=True))
    plain.layers[0].requires_grad_(False)
    other = recompute_blocks(deepcopy(plain))
    assert_equal(trained(other), trained(plain))


def test_a_copy_is_of_its_own_and_evaluates_as_before() -> None:
    model = recompute_blocks(network("efficientnet-b0"))
    copied = deepcopy(model).eval()
    nn.init.zeros_(model.layers[0][0].proj.conv.weight)
    with torch.no_grad():
        torch.testing.assert_close(copied(pixels()), network("efficientnet-b0").eval()(pixels()))


def test_fewer_bytes_are_kept_for_the_backward_pass() -> None:
    kept = []
    for model in (network("efficientnet-b0"), recompute_blocks(network("efficientnet-b0"))):
        with torch.profiler.profile(profile_memory=True) as profile:
            loss = model(pixels()).sum()
        kept.append(sum(event.self_cpu_memory_usage for event in profile.events()))
        loss.backward()
    assert kept[1] < 0.5 * kept[0]


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
def test_compiled_blocks_are_one_graph_and_learn_statistics_once(fresh_compiler: None) -> None:
    model = network("efficientnet-b0").double()
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.survival_prob = 1.0  # compiled code draws other numbers
    plain, x = model.layers[:2], torch.randn(4, model.stem.conv.out_channels, 32, 32).double()
    other = recompute_blocks(deepcopy(model)).layers[:2]
    made = torch.compile(other, fullgraph=True, backend="aot_eager_decomp_partition")
    results = []
    for part, called in ((plain, plain), (other, made)):
        called(x).square().mean().backward()
        results.append([{name: p.grad for name, p in part.named_parameters()}, part.state_dict()])
    torch.testing.assert_close(results[1], results[0])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_a_run_ends_with_the_same_checkpoint(images: Path, tmp_path: Path) -> None:
    for name, recompute in (("without", False), ("with", True)):
        train(
            quick_recipe(
                tmp_path / name,
                epochs=1,
                survival_prob=0.7,
                use_ema=0.9,
                optimizer_batch_size=16,
                recompute=recompute,
            ),
            images,
        )
    assert_same(tmp_path / "without", tmp_path / "with")
