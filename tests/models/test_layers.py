"""Convolutions against PyTorch's own."""

import torch
import torch.nn.functional as F

from effnet.models.layers import Conv2d


def test_single_pixels_in_training() -> None:
    """They are multiplied as a matrix."""
    torch.manual_seed(0)
    conv = Conv2d(24, 40, 1, 1, 1, "symmetric").to(memory_format=torch.channels_last)
    x = torch.randn(6, 24, 1, 1, requires_grad=True)
    y = conv.train()(x)
    expected = F.conv2d(x, conv.weight)
    torch.testing.assert_close(y, expected)
    grad = torch.randn_like(y)
    ours = torch.autograd.grad(y, (x, conv.weight), grad)
    theirs = torch.autograd.grad(expected, (x, conv.weight), grad)
    torch.testing.assert_close(ours, theirs)
