"""PyTorch with torch.compile."""

from functools import partial

from effnet.inference.engines.form import EngineKind
from effnet.inference.engines.torch import torch_network

ENGINE = EngineKind(
    "torch-compiled",
    "PyTorch with `torch.compile`; on a GPU each batch size becomes a CUDA graph",
    "a C++ compiler; on a GPU, Triton",
    package="torch",
    from_weights=partial(torch_network, compiles=True),
    least_images=20_000,
)
