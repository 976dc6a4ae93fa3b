"""Models whose blocks run the kernels (here: their plain PyTorch version) are the same models."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from effnet.kernels.accelerate import accelerate
from effnet.kernels.block import can_fuse
from effnet.kernels.choose import with_tile
from effnet.kernels.cpu_convolution import DenseConv2d, on_cpu
from effnet.kernels.workload import Workload
from effnet.models.config import MODEL_CONFIGS
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import MBConv
from effnet.models.replace import replace_modules


def small(base: str, **overrides: object) -> EfficientNet:
    config = replace(
        MODEL_CONFIGS[base], width=0.25, depth=0.3, num_classes=10, dropout=0.0, survival_prob=1.0
    )
    return EfficientNet(replace(config, **overrides))


def fused(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    workload = Workload(batch_size=4, image_size=64, dtype=None, compiled=False)

    def with_kernels(module: nn.Module) -> nn.Module:
        if not isinstance(module, MBConv):
            return module
        assert can_fuse(module)
        for training in (True, False):
            module = with_tile(module, 0, replace(workload, training=training))
        return module

    return replace_modules(model, with_kernels)


def stepped(model: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    logits = (model if run is None else run)(x)
    logits.float().square().mean().backward()
    return logits.detach()


@pytest.mark.parametrize("base", ["efficientnet-b0", "efficientnet-lite0"])
def test_a_training_step_is_the_same(base: str) -> None:
    torch.manual_seed(0)
    library = small(base).double()
    kernels = fused(library)
    for size in ((75, 64), (33, 50)):
        x = torch.randn(3, 3, *size, dtype=torch.float64)
        expected, found = stepped(library, x), stepped(kernels, x)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for (name, a), b in zip(kernels.named_parameters(), library.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10, msg=name)
    # with BatchNorm's running statistics and counts of batches
    torch.testing.assert_close(kernels.state_dict(), library.state_dict(), rtol=1e-12, atol=1e-12)


def test_evaluation_is_the_same() -> None:
    torch.manual_seed(0)
    library = small("efficientnet-b0").double()
    stepped(library, torch.randn(4, 3, 64, 64, dtype=torch.float64))
    kernels = fused(library).eval()
    before = copy.deepcopy(kernels.state_dict())
    x = torch.randn(2, 3, 64, 50, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(kernels(x), library.eval()(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(kernels.state_dict(), before, rtol=0, atol=0)


def test_an_exported_model_holds_plain_convolutions() -> None:
    kernels = fused(small("efficientnet-b0")).eval()
    x = torch.randn(2, 3, 64, 64)
    targets = {str(node.target) for node in torch.export.export(kernels, (x,)).graph.nodes}
    assert not any("effnet" in target for target in targets)
    assert "aten.conv2d.default" in targets


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    library = small("efficientnet-b0")
    kernels = fused(library)
    x = torch.randn(4, 3, 64, 64)
    context = torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext()
    seen = []
    kernels.layers[1].block0.proj.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].dtype)
    )
    with context:
        expected, found = library(x), kernels(x)
    assert seen == [dtype]
    assert found.dtype == expected.dtype == dtype
    # The library rounds after each BatchNorm and activation, the kernels only where they store.
    exact = library.double()(x.double())
    error = (found.double() - exact).norm() / exact.norm()
    assert error < max(1.5 * (expected.double() - exact).norm() / exact.norm(), 1e-5)
    found.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in kernels.parameters())


@pytest.mark.slow
def test_compiles_as_one_graph() -> None:
    torch.manual_seed(0)
    library = small("efficientnet-b0").layers[1]
    kernels = fused(library)
    x = torch.randn(2, library.block0.expand.conv.in_channels, 15, 14)
    compiled = torch.compile(kernels, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(stepped(kernels, x, compiled), stepped(library, x), rtol=1e-4, atol=1e-4)
    for (name, a), b in zip(kernels.named_parameters(), library.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4, msg=name)
    torch.testing.assert_close(kernels.state_dict(), library.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_replaced_convolution_is_left_to_the_library() -> None:
    block = small("efficientnet-b0").layers[6].block0
    assert can_fuse(block)
    block.depsep.conv = on_cpu(block.depsep.conv)
    assert not can_fuse(block)


def test_replacement_shares_parameters_and_keeps_keys() -> None:
    model = small("efficientnet-b0")
    before = model.state_dict(keep_vars=True)
    accelerate(model, Workload(batch_size=4, image_size=64, dtype=None, compiled=False))
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    assert any(isinstance(module, DenseConv2d) for module in model.modules())


def test_a_replaced_batch_norm_is_left_to_the_library() -> None:
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(small("efficientnet-b0"))
    assert not any(can_fuse(block) for block in model.modules() if isinstance(block, MBConv))
    hardswish = small("efficientnet-b0", activation="hardswish")
    assert not any(can_fuse(block) for block in hardswish.modules() if isinstance(block, MBConv))
