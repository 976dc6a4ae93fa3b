"""The models of a repository, run as their configurations say by onnxruntime and OpenVINO, without the server."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.export.openvino import compile_openvino, read_openvino
from effnet.export.session import open_session
from effnet.export.triton.config import ModelConfig, Tensor
from effnet.runtime.errors import UserError

Arrays = Mapping[str, npt.NDArray[Any]]
Run = Callable[[Arrays], Arrays]


def by_onnxruntime(path: Path, *, fused: bool = True) -> Run:
    """Return what runs an ONNX file: arrays by the names of its inputs in, by those of its outputs out."""
    session = open_session(path, fused=fused)
    names = [output.name for output in session.get_outputs()]
    return lambda given: dict(zip(names, session.run(names, dict(given)), strict=True))


def by_openvino(path: Path) -> Run:
    """Return what runs a file of OpenVINO, as `by_onnxruntime` does."""
    compiled = compile_openvino(read_openvino(path)[0])
    return lambda given: {port.any_name: value for port, value in compiled(dict(given)).items()}


class Chain:
    """An ensemble, and the models that its steps name.

    Args:
        ensemble: its configuration.
        models: configuration of each of its models, and what runs the model's file.
    """

    def __init__(self, ensemble: ModelConfig, models: Sequence[tuple[ModelConfig, Run]]) -> None:
        self.ensemble = ensemble
        self._models = {config.name: (config, run) for config, run in models}

    def __call__(self, images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Return the ensemble's outputs, in their order, for images (N, H, W, 3).

        Raises:
            UserError: a tensor on the way has another name, type or shape than a configuration says.
        """
        tensors: dict[str, npt.NDArray[Any]] = {self.ensemble.inputs[0].name: images}
        _check(self.ensemble, self.ensemble.inputs, tensors)
        for step in self.ensemble.steps:
            config, run = self._models[step.model]
            given = {name: tensors[mapped] for name, mapped in step.inputs.items()}
            _check(config, config.inputs, given)
            returned = run(given)
            _check(config, config.outputs, returned)
            tensors |= {mapped: returned[name] for name, mapped in step.outputs.items()}
        outputs = {output.name: tensors[output.name] for output in self.ensemble.outputs}
        _check(self.ensemble, self.ensemble.outputs, outputs)
        return list(outputs.values())


def _check(config: ModelConfig, tensors: Sequence[Tensor], arrays: Arrays) -> None:
    """Refuse arrays that the server would refuse."""
    if {tensor.name for tensor in tensors} != set(arrays):
        raise UserError(f"{config.name}: not written, its file's tensors are {', '.join(arrays)}")
    for tensor in tensors:
        array = arrays[tensor.name]
        batch, *sizes = array.shape
        if not (
            1 <= batch <= config.max_batch_size
            and array.dtype.name == tensor.dtype
            and len(sizes) == len(tensor.dims)
            and all(wanted in (-1, size) for wanted, size in zip(tensor.dims, sizes, strict=True))
        ):
            raise UserError(
                f"{config.name}: not written, its {tensor.name} is {array.dtype} {array.shape}, not {tensor.dtype} "
                f"{(f'1 to {config.max_batch_size}', *tensor.dims)}"
            )
