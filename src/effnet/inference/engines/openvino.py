"""OpenVINO on the CPU, on its own files (.xml with .bin) or on ONNX."""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.export.facts import (
    INPUT,
    OUTPUT,
    PRECISION_KEY,
    PROBABILITIES,
    Port,
    check_ports,
    read_decode,
    read_metadata,
)
from effnet.export.openvino import compile_openvino, read_openvino
from effnet.inference.engines.form import EngineKind, Settings, by_onnx
from effnet.inference.engines.network import Network, as_array, checked_logits
from effnet.runtime.errors import UserError, one_line

# Batch sizes that are kept compiled: the powers of two up to 128, of which a server makes its batches.
_COMPILED = 8
_TYPES = {"f32": "float32", "u8": "uint8"}
_HINTS = {"fp32": "f32", "bf16": "bf16", "amp": "bf16"}


class OpenVinoNetwork(Network):
    """A model in OpenVINO, compiled for each batch size: for an open one OpenVINO chooses slower operators.

    Args:
        path: .xml or .onnx file that `effnet export` wrote.
        device: must be the CPU.
        precision: `fp32` or `bf16`; of a quantized file, the precision of its floating-point part.
        threads: 0 for one per core.
        streams: parts of a batch that are computed side by side, by as many groups of threads.

    Raises:
        UserError: the package is missing, the file can't be used, or the device or precision is not offered.
    """

    compiles_each_size = True

    def __init__(
        self,
        path: Path,
        device: torch.device,
        *,
        precision: str = "fp32",
        threads: int = 0,
        streams: int = 1,
    ) -> None:
        if device.type != "cpu":
            raise UserError("--device cuda: OpenVINO runs on the CPU here; use --device cpu")
        if precision not in _HINTS:
            raise UserError(f"--precision {precision}: OpenVINO offers fp32 and bf16")
        model, facts = read_openvino(path)
        metadata = read_metadata(facts, path)
        decode = read_decode(facts, path)
        check_ports(_ports(model.inputs), _ports(model.outputs), metadata, path, decode)
        super().__init__(
            metadata,
            takes_bytes=model.input(0).get_element_type().get_type_name() == "u8",
            precision="int8" if facts.get(PRECISION_KEY) == "int8" else precision,
            decode=decode,
        )
        self.path, self.model = path, model
        self.hint, self.threads, self.streams = _HINTS[precision], threads, streams
        self._requests = functools.lru_cache(_COMPILED)(self._compiled)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images.

        Raises:
            UserError: the file's graph fails, or returns something else than logits of these images.
        """
        try:
            logits = self._logits(as_array(images))
        except RuntimeError as error:
            raise UserError(f"{self.path}: fails on OpenVINO: {one_line(error)}") from None
        return checked_logits(logits, len(images), self.path)

    def _logits(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        parts = self.streams if self.streams <= len(array) and len(array) % self.streams == 0 else 1
        requests = self._requests(len(array) // parts, parts)
        if parts == 1:
            one: npt.NDArray[np.generic] = requests[0].infer({0: array}, share_inputs=True)[0].copy()
            return one
        for request, part in zip(requests, np.split(array, parts), strict=True):
            request.start_async({0: part}, share_inputs=True)
        for request in requests:
            request.wait()
        return np.concatenate([request.get_output_tensor(0).data for request in requests])

    def _compiled(self, batch_size: int, parts: int) -> list[Any]:
        model = self.model
        if model.is_dynamic():
            model = model.clone()
            _, *image = model.input(0).get_partial_shape()
            model.reshape([batch_size, *image])
        compiled = compile_openvino(
            model, precision=self.hint, threads=self.threads, streams=parts if parts > 1 else 0
        )
        return [compiled.create_infer_request() for _ in range(parts)]


def _ports(nodes: Sequence[Any]) -> list[Port]:
    """Return what `check_ports` compares; OpenVINO's own files keep names, but not for every node."""
    return [
        Port(
            _name(node.get_names()),
            _TYPES.get(node.get_element_type().get_type_name(), "another type"),
            tuple(size.get_length() if size.is_static else None for size in node.get_partial_shape()),
        )
        for node in nodes
    ]


def _name(names: Collection[str]) -> str | None:
    """Return that one of a tensor's names which `check_ports` knows, else any, else None."""
    return next((name for name in (INPUT, OUTPUT, PROBABILITIES) if name in names), min(names, default=None))


def _settings(cores: int, images: int) -> Sequence[Settings]:
    """Compare one stream with two, and with one for each core, as far as they divide a batch."""
    counts = sorted({2, min(cores, images)})
    return (
        {},
        *({"streams": count} for count in counts if 1 < count <= cores and images % count == 0),
    )


ENGINE = EngineKind(
    "openvino",
    "OpenVINO on the CPU",
    "extras `openvino` and `onnx`",
    package="openvino",
    from_weights=by_onnx(OpenVinoNetwork),
    device="cpu",
    suffixes=(".xml", ".onnx"),
    network=OpenVinoNetwork,
    precisions=("fp32", "tf32", "bf16", "amp"),
    settings=_settings,
)
