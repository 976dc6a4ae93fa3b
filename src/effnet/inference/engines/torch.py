"""PyTorch, eager or compiled."""

from collections.abc import Callable

import torch
from torch import Tensor

from effnet.export.form import inference_form
from effnet.export.trained import TrainedModel
from effnet.inference.engines.network import Network
from effnet.runtime.precision import AUTOCAST_DTYPES, Precision


class TorchNetwork(Network):
    """A model in PyTorch: BatchNorm folded, channels-last, weights in the precision's type.

    Args:
        trained: the model.
        precision: arithmetic; holds the device. Mixed precision is the whole network in half the bits: what autocast
            would keep in FP32 here, the final logits' softmax, is outside.
        compiles: use torch.compile; on a GPU each size of batch becomes a CUDA graph as well, so that small ones are
            not bound by launches.
    """

    is_channels_last = True

    def __init__(self, trained: TrainedModel, precision: Precision, *, compiles: bool) -> None:
        super().__init__(trained.metadata, precision.device, precision=precision.name)
        self.dtype = AUTOCAST_DTYPES.get(precision.name, torch.float32)
        model = inference_form(trained.model).requires_grad_(False)
        model = model.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: Callable[[Tensor], Tensor] = model
        if compiles:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self.network = torch.compile(model, mode=mode)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images."""
        images = images.to(self.device, self.dtype, memory_format=torch.channels_last)
        return self.network(images).float()
