"""Sessions of onnxruntime."""

from pathlib import Path
from typing import Any

from effnet.export.packages import load_package
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.suggestions import suggested_path

EXTENSIONS = "com.microsoft.extensions"
"""domain of the operators of onnxruntime-extensions"""


def open_session(
    path: Path,
    *,
    threads: int = 0,
    cuda: bool = False,
    fused: bool = True,
    spinning: bool = True,
    with_decoders: bool = False,
) -> Any:
    """Return an `onnxruntime.InferenceSession` on a file.

    Args:
        path: ONNX file.
        threads: threads of an operator; 0 for one per core.
        cuda: run on a GPU.
        fused: fuse operators, quantized ones to integer arithmetic; otherwise each runs as the file defines it.
        spinning: threads spin while they wait for the next operator, which is faster unless others need the cores.
        with_decoders: load the operators of onnxruntime-extensions, which is done anyway for a file that needs them.

    Raises:
        UserError: a package is missing, there is no such device, or onnxruntime does not read the file.
    """
    runtime = load_package("onnxruntime")
    if not path.is_file():
        raise UserError(f"{path}: no such file{suggested_path(path)}")
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise UserError(
            "onnxruntime is installed without CUDA: pip install onnxruntime-gpu, or use --device cpu"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    if not fused:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if with_decoders:
        options.register_custom_ops_library(load_package("onnxruntime_extensions").get_library_path())
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Between calls they never spin.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime has its own classes for each status, below RuntimeError or not
        if with_decoders or EXTENSIONS not in str(error):
            raise UserError(f"{path}: not read by onnxruntime: {one_line(error)}") from None
    return open_session(path, threads=threads, cuda=cuda, fused=fused, spinning=spinning, with_decoders=True)


def needs_decoders(path: Path) -> bool:
    """Return True for an ONNX file that uses operators of onnxruntime-extensions."""
    return path.suffix == ".onnx" and path.is_file() and EXTENSIONS.encode() in path.read_bytes()
