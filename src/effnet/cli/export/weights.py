"""`effnet export weights`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import MOST_CLASSES, integer, path
from effnet.cli.choice import add_trt_flag
from effnet.cli.export.form import Format
from effnet.cli.flags import Parser


def _add_flags(parser: Parser) -> None:
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


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.weights import export_weights

    export_weights(
        Path(namespace.checkpoint_path),
        Path(namespace.weight_path),
        ema=namespace.ema,
        num_classes=namespace.num_classes,
    )
    return 0


WEIGHTS = Format(
    "weights",
    "weights of a checkpoint alone, as .pth or .safetensors",
    _add_flags,
    _export,
)
