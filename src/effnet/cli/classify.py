"""`effnet classify`."""

import argparse
import typing
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import MOST_CLASSES, MOST_IMAGES, integer, path
from effnet.cli.choice import (
    add_engine_flag,
    add_max_pixels_flag,
    add_model_flags,
    add_trt_flag,
    model_choice,
)
from effnet.cli.flags import Commands, Parser, add_flags
from effnet.cli.messages import shown_log
from effnet.recipe.choices import HeatMapName
from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.inference.auto.choose import Work
    from effnet.inference.classify import HeatMapSettings


def add_classify(commands: Commands, prog: str | None) -> None:
    """Add `effnet classify`."""
    parser = commands.add_parser("classify", prog=prog, help="classify photographs")
    add = parser.add_argument
    add(
        "images",
        nargs="*",
        type=path,
        metavar="IMAGE",
        help="files, folders, patterns; - reads standard input; a file of effnet export among them is the model",
    )
    add("--image", action="append", type=path, default=[], metavar="IMAGE", help="the same, as a flag")
    add_model_flags(parser)
    add_engine_flag(parser)
    add_flags(parser, ("tta",))
    add_trt_flag(parser, "--engine says what runs the model")
    add("--precision", default="fp32", type=str.lower, choices=("fp32", "amp", "tf32", "fp16", "bf16"))
    add(
        "--topk",
        type=integer(1, MOST_CLASSES),
        metavar="K",
        help="classes to show for each image [default: 5, or all if there are fewer; where an image may have several "
        "labels, all that reach their thresholds]",
    )
    add(
        "--batch-size",
        "-b",
        type=integer(1, MOST_IMAGES),
        default=16,
        metavar="IMAGES",
        help="images per batch [default: 16]",
    )
    add_max_pixels_flag(parser)
    add(
        "--unknown",
        action="store_true",
        help="answer `unknown` for images that look like none of the classes, by the rule that validation has chosen",
    )
    _add_explain_flags(parser)
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_classify)


def _add_explain_flags(parser: Parser) -> None:
    group = parser.add_argument_group("Heat maps, for weights in PyTorch")
    add = group.add_argument
    add(
        "--explain",
        type=path,
        metavar="DIR",
        help="write a heat map over each image to DIR: the parts that speak for its class",
    )
    add(
        "--explain-method",
        choices=typing.get_args(HeatMapName),
        help="how outputs and gradients become a map [default: grad-cam]",
    )
    add(
        "--explain-layer",
        type=path,
        metavar="LAYER",
        help="features, the head; or stem, layer1, layer2, ..., the stages, whose grids are finer [default: features]",
    )
    add(
        "--explain-class",
        type=path,
        metavar="CLASS",
        help="class to explain: a name, a folder's name or an index [default: the most probable one of each image]",
    )


def _heat_maps(namespace: argparse.Namespace) -> "HeatMapSettings | None":
    """Return the heat maps that the flags ask for.

    Raises:
        UserError: a flag about heat maps without `--explain`.
    """
    from effnet.inference.classify import HeatMapSettings

    given = {name: getattr(namespace, f"explain_{name}") for name in ("method", "layer", "class")}
    given = {name: value for name, value in given.items() if value is not None}
    if namespace.explain is None:
        if given:
            raise UserError(f"--explain-{next(iter(given))} needs --explain DIR")
        return None
    if "class" in given:
        given["label"] = given.pop("class")
    return HeatMapSettings(Path(namespace.explain), **given)


def _work(namespace: argparse.Namespace, images: list[str]) -> "Work":
    """Return the number of images, which are counted only for a choice among engines."""
    from effnet.inference.auto.choose import Work
    from effnet.inference.classify import STANDARD_INPUT
    from effnet.inference.images import named_images

    if namespace.engine != "auto":
        return Work(namespace.batch_size)
    return Work(
        namespace.batch_size,
        sum(1 if name == STANDARD_INPUT else len(named_images(name)) for name in images),
    )


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
    explain = _heat_maps(namespace)
    choice = model_choice(namespace)
    if models:
        choice = replace(choice, weights=Path(models[0]))
    with shown_log() if namespace.engine == "auto" else nullcontext():
        engine = open_engine(
            choice, namespace.engine, getattr(namespace, "tta", "none"), _work(namespace, images)
        )
    classes = len(engine.metadata.class_folders())
    if namespace.topk is not None and 0 < classes < namespace.topk:
        raise UserError(f"--topk {namespace.topk}: {engine.metadata.model} has {classes} classes")
    return classify(
        engine,
        images,
        topk=namespace.topk,
        batch_size=namespace.batch_size,
        as_json=namespace.json,
        unknown=namespace.unknown,
        max_pixels=namespace.max_pixels,
        explain=explain,
    )
