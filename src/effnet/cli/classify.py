"""`effnet classify`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Verbs
from effnet.errors import UserError


def add_classify(verbs: Verbs, prog: str | None) -> None:
    """Add `effnet classify`."""
    parser = verbs.add_parser("classify", prog=prog, help="say what is in photographs")
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="files, folders, patterns; - reads standard input")
    add("--image", action="append", default=[], metavar="IMAGE", help="the same, as a flag")
    add("--arch", "-a", metavar="MODEL", help="model [default: that of the weights, else efficientnet-lite0]")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--pretrained", action="store_true", help="published weights, the default")
    weights.add_argument("--pretrained-from-file", metavar="FILE", help="weights or checkpoint of a training")
    add(
        "--pretrained-source",
        metavar="PUBLISHER",
        help="whose published weights [default: the first there are]",
    )
    add("--ema", action="store_true", help="a checkpoint's averaged weights")
    add("--precision", default="fp32", type=str.lower, choices=("fp32", "amp", "tf32", "fp16", "bf16"))
    add("--device", default="auto", choices=("auto", "cuda", "cpu"), help="where to run [default: auto]")
    add("--cpu", dest="device", action="store_const", const="cpu", help="the same as --device cpu")
    add("--image-size", type=int, metavar="PIXELS", help="side of the input [default: the weights']")
    add("--topk", type=int, default=5, metavar="K", help="answers for each image [default: 5]")
    add("--batch-size", "-b", type=int, default=16, metavar="IMAGES", help="images at a time [default: 16]")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(verb=_classify)


def _classify(namespace: argparse.Namespace) -> int:
    from effnet.inference.classify import classify
    from effnet.inference.engine import ModelChoice, open_torch_engine

    images = [*namespace.images, *namespace.image]
    if not images:
        raise UserError("name an image, a folder or a pattern; - reads standard input")
    for flag in ("topk", "batch_size", "image_size"):
        if (value := getattr(namespace, flag)) is not None and value < 1:
            raise UserError(f"--{flag.replace('_', '-')} must be at least 1, not {value}")
    file = namespace.pretrained_from_file
    choice = ModelChoice(
        arch=namespace.arch,
        weights=Path(file) if file else None,
        publisher=namespace.pretrained_source,
        ema=namespace.ema,
        image_size=namespace.image_size,
        device=namespace.device,
        precision=namespace.precision,
    )
    return classify(
        open_torch_engine(choice),
        images,
        topk=namespace.topk,
        batch_size=namespace.batch_size,
        as_json=namespace.json,
    )
