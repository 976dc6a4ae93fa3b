"""The computation of a batch of random images on a network."""

from collections.abc import Callable

import torch
from torch import Tensor

from effnet.export.reference import example_images
from effnet.inference.engines.network import Network

Step = Callable[[], object]


def step_of(network: Network, images: int) -> Step:
    """Return the inference of so many random images, which waits for the device."""
    step = engine_step(network, example_images(network.preprocessing, images, takes_bytes=False))
    if network.device.type != "cuda":
        return step

    def waiting() -> None:
        step()
        torch.cuda.synchronize(network.device)

    return waiting


def engine_step(network: Network, images: Tensor) -> Step:
    """Return the inference of normalised images, float32 (N, 3, H, W), in the memory layout that suits the engine.

    A network that takes bytes gets random ones.
    """
    if network.takes_bytes:
        images = example_images(network.preprocessing, len(images), takes_bytes=True)
    elif network.is_channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    images = images.to(network.device)
    return torch.inference_mode()(lambda: network(images))
