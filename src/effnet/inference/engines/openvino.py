"""OpenVINO on the CPU, on its own files (.xml with .bin) or on ONNX."""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet.export.facts import PRECISION_KEY, read_metadata
from effnet.export.openvino import compile_openvino, read_openvino
from effnet.inference.engines.network import Network, as_array
from effnet.runtime.errors import UserError

# Sizes of batch that are kept compiled.
_COMPILED = 4
_HINTS = {"fp32": "f32", "bf16": "bf16", "amp": "bf16"}


class OpenVinoNetwork(Network):
    """A model in OpenVINO, compiled for each size of batch by itself: with an open one it chooses slower operators.

    Args:
        path: .xml or .onnx file that `effnet export` wrote.
        device: must be the CPU.
        precision: `fp32` or `bf16`; of a quantized file, that of what is left in floating point.
        threads: 0 for one a core.

    Raises:
        UserError: the package is missing, a file that can't be used, or a device or precision that is not offered.
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
        """Logits of images."""
        request = self._request(len(images))
        return torch.from_numpy(request.infer({0: as_array(images)}, share_inputs=True)[0].copy())

    def _compiled(self, batch_size: int) -> Any:
        model = self.model
        if model.is_dynamic():
            model = model.clone()
            _, *image = model.input(0).get_partial_shape()
            model.reshape([batch_size, *image])
        return compile_openvino(model, precision=self.hint, threads=self.threads).create_infer_request()
