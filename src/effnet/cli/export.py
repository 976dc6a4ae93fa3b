"""`effnet export`.

A new format is a module of `effnet.export` that writes it, and a row of `FORMATS`.
"""

import argparse
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.cli.arguments import MOST_CLASSES, MOST_IMAGES, integer, path
from effnet.cli.choice import add_model_flags, add_trt_flag, model_choice, truth
from effnet.cli.flags import Commands, Parser
from effnet.cli.messages import say
from effnet.recipe.choices import TargetName

NOT_BUILT = 3
"""Exit code of `effnet export tensorrt` where it has prepared all but built no engine."""


@dataclass(frozen=True)
class Format:
    """A format that models are written in: a subcommand of `effnet export`.

    Attributes:
        name: the subcommand.
        summary: what is written, for the help and for the documentation's table.
        add_flags: adds the subcommand's flags.
        run: writes the file; returns the exit code.
        description: more for the subcommand's own help.
    """

    name: str
    summary: str
    add_flags: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]
    description: str | None = None


def add_export(commands: Commands, prog: str | None) -> None:
    """Add `effnet export`."""
    parser = commands.add_parser("export", prog=prog, help="write a model in another format")
    forms = parser.add_subparsers(metavar="FORM", required=True, parser_class=Parser)
    for row in FORMATS:
        form = forms.add_parser(row.name, help=row.summary, description=row.description)
        row.add_flags(form)
        form.set_defaults(command=row.run)


def _add_weights_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("--checkpoint-path", required=True, type=path, metavar="FILE", help="checkpoint of a training")
    add("--weight-path", required=True, type=path, metavar="FILE", help="file to write, .pth or .safetensors")
    add("--ema", action="store_true", help="the averaged weights")
    add(
        "--num-classes",
        type=integer(1, MOST_CLASSES),
        metavar="N",
        help="refuse a checkpoint of another number of classes",
    )
    add_trt_flag(parser, "the weights of a model are the same for every engine")


def _add_onnx_flags(parser: Parser) -> None:
    _add_graph_flags(parser)
    parser.add_argument(
        "--target",
        default="onnxruntime",
        choices=typing.get_args(TargetName),
        help="engine to write for [default: onnxruntime]",
    )
    parser.add_argument(
        "--trt", nargs="?", const=True, type=truth, metavar="BOOL", help="the same as --target tensorrt"
    )


def _add_tensorrt_flags(parser: Parser) -> None:
    _add_graph_flags(parser, precision="fp16", static=False)
    parser.add_argument(
        "--max-batch-size",
        type=integer(1, MOST_IMAGES),
        default=256,
        metavar="IMAGES",
        help="largest batch [default: 256]",
    )


def _add_graph_flags(parser: Parser, *, precision: str = "fp32", static: bool = True) -> None:
    add_model_flags(parser)
    add = parser.add_argument
    add(
        "--output",
        type=path,
        metavar="FILE",
        help="file to write [default: the model's name in the current folder]",
    )
    add(
        "--precision",
        default=precision,
        type=str.lower,
        choices=("fp32", "fp16"),
        help=f"weights and arithmetic; for OpenVINO only the weights [default: {precision}]",
    )
    add("--uint8-input", action="store_true", help="take RGB bytes (N, H, W, 3); normalise in the graph")
    if static:
        add(
            "-b",
            "--batch-size",
            type=integer(1, MOST_IMAGES),
            metavar="IMAGES",
            help="size of batch for --static-batch",
        )
        add("--static-batch", action="store_true", help="fix the batch at -b, or 1 [default: any batch]")
    else:
        add(
            "-b",
            "--batch-size",
            type=integer(1, MOST_IMAGES),
            default=1,
            metavar="IMAGES",
            help="batch to tune for [default: 1]",
        )


def _export_weights(namespace: argparse.Namespace) -> int:
    from effnet.export.weights import export_weights

    export_weights(
        Path(namespace.checkpoint_path),
        Path(namespace.weight_path),
        ema=namespace.ema,
        num_classes=namespace.num_classes,
    )
    return 0


def _export_onnx(namespace: argparse.Namespace) -> int:
    from effnet.export.onnx import export_onnx

    model, metadata, options = _opened(namespace)
    options["target"] = "tensorrt" if namespace.trt else namespace.target
    say(export_onnx(model, metadata, _output(namespace, metadata, ".onnx"), **options))
    return 0


def _export_openvino(namespace: argparse.Namespace) -> int:
    from effnet.export.openvino import export_openvino

    model, metadata, options = _opened(namespace)
    say(export_openvino(model, metadata, _output(namespace, metadata, ".xml"), **options))
    return 0


def _export_tensorrt(namespace: argparse.Namespace) -> int:
    from effnet.export.tensorrt import export_tensorrt

    model, metadata, options = _opened(namespace)
    options |= {"batch_size": namespace.batch_size, "max_batch_size": namespace.max_batch_size}
    plan = export_tensorrt(model, metadata, _output(namespace, metadata, ".engine"), **options)
    say(plan.onnx)
    if plan.built:
        say(f"{plan.path}: built")
        return 0
    say(
        "TensorRT or a GPU is missing here: no engine has been built. This command, which has not been run, does:"
    )
    say(plan.command)
    return NOT_BUILT


def _opened(namespace: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """Return the model, its metadata and the options that all exporters share."""
    from effnet.export.trained import open_trained
    from effnet.runtime.processes import choose_device

    choice = model_choice(namespace)
    options = {
        "precision": namespace.precision,
        "preprocessing_in_graph": namespace.uint8_input,
        "device": choose_device(choice.device),
        "batch_size": (namespace.batch_size or 1) if getattr(namespace, "static_batch", False) else None,
    }
    trained = open_trained(choice)
    return trained.model, trained.metadata, options


def _output(namespace: argparse.Namespace, metadata: Any, suffix: str) -> Path:
    return Path(namespace.output or f"{metadata.model}{suffix}")


FORMATS = (
    Format(
        "weights",
        "weights of a checkpoint alone, as .pth or .safetensors",
        _add_weights_flags,
        _export_weights,
    ),
    Format("onnx", "an ONNX file, compared with PyTorch after writing", _add_onnx_flags, _export_onnx),
    Format(
        "openvino",
        "OpenVINO's .xml and .bin, compared with PyTorch after writing",
        _add_graph_flags,
        _export_openvino,
    ),
    Format(
        "tensorrt",
        "a TensorRT engine, or its ONNX file and the command that builds it",
        _add_tensorrt_flags,
        _export_tensorrt,
        description="Build a TensorRT engine. Without TensorRT or a GPU, write the ONNX file, print the trtexec "
        "command that builds the engine elsewhere, and end with exit code 3.",
    ),
)
"""the registry of formats"""
