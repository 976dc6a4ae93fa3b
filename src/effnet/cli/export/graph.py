"""Flags of the formats that hold a graph, and the model and options that they stand for."""

import argparse
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.cli.arguments import MOST_IMAGES, integer, path
from effnet.cli.choice import add_model_flags, model_choice
from effnet.cli.flags import Parser
from effnet.recipe.choices import EngineName, FeaturesName

if TYPE_CHECKING:
    from effnet.export.onnx import ExportedFile
    from effnet.export.writer import Order, Writer, Written


def add_output_flag(parser: Parser) -> None:
    """Add --output, for `output_path`."""
    parser.add_argument(
        "--output",
        type=path,
        metavar="FILE",
        help="file to write [default: the model's name in the current folder]",
    )


def add_bytes_flag(parser: Parser) -> None:
    """Add --uint8-input."""
    parser.add_argument(
        "--uint8-input", action="store_true", help="take RGB bytes (N, H, W, 3); normalise in the graph"
    )


def add_graph_flags(parser: Parser, *, precision: str = "fp32", static: bool = True) -> None:
    """Add the flags that all formats of graphs have.

    Args:
        parser: the subcommand's.
        precision: the default.
        static: batches may be of one fixed size; otherwise -b is the one to tune for.
    """
    add_model_flags(parser)
    add = parser.add_argument
    add_output_flag(parser)
    add(
        "--precision",
        default=precision,
        type=str.lower,
        choices=("fp32", "fp16"),
        help=f"weights and arithmetic; for OpenVINO only the weights [default: {precision}]",
    )
    add_bytes_flag(parser)
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


def add_file_flags(parser: Parser, *decodes: str) -> None:
    """Add the flags that say what a file does beside the network, for `file_options`.

    Args:
        parser: the subcommand's.
        decodes: values of --decode beside ``none``.
    """
    known = {
        "resize": "resize and crop RGB bytes (N, H, W, 3) of any size as validation does",
        "jpeg": "take the bytes of a JPEG or PNG file, too, one in a call",
    }
    parser.add_argument(
        "--decode",
        default="none",
        choices=("none", *decodes),
        help=f"in the graph, {'; '.join(f'{name}: {known[name]}' for name in decodes)} [default: none]",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also return probabilities, with the temperature that validation has chosen, if it has",
    )
    parser.add_argument(
        "--features",
        nargs="?",
        const="pooled",
        choices=typing.get_args(FeaturesName),
        help="return features in place of logits: pooled (N, C), the default, or map (N, C, H, W)",
    )


def file_options(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return the options of exporters that `add_file_flags` stand for."""
    return {name: getattr(namespace, name) for name in ("decode", "probabilities", "features")}


def opened(namespace: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
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


def graph_writer(
    suffix: str, export: "Callable[..., ExportedFile]", engine: EngineName, *packages: str
) -> "Writer":
    """Return the part of `effnet export all` of a format that holds a graph.

    Args:
        suffix: of the file's name.
        export: writes the file: (model, metadata, path, device=...).
        engine: runs it.
        packages: what both need.
    """
    from effnet.export.packages import missing_package
    from effnet.export.writer import Writer, Written

    def write(order: "Order", path: Path) -> "Written":
        exported = export(order.trained.model, order.trained.metadata, path, device=order.device)
        return Written(path, exported.size, exported.difference)

    return Writer(suffix, lambda _: missing_package(*packages), write, engine)


def output_path(namespace: argparse.Namespace, metadata: Any, suffix: str) -> Path:
    """Return the file to write: that of --output, or the model's name with the format's suffix."""
    return Path(namespace.output or f"{metadata.model}{suffix}")
