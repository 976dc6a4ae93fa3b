"""LiteRT on the CPU, on a .tflite file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.export.edge.appended import read_facts
from effnet.export.facts import PRECISION_KEY, Port, check_ports, read_metadata
from effnet.export.packages import load_package
from effnet.inference.engines.form import EngineKind
from effnet.inference.engines.network import Network, as_array, checked_logits, require_fp32
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.suggestions import suggested_path


class LiteRtNetwork(Network):
    """A model in LiteRT.

    Args:
        path: .tflite file of `effnet export litert`.
        device: must be the CPU.
        precision: `fp32`; another one is the file's.
        threads: 0 for one per core.

    Raises:
        UserError: the package is missing, the file can't be used, or the device or precision is not offered.
    """

    batch_size: int

    def __init__(
        self, path: Path, device: torch.device, *, precision: str = "fp32", threads: int = 0
    ) -> None:
        if device.type != "cpu":
            raise UserError("--device cuda: LiteRT runs on the CPU here; use --device cpu")
        require_fp32("LiteRT", precision)
        if not path.is_file():
            raise UserError(f"{path}: no such file{suggested_path(path)}")
        facts = read_facts(path)
        metadata = read_metadata(facts, path)
        interpreter = _open(path, threads or len(os.sched_getaffinity(0)))
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        check_ports([_port(one) for one in inputs], [_port(one) for one in outputs], metadata, path)
        super().__init__(
            metadata,
            takes_bytes=inputs[0]["dtype"] == np.uint8,
            precision=facts.get(PRECISION_KEY, precision),
        )
        self.path, self.interpreter = path, interpreter
        self._input, self._output = inputs[0], outputs[0]
        self.batch_size = int(inputs[0]["shape"][0])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images, in batches of the size that the file takes, the last one filled up.

        Raises:
            UserError: LiteRT fails.
        """
        size = self.batch_size
        missing = -len(images) % size
        array: npt.NDArray[Any] = as_array(
            torch.cat([images, *[images[-1:]] * missing]) if missing else images
        )
        grid = _grid(self._input)
        if grid is not None and array.dtype == np.float32:
            scale, zero_point = grid
            array = np.clip(np.round(array / scale) + zero_point, -128, 127).astype(np.int8)
        logits = np.concatenate([self._logits(array[at : at + size]) for at in range(0, len(array), size)])
        return checked_logits(logits[: len(images)], len(images), self.path)

    def _logits(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        try:
            self.interpreter.set_tensor(self._input["index"], batch)
            self.interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{self.path}: fails on LiteRT: {one_line(error)}") from None
        logits: npt.NDArray[Any] = self.interpreter.get_tensor(self._output["index"])
        grid = _grid(self._output)
        return logits if grid is None else (logits.astype(np.float32) - grid[1]) * grid[0]


def _open(path: Path, threads: int) -> Any:
    """Return an `Interpreter` of a file, its tensors allocated."""
    runtime = load_package("ai_edge_litert")
    try:
        interpreter = runtime.Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not read by LiteRT: {one_line(error)}") from None
    return interpreter


def _grid(details: Mapping[str, Any]) -> tuple[np.float32, int] | None:
    """Return the scale and the zero point of an int8 input or output; None for one of another type."""
    scale, zero_point = details["quantization"]
    return (np.float32(scale), int(zero_point)) if details["dtype"] == np.int8 and scale else None


def _port(details: Mapping[str, Any]) -> Port:
    """Return what `check_ports` compares: integers on a grid stand for floats, and names are the converter's."""
    dtype = "float32" if _grid(details) else np.dtype(details["dtype"]).name
    return Port(None, dtype, tuple(map(int, details["shape"])))


ENGINE = EngineKind(
    "litert",
    "LiteRT on the CPU, on files alone",
    "extra `litert`",
    package="ai_edge_litert",
    from_weights=None,
    device="cpu",
    suffixes=(".tflite",),
    network=LiteRtNetwork,
)
