"""`effnet export triton`."""

import argparse
import shlex
import typing
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import MOST_IMAGES, integer, number, path
from effnet.cli.choice import add_model_flags
from effnet.cli.export.form import Format
from effnet.cli.export.graph import opened
from effnet.cli.export.tensorrt import NOT_BUILT
from effnet.cli.flags import Parser
from effnet.cli.messages import say
from effnet.recipe.choices import OnnxTargetName

if TYPE_CHECKING:
    from effnet.export.triton import TritonRepository

_MOST_INSTANCES = 1024
_IMAGE = "nvcr.io/nvidia/tritonserver:$RELEASE-py3"


def _add_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("folder", type=path, metavar="DIR", help="folder to write; must be empty if it exists")
    add_model_flags(parser)
    add(
        "--backend",
        default="onnxruntime",
        choices=typing.get_args(OnnxTargetName),
        help="what runs the model in the server [default: onnxruntime]",
    )
    add("--name", help="the model's name in the server [default: that of the architecture]")
    add(
        "--precision",
        type=str.lower,
        choices=("fp32", "fp16"),
        help="weights and arithmetic; for OpenVINO only the weights [default: fp16 for TensorRT, else fp32]",
    )
    add(
        "--uint8-input",
        action="store_true",
        help="the model takes RGB bytes (N, S, S, 3) and normalises them",
    )
    _add_server_flags(parser)


def _add_server_flags(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--max-batch-size",
        type=integer(1, MOST_IMAGES),
        default=32,
        metavar="IMAGES",
        help="largest batch [default: 32]",
    )
    add(
        "--preferred-batch-size",
        nargs="+",
        type=integer(1, MOST_IMAGES),
        default=(),
        metavar="IMAGES",
        help="batches that run as soon as they are full [default: a quarter, a half and all of the largest]",
    )
    add(
        "--max-wait-ms",
        type=number(60_000.0, low=0.0),
        default=5.0,
        metavar="MS",
        help="time that a request waits for others [default: 5]",
    )
    add(
        "--instances",
        type=integer(1, _MOST_INSTANCES),
        default=1,
        metavar="N",
        help="copies of the model that run at the same time [default: 1]",
    )
    add(
        "--instance-kind",
        choices=("cpu", "gpu"),
        help="where the model runs in the server [default: gpu for TensorRT, else cpu]",
    )
    add(
        "--server-image",
        default=_IMAGE,
        metavar="IMAGE",
        help=f"container image in the command that starts the server [default: {_IMAGE}]",
    )


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.triton import TritonSettings, export_triton

    settings = TritonSettings(
        namespace.backend,
        namespace.name,
        namespace.max_batch_size,
        tuple(namespace.preferred_batch_size),
        round(1000 * namespace.max_wait_ms),
        namespace.instances,
        namespace.instance_kind,
    )
    namespace.precision = namespace.precision or ("fp16" if namespace.backend == "tensorrt" else "fp32")
    model, metadata, options = opened(namespace)
    del options["batch_size"]
    repository = export_triton(model, metadata, Path(namespace.folder), settings, **options)
    for line in repository.lines():
        say(line)
    plan = repository.plan
    built = plan is None or plan.built
    if plan is not None and not built:
        say(
            "TensorRT or a GPU is missing here: no engine has been built. This command does, on the GPU's machine:"
        )
        say(plan.command)
    _say_commands(repository, namespace.server_image)
    return 0 if built else NOT_BUILT


def _say_commands(repository: "TritonRepository", image: str) -> None:
    """Tell how to start the server and how to measure it."""
    folder, models = shlex.quote(str(repository.path.absolute())), repository.models
    gpus = "--gpus all " if models.network.kind == "gpu" else ""
    ports = " ".join(f"-p 127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002))
    say(
        "no server has been run here; these commands start one, where RELEASE is its version, and measure it:"
    )
    say(
        f"docker run --rm {gpus}{ports} -v {folder}:/models:ro {image} tritonserver --model-repository=/models"
    )
    name = models.network.name
    say(f"perf_analyzer -m {name} -u localhost:8001 -i grpc --percentile=95 --concurrency-range 1:32:8")
    say(
        f"perf_analyzer -m {name}-whole -u localhost:8001 -i grpc --percentile=95 --concurrency-range 1:32:8 "
        "--shape images:375,500,3"
    )


TRITON = Format(
    "triton",
    "a model repository for Triton Inference Server, with preprocessing, compared with PyTorch",
    _add_flags,
    _export,
    description="Write a folder that Triton Inference Server serves: the model, its preprocessing, and both as one. "
    "With --backend tensorrt, without TensorRT or a GPU, write the ONNX file in place of the engine, print the trtexec "
    "command that builds it elsewhere, and end with exit code 3.",
)
