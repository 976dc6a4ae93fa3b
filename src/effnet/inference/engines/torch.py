"""PyTorch, and the network that both of its engines share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from effnet.export.form import inference_form
from effnet.export.trained import TrainedModel
from effnet.inference.engines.form import EngineKind
from effnet.inference.engines.network import Network
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.precision import AUTOCAST_DTYPES, Precision


class TorchNetwork(Network):
    """A model in PyTorch: BatchNorm folded, channels-last, weights in the precision's type.

    Args:
        trained: the model.
        precision: arithmetic, and the device. In mixed precision the whole network has 16-bit weights and activations:
            the softmax, which autocast would keep in FP32, is applied to the logits by the caller.
        compiles: use torch.compile; on a GPU each batch size becomes a CUDA graph as well, so that small batches are
            not bound by kernel launches.
    """

    is_channels_last = True

    def __init__(self, trained: TrainedModel, precision: Precision, *, compiles: bool) -> None:
        super().__init__(trained.metadata, precision.device, precision=precision.name)
        self.dtype = AUTOCAST_DTYPES.get(precision.name, torch.float32)
        model = inference_form(trained.model).requires_grad_(False)
        model = model.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plain = model
        self.network: Callable[[Tensor], Tensor] = model
        self.compiles_each_size = compiles
        if isinstance(model, EfficientNet) and not compiles:
            self.features = partial(_pooled_features, model)
        if compiles:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self.network = torch.compile(model, mode=mode)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of normalised images."""
        images = images.to(self.device, self.dtype, memory_format=torch.channels_last)
        return self.network(images).float()

    def differentiable(self) -> nn.Module:
        """Return the model as it runs, before any compilation."""
        return self.plain


@contextmanager
def _pooled_features(model: EfficientNet) -> Iterator[list[Tensor]]:
    """See `Network.features`."""
    taken: list[Tensor] = []
    hook = model.get_classifier().register_forward_pre_hook(lambda _module, inputs: taken.append(inputs[0]))
    try:
        yield taken
    finally:
        hook.remove()


def torch_network(
    trained: TrainedModel, device: torch.device, precision: str, folder: Path, *, compiles: bool
) -> TorchNetwork:
    """Open a model in memory; see `EngineKind.from_weights`. The folder is not used."""
    return TorchNetwork(trained, Precision(precision, device), compiles=compiles)


ENGINE = EngineKind(
    "torch",
    "PyTorch without a compiler",
    "nothing more",
    package="torch",
    from_weights=partial(torch_network, compiles=False),
)
