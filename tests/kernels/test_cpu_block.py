"""Blocks with the CPU's passes are the plain blocks: outputs, gradients, statistics."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.kernels import cpu_passes
from effnet.kernels.accelerate import accelerate
from effnet.kernels.cpu_block import CpuConvBNAct, CpuMBConv, with_passes
from effnet.kernels.workload import Workload
from effnet.models.config import MODEL_CONFIGS, StageConfig
from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import Conv2d, MBConv
from effnet.models.replace import replace_modules
from effnet.training.recompute import recompute_blocks

pytestmark = pytest.mark.skipif(not cpu_passes.is_available(), reason="no C++ compiler")


def block(name: str = "efficientnet-b0", **changes: int) -> MBConv:
    """A block of 24 channels with weights and statistics that are not those it begins with."""
    torch.manual_seed(0)
    stage = StageConfig(depth=2, kernel_size=5, stride=2, expansion=6, in_channels=24, out_channels=24)
    made = MBConv(replace(MODEL_CONFIGS[name]), replace(stage, **changes), True, 1.0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.train()


def results(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients of input and parameters, and statistics of a step."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = module(x)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    (out.square() * weights).sum().backward()
    gradients = {f"grad {name}": parameter.grad for name, parameter in module.named_parameters()}
    return {"out": out.detach(), "x": x.grad, **gradients, **dict(module.named_buffers())}


def error(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """The largest relative error of a tensor."""
    assert found.keys() == exact.keys()
    return max(
        float((found[key].double() - exact[key]).norm() / exact[key].double().norm().clamp(min=1e-6))
        for key in exact
    )


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-lite0", "efficientnet-hswish-b0"])
@pytest.mark.parametrize("changes", [{}, {"stride": 1}, {"expansion": 1, "kernel_size": 3}], ids=str)
@pytest.mark.parametrize("size", [(2, 1), (9, 14), (32, 32)])
def test_a_step_is_that_of_the_plain_block(name: str, changes: dict[str, int], size: tuple[int, int]) -> None:
    plain = block(name, **changes)
    ours = with_passes(copy.deepcopy(plain))
    assert type(ours) is CpuMBConv
    assert list(ours.state_dict()) == list(plain.state_dict())
    x = torch.randn(5, 24, *size).contiguous(memory_format=torch.channels_last)
    exact = results(copy.deepcopy(plain).double(), x.double())
    assert error(results(ours, x), exact) < max(3 * error(results(plain, x), exact), 2e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_in_any_order(memory_format: torch.memory_format) -> None:
    plain = block()
    x = torch.randn(3, 24, 8, 8).contiguous(memory_format=memory_format)
    exact = results(copy.deepcopy(plain).double(), x.double())
    assert error(results(with_passes(plain), x), exact) < 2e-5


def model(name: str) -> EfficientNet:
    torch.manual_seed(0)
    config = replace(
        MODEL_CONFIGS[name], num_classes=10, dropout=0.0, survival_prob=0.8, depth=0.4, width=0.5
    )
    return EfficientNet(config).to(memory_format=torch.channels_last).train()


def accelerated(plain: EfficientNet) -> EfficientNet:
    return accelerate(copy.deepcopy(plain), Workload(batch_size=8, image_size=64, dtype=None, compiled=False))


def logits(net: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(1)
    out: Tensor = net(x)
    return out


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-lite0", "efficientnet-v2-s"])
def test_trained_models_stay_together(name: str) -> None:
    plain = model(name)
    nets = [copy.deepcopy(plain).double(), plain, accelerated(plain)]
    assert sum(isinstance(module, CpuMBConv) for module in nets[2].modules()) >= 3
    assert any(isinstance(module, CpuConvBNAct) for module in nets[2].modules())
    x = torch.randn(8, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    for net in nets:
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(logits(net, x.to(next(net.parameters()).dtype)), torch.arange(8)).backward()
            optimizer.step()
    exact, *found = (logits(net.eval(), x.to(next(net.parameters()).dtype)).detach().double() for net in nets)
    library, ours = ((each - exact).norm() / exact.norm() for each in found)
    assert ours < max(3 * library, torch.tensor(1e-4)), (ours, library)


def test_gradients_lie_in_memory_as_their_weights() -> None:
    # DDP warns of others, whose buckets it has to copy.
    ours = accelerated(model("efficientnet-b0"))
    ours(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad.stride() == parameter.stride() for parameter in ours.parameters())


def test_evaluation_is_the_plain_models() -> None:
    plain = model("efficientnet-b0")
    ours, x = accelerated(plain).eval(), torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(x), plain.eval()(x))


def test_frozen_statistics_are_the_plain_models() -> None:
    plain = block()
    ours = with_passes(copy.deepcopy(plain))
    for each in (plain, ours):
        for module in each.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    x = torch.randn(3, 24, 8, 8).contiguous(memory_format=torch.channels_last)
    assert error(results(ours, x), {key: value.double() for key, value in results(plain, x).items()}) == 0


def test_recomputed_blocks_leave_the_same_bits() -> None:
    plain = model("efficientnet-b0")
    x = torch.randn(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    found = []
    for net in (accelerated(plain), recompute_blocks(accelerated(plain))):
        logits(net, x).square().sum().backward()
        found.append([*(p.grad for p in net.parameters()), *net.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """The bytes of the tensors that autograd keeps, each memory counted once."""
    seen: dict[int, int] = {}
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        total[0] = sum(seen.values())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


def test_less_is_kept_for_the_backward_pass() -> None:
    plain = model("efficientnet-b0")
    x = torch.randn(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    kept = []
    for net in (plain, accelerated(plain)):
        parameters = sum(tensor.nbytes for tensor in net.state_dict().values())
        with kept_bytes() as total:
            out = logits(net, x)
        kept.append(total[0] - parameters)
        del out
    assert kept[1] < 0.6 * kept[0], kept


def test_what_the_passes_do_not_know_stays() -> None:
    for change in ("norm", "conv", "gate"):
        plain = block()
        if change == "norm":
            plain.depsep.add_module("bn", nn.SyncBatchNorm(144))
        elif change == "conv":
            plain.depsep.conv.__class__ = type("Other", (Conv2d,), {})
        else:
            plain.se.act = nn.ReLU()
        assert type(with_passes(plain)) is MBConv
    assert (
        type(replace_modules(block(in_channels=10), with_passes)) is MBConv
    )  # 60 channels are no multiple of 8


@pytest.mark.parametrize("name", ["expand.bn", "depsep", "depsep.act", "se.squeeze"])
def test_hooks_of_the_parts_are_called(name: str) -> None:
    ours, calls = with_passes(block()), []
    handle = ours.get_submodule(name).register_forward_hook(lambda *_: calls.append(name))
    x = torch.randn(2, 24, 8, 8)
    ours(x)
    assert calls == [name]
    handle.remove()
    ours(x)
    assert calls == [name]


def test_one_value_has_no_variance() -> None:
    ours = with_passes(block())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours(torch.randn(1, 24, 1, 1))
