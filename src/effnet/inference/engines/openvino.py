"""OpenVINO on the CPU, on its own files (.xml with .bin) or on ONNX."""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet.export.facts import PRECISION_KEY, read_metadata
from effnet.export.openvino import compile_openvino, read_openvino
from effnet.inference.engines.form import EngineKind, by_onnx
from effnet.inference.engines.network import Network, as_array
from effnet.runtime.errors import UserError

# Batch sizes that are kept compiled.
_COMPILED = 4
_HINTS = {"fp32": "f32", "bf16": "bf16", "amp": "bf16"}


class OpenVinoNetwork(Network):
    """A model in OpenVINO, compiled for each batch size: for an open one OpenVINO chooses slower operators.

    Args:
        path: .xml or .onnx file that `effnet export` wrote.
        device: must be the CPU.
        precision: `fp32` or `bf16`; of a quantized file, the precision of its floating-point part.
        threads: 0 for one per core.

    Raises:
        UserError: the package is missing, the file can't be used, or the device or precision is not offered.
    """

    def __init__(
        self, path: Path, device: torch.device, *, precision: str = "fp32", threads: int = 0
    ) -> None:
        if device.type != "cpu":
            raise UserError("--device cuda: OpenVINO runs on the CPU here; use --device cpu")
        if precision not in _HINTS:
            raise UserError(f"--precision {precision}: OpenVINO offers fp32 and bf16")
        model, facts = read_openvino(path)
        super().__init__(
            read_metadata(facts, path),
            takes_bytes=model.input(0).get_element_type().get_type_name() == "u8",
            precision="int8" if facts.get(PRECISION_KEY) == "int8" else precision,
        )
        self.model = model
        self.hint, self.threads = _HINTS[precision], threads
        self._request = functools.lru_cache(_COMPILED)(self._compiled)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images."""
        request = self._request(len(images))
        return torch.from_numpy(request.infer({0: as_array(images)}, share_inputs=True)[0].copy())

    def _compiled(self, batch_size: int) -> Any:
        model = self.model
        if model.is_dynamic():
            model = model.clone()
            _, *image = model.input(0).get_partial_shape()
            model.reshape([batch_size, *image])
        return compile_openvino(model, precision=self.hint, threads=self.threads).create_infer_request()


ENGINE = EngineKind(
    "openvino",
    "OpenVINO on the CPU",
    "`pip install 'effnet[openvino,onnx]'`",
    package="openvino",
    from_weights=by_onnx(OpenVinoNetwork),
    device="cpu",
    suffixes=(".xml", ".onnx"),
    network=OpenVinoNetwork,
)
