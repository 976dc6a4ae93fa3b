"""`effnet classify`."""

import argparse
from dataclasses import replace
from pathlib import Path

from effnet.cli.choice import (
    add_engine_flag,
    add_max_pixels_flag,
    add_model_flags,
    add_trt_flag,
    check_positive,
    model_choice,
)
from effnet.cli.flags import Commands
from effnet.runtime.errors import UserError


def add_classify(commands: Commands, prog: str | None) -> None:
    """Add `effnet classify`."""
    parser = commands.add_parser("classify", prog=prog, help="classify photographs")
    add = parser.add_argument
    add(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="files, folders, patterns; - reads standard input; a file of effnet export among them is the model",
    )
    add("--image", action="append", default=[], metavar="IMAGE", help="the same, as a flag")
    add_model_flags(parser)
    add_engine_flag(parser)
    add_trt_flag(parser, "--engine says what runs the model")
    add("--precision", default="fp32", type=str.lower, choices=("fp32", "amp", "tf32", "fp16", "bf16"))
    add("--topk", type=int, default=5, metavar="K", help="classes to show for each image [default: 5]")
    add("--batch-size", "-b", type=int, default=16, metavar="IMAGES", help="images per batch [default: 16]")
    add_max_pixels_flag(parser)
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_classify)


def _classify(namespace: argparse.Namespace) -> int:
    from effnet.inference.classify import classify
    from effnet.inference.engine import open_engine
    from effnet.inference.engines import is_exported

    named = [*namespace.images, *namespace.image]
    models = [name for name in named if is_exported(Path(name))]
    images = [name for name in named if name not in models]
    if len(models) > 1 or (models and namespace.pretrained_from_file):
        raise UserError(f"{models[-1]}: more than one model given; pass exactly one")
    if not images:
        raise UserError("no image given; pass a file, a folder or a pattern, or - for standard input")
    check_positive(namespace, "topk", "batch_size", "max_pixels")
    choice = model_choice(namespace)
    if models:
        choice = replace(choice, weights=Path(models[0]))
    return classify(
        open_engine(choice, namespace.engine),
        images,
        topk=namespace.topk,
        batch_size=namespace.batch_size,
        as_json=namespace.json,
        max_pixels=namespace.max_pixels,
    )
