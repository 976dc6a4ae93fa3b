"""BatchNorm over the images of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over the processes. Every process's loss depends on it, so its gradient is a sum as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """Counterpart of `torch.nn.SyncBatchNorm`, which PyTorch has for GPUs alone, for processes on a CPU.

    In training a batch is normalised by the mean and variance over all processes' images, and gradients flow through
    both. Shapes: (N, C, H, W) -> the same; N may differ between processes.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        x = input.float()
        channels = x.shape[1]
        sums = torch.cat([x.sum((0, 2, 3)), x.new_tensor([x.numel() / channels])])
        sums = _SumOverProcesses.apply(sums)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        # From the deviations, not the squares: E[x^2] - E[x]^2 loses digits.
        centred = x - mean.view(1, -1, 1, 1)
        variance = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count
        self._update_statistics(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def with_sync_batch_norm(model: nn.Module) -> nn.Module:
    """Replace every BatchNorm of a model, on its device, by one over all processes, and return the model.

    Names and values of parameters and buffers stay.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, _synchronised(child))
    return model


def _synchronised(norm: nn.BatchNorm2d) -> nn.Module:
    cls = CpuSyncBatchNorm if norm.weight.device.type == "cpu" else nn.SyncBatchNorm
    with torch.device("meta"):
        made = cls(norm.num_features, norm.eps, norm.momentum)
    made._parameters, made._buffers = norm._parameters, norm._buffers
    return made.train(norm.training)
