"""Flags for the choice of a trained model, shared by all commands that use one."""

import argparse
import typing
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import (
    MOST_CLASSES,
    MOST_DECODED,
    MOST_IMAGES,
    MOST_PIXELS,
    MOST_WORKERS,
    integer,
    path,
)
from effnet.recipe import DataSettings, settings
from effnet.recipe.fields import value_type
from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.export.trained import ModelChoice


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `model_choice` reads."""
    add = parser.add_argument
    add(
        "--arch",
        "-a",
        type=path,
        metavar="MODEL",
        help="model, or hf-hub:OWNER/NAME for one on the hub [default: that of the weights, else efficientnet-lite0]",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--pretrained", action="store_true", help="published weights, the default")
    weights.add_argument(
        "--pretrained-from-file",
        type=path,
        metavar="FILE",
        help="weights or checkpoint of a training, or hf-hub:OWNER/NAME",
    )
    add(
        "--pretrained-source",
        type=path,
        metavar="PUBLISHER",
        help="publisher of the weights [default: the first that has any]",
    )
    add("--ema", action="store_true", help="use a checkpoint's averaged weights")
    add_device_flags(parser)
    add_image_size_flag(parser)
    add(
        "--num-classes",
        type=integer(1, MOST_CLASSES),
        metavar="N",
        help="refuse weights of another number of classes",
    )


def add_trt_flag(parser: argparse._ActionsContainer, reason: str) -> None:
    """Add ``--trt BOOL``, which NVIDIA's command lines pass to scripts that do not need it.

    Args:
        parser: parser of the command, or a group of it.
        reason: why the flag has no effect, for the help.
    """
    parser.add_argument(
        "--trt",
        nargs="?",
        const=True,
        type=truth,
        default=argparse.SUPPRESS,
        metavar="BOOL",
        help=f"accepted for NVIDIA's command lines; {reason}",
    )


def truth(text: str) -> bool:
    """Parse ``True`` or ``False``, in either case.

    Raises:
        argparse.ArgumentTypeError: any other text.
    """
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be True or False, not {text!r}")
    return text.lower() == "true"


def add_engine_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--engine``, as for evaluation."""
    (leaf,) = (leaf for _, _, leaf in settings() if leaf.name == "engine")
    parser.add_argument(
        "--engine",
        choices=typing.get_args(value_type(leaf)[0]),
        help="engine that runs the model; auto measures which is the fastest here and keeps that [default: the one "
        "that the file is for, torch for weights]",
    )


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--cpu``."""
    add = parser.add_argument
    add("--device", default="auto", choices=("auto", "cuda", "cpu"), help="where to run [default: auto]")
    add("--cpu", dest="device", action="store_const", const="cpu", help="the same as --device cpu")


def add_image_size_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--image-size`` of the model's input."""
    parser.add_argument(
        "--image-size",
        type=integer(32, MOST_PIXELS),
        metavar="PIXELS",
        help="side of the input [default: the weights']",
    )


def add_batch_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--batch-size`` and ``--workers``, for commands that decode many images in processes."""
    add = parser.add_argument
    add(
        "--batch-size",
        "-b",
        type=integer(1, MOST_IMAGES),
        default=32,
        metavar="IMAGES",
        help="images per batch [default: 32]",
    )
    add(
        "-j",
        "--workers",
        type=integer(0, MOST_WORKERS),
        metavar="N",
        help="processes that decode images [default: one a core, at most 16]",
    )


def add_max_pixels_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``, as for training."""
    default = DataSettings.max_pixels
    parser.add_argument(
        "--max-pixels",
        type=integer(1, MOST_DECODED),
        default=default,
        metavar="PIXELS",
        help=f"refuse larger images before they are decoded, as broken ones [default: {default}]",
    )


def model_choice(namespace: argparse.Namespace) -> "ModelChoice":
    """Return the model that the flags select."""
    from effnet.export.trained import ModelChoice
    from effnet.weights.hub import is_hub_name, local_source

    arch, file = namespace.arch, namespace.pretrained_from_file
    if is_hub_name(arch):
        if file:
            raise UserError(f"--arch {arch} and --pretrained-from-file contradict each other; give one")
        arch, file = None, arch
    file = local_source(file) if file else None
    return ModelChoice(
        arch=arch,
        weights=Path(file) if file else None,
        publisher=namespace.pretrained_source,
        ema=namespace.ema,
        image_size=namespace.image_size,
        num_classes=namespace.num_classes,
        device=namespace.device,
        precision=getattr(namespace, "precision", "fp32"),
    )
