"""Helpers for tests of loaders."""

from collections.abc import Iterable

import torch

from effnet.data import Batch, Loader


def of(loader: Loader | None) -> Loader:
    """The loader of a split that is there."""
    assert loader is not None
    return loader


def assert_same(left: Iterable[Batch], right: Iterable[Batch], tolerance: float = 0) -> None:
    """Also of different backends, whose pixels differ by rounding: `tolerance` is of an image's mean, of 255."""
    for a, b in zip(left, right, strict=True):
        assert a.images.shape == b.images.shape
        assert a.images.dtype == b.images.dtype
        difference = (a.images.float() - b.images.float()).abs().mean((1, 2, 3))
        assert difference.max() <= tolerance
        assert torch.equal(a.targets, b.targets)
        assert a.indices is not None
        assert b.indices is not None
        assert torch.equal(a.indices, b.indices)
