"""onnxruntime, on an ONNX file."""

from pathlib import Path

import torch
from torch import Tensor

from effnet.export.facts import INPUT, OUTPUT, PRECISION_KEY, read_metadata
from effnet.export.session import open_session
from effnet.inference.engines.form import EngineKind, by_onnx
from effnet.inference.engines.network import Network, as_array, require_fp32


class OnnxRuntimeNetwork(Network):
    """A model in onnxruntime.

    Args:
        path: ONNX file of `effnet.export.onnx.export_onnx`.
        device: a GPU needs the package onnxruntime-gpu.
        precision: `fp32`; another one is the file's.
        threads: threads of an operator; 0 for one per core.

    Raises:
        UserError: a package is missing, or the file can't be used.
    """

    def __init__(
        self, path: Path, device: torch.device, *, precision: str = "fp32", threads: int = 0
    ) -> None:
        require_fp32("onnxruntime", precision)
        session = open_session(path, threads=threads, cuda=device.type == "cuda")
        facts = session.get_modelmeta().custom_metadata_map
        super().__init__(
            read_metadata(facts, path),
            takes_bytes=session.get_inputs()[0].type == "tensor(uint8)",
            precision=facts.get(PRECISION_KEY, precision),
        )
        self.session = session

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images."""
        (logits,) = self.session.run([OUTPUT], {INPUT: as_array(images)})
        return torch.from_numpy(logits)


ENGINE = EngineKind(
    "onnxruntime",
    "onnxruntime on a CPU, or for exported files on a GPU",
    "`pip install 'effnet[onnx]'`; on a GPU, onnxruntime-gpu",
    package="onnxruntime",
    from_weights=by_onnx(OnnxRuntimeNetwork),
    device="cpu",
    suffixes=(".onnx",),
    network=OnnxRuntimeNetwork,
)
