"""`effnet predict`."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import MOST_CLASSES, integer, path
from effnet.cli.choice import add_batch_flags, add_engine_flag, add_model_flags, model_choice
from effnet.cli.flags import Commands, add_flags
from effnet.cli.messages import say, shown_log
from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.export.trained import ModelChoice
    from effnet.inference.predict.run import PredictSummary

_DATA = ("source", "path_column", "root", "max_pixels")
"""settings of the source"""
_WHOLE = "0/1"


def add_predict(commands: Commands, prog: str | None) -> None:
    """Add `effnet predict`."""
    parser = commands.add_parser(
        "predict",
        prog=prog,
        help="write predictions for any number of images to a table",
        description="A call that was killed goes on where it was. Exit code 0 also with images that can't be decoded: "
        "they are listed in FILE.bad.csv.",
    )
    add = parser.add_argument
    add(
        "images",
        nargs="?",
        type=path,
        metavar="SOURCE",
        help="folder of images, searched with its subfolders",
    )
    add(
        "model",
        nargs="?",
        type=path,
        metavar="MODEL",
        help="weights, a run's folder, a file of effnet export, or a model's name",
    )
    add(
        "--out",
        "-o",
        required=True,
        type=path,
        metavar="FILE",
        help="table to write: .parquet, .csv or .jsonl",
    )
    add_model_flags(parser)
    add_engine_flag(parser)
    add("--precision", default="fp32", type=str.lower, choices=("fp32", "amp", "tf32", "fp16", "bf16"))
    add(
        "--topk",
        type=integer(1, MOST_CLASSES),
        default=5,
        metavar="K",
        help="classes to name for each image, all if there are fewer [default: 5]",
    )
    add("--probabilities", action="store_true", help="add the probabilities of all classes")
    add("--features", action="store_true", help="add the pooled features, float32; for weights in PyTorch")
    add_batch_flags(parser)
    add(
        "--shard",
        type=path,
        default=_WHOLE,
        metavar="I/N",
        help="compute share I, from 0, of N, for N machines with a common folder; whoever ends last writes FILE",
    )
    add("--merge", action="store_true", help="only write FILE, from the parts of its shards")
    add(
        "--ray",
        nargs="?",
        const="local",
        type=path,
        metavar="ADDRESS",
        help="compute on a Ray cluster at this address, by --workers processes; on this machine without an address",
    )
    add("--overwrite", action="store_true", help="replace FILE, and parts of another table")
    add_flags(parser, (*_DATA, "tta"))
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_predict)


def _predict(namespace: argparse.Namespace) -> int:
    from effnet.inference.predict.job import PredictJob
    from effnet.inference.predict.run import merge, run_job

    out = Path(namespace.out)
    with shown_log():
        if namespace.merge:
            _report(merge(out), as_json=namespace.json)
            return 0
        if namespace.images is None:
            raise UserError("no source given; pass a folder of images")
        if namespace.ray is not None and namespace.shard != _WHOLE:
            raise UserError("--shard: --ray divides the work itself; give one of the two")
        job = PredictJob(
            Path(namespace.images),
            _choice(namespace),
            {name: getattr(namespace, name) for name in _DATA if hasattr(namespace, name)},
            namespace.engine,
            namespace.batch_size,
            namespace.topk,
            namespace.probabilities,
            namespace.features,
            getattr(namespace, "tta", "none"),
        )
        summary = run_job(
            job,
            out,
            workers=namespace.workers,
            shard=_shard(namespace.shard),
            overwrite=namespace.overwrite,
            ray=namespace.ray,
        )
    _report(summary, as_json=namespace.json)
    return 0


def _choice(namespace: argparse.Namespace) -> "ModelChoice":
    from effnet.inference.classifier import choice_of

    choice = model_choice(namespace)
    if namespace.model is None:
        return choice
    if choice.weights is not None or choice.arch is not None:
        raise UserError(f"{namespace.model}: more than one model given; pass exactly one")
    named = choice_of(namespace.model, ema=namespace.ema or None)
    return replace(choice, arch=named.arch, weights=named.weights, ema=named.ema)


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise UserError(f"--shard {text}: must be I/N with I from 0 to N - 1, such as 0/4")
    return int(number), int(count)


def _report(summary: "PredictSummary", *, as_json: bool) -> None:
    from effnet.runtime.text import to_json

    if as_json:
        print(to_json(summary.to_dict()))
        return
    rate = f", {summary.images_per_s:,.0f} images/s" if summary.computed else ""
    if not summary.complete:
        say(f"{summary.out}: {summary.computed:,} images done{rate}; the other shards are not complete yet")
        return
    say(f"{summary.out}: {summary.images - (summary.bad or 0):,} images{rate}")
    if summary.bad:
        say(f"{summary.bad:,} images can't be decoded; they are listed in {summary.bad_list}")
