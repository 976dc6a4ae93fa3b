"""onnxruntime, on an ONNX file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from effnet.export.facts import INPUT, OUTPUT, PRECISION_KEY, Port, check_ports, read_decode, read_metadata
from effnet.export.session import open_session
from effnet.inference.engines.form import EngineKind, Settings, by_onnx
from effnet.inference.engines.network import (
    Network,
    as_array,
    checked_logits,
    encoded_png,
    require_fp32,
)
from effnet.runtime.errors import UserError, one_line

_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntimeNetwork(Network):
    """A model in onnxruntime.

    Args:
        path: ONNX file of `effnet.export.onnx.export_onnx`.
        device: a GPU needs the package onnxruntime-gpu.
        precision: `fp32`; another one is the file's.
        threads: threads of an operator; 0 for one per core.
        spinning: threads spin while they wait for the next operator.

    Raises:
        UserError: a package is missing, or the file can't be used.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        *,
        precision: str = "fp32",
        threads: int = 0,
        spinning: int = 1,
    ) -> None:
        require_fp32("onnxruntime", precision)
        session = open_session(path, threads=threads, cuda=device.type == "cuda", spinning=bool(spinning))
        facts = session.get_modelmeta().custom_metadata_map
        metadata = read_metadata(facts, path)
        decode = read_decode(facts, path)
        check_ports(_ports(session.get_inputs()), _ports(session.get_outputs()), metadata, path, decode)
        super().__init__(
            metadata,
            takes_bytes=session.get_inputs()[0].type == "tensor(uint8)",
            precision=facts.get(PRECISION_KEY, precision),
            decode=decode,
        )
        self.path, self.session = path, session

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images.

        Raises:
            UserError: the file's graph fails, or returns something else than logits of these images.
        """
        if self.decode == "jpeg":  # whose input is one file
            return torch.cat([self._logits(encoded_png(image), 1) for image in images])
        return self._logits(as_array(images), len(images))

    def _logits(self, array: npt.NDArray[Any], images: int) -> Tensor:
        try:
            (logits,) = self.session.run([OUTPUT], {INPUT: array})
        except (
            Exception
        ) as error:  # onnxruntime has its own classes for each status, below RuntimeError or not
            raise UserError(f"{self.path}: fails on onnxruntime: {one_line(error)}") from None
        return checked_logits(logits, images, self.path)


def _ports(nodes: Sequence[Any]) -> list[Port]:
    return [
        Port(
            node.name,
            _TYPES.get(node.type, node.type),
            tuple(size if isinstance(size, int) else None for size in node.shape),
        )
        for node in nodes
    ]


def _settings(cores: int, images: int) -> Sequence[Settings]:
    return ({}, {"spinning": 0}) if cores > 1 else ({},)


ENGINE = EngineKind(
    "onnxruntime",
    "onnxruntime on a CPU, or for exported files on a GPU",
    "extra `onnx`; on a GPU, onnxruntime-gpu",
    package="onnxruntime",
    from_weights=by_onnx(OnnxRuntimeNetwork),
    device="cpu",
    suffixes=(".onnx",),
    network=OnnxRuntimeNetwork,
    decodes=True,
    precisions=("fp32", "tf32"),
    settings=_settings,
)
