"""`effnet benchmark inference`."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.cli.arguments import MOST_IMAGES, MOST_PIXELS, integer, number, path
from effnet.cli.benchmark.result import PRECISIONS, add_baselines_flag, add_result_flags, conclude
from effnet.cli.flags import Commands
from effnet.cli.messages import say, shown_log
from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.benchmark.inference import InferenceBenchmark


def add_inference(forms: Commands) -> None:
    """Add `effnet benchmark inference`."""
    parser = forms.add_parser(
        "inference",
        help="inference by engine, model, batch and precision",
        description="Measure engines beside torchvision and timm on random images, or, with --compare, compare "
        "files with each other. All take turns in one process.",
    )
    add = parser.add_argument
    add(
        "--compare",
        nargs="+",
        type=path,
        metavar="FILE",
        help="exported files and weights, on every engine that reads them; .tflite and .pte in their own runtimes",
    )
    add("--data", type=path, metavar="DIR", help="--compare: folder with val/<class>/ to take top-1 on")
    add(
        "--class-map",
        type=path,
        metavar="FILE",
        help="--compare: class folders in the order of the classes, one per line",
    )
    add(
        "--arch",
        "-a",
        nargs="+",
        type=path,
        default=["efficientnet-b0"],
        metavar="MODEL",
        help="[default: efficientnet-b0]",
    )
    add(
        "--batch-size",
        "-b",
        nargs="+",
        type=integer(1, MOST_IMAGES),
        default=[1, 8],
        metavar="IMAGES",
        help="[default: 1 8]",
    )
    add(
        "--precision",
        nargs="+",
        type=str.lower,
        default=["fp32"],
        choices=PRECISIONS,
        help="[default: fp32]",
    )
    add(
        "--engine",
        nargs="+",
        type=path,
        metavar="ENGINE",
        help="auto among them [default: all that run here]",
    )
    add("--image-size", type=integer(32, MOST_PIXELS), metavar="PIXELS", help="[default: each model's own]")
    add("--device", default="auto", choices=("auto", "cuda", "cpu"), help="[default: auto]")
    add_baselines_flag(parser)
    add("--eager-only", dest="compiled", action="store_false", help="without torch.compile")
    add(
        "--rounds",
        type=integer(1, 1000),
        default=7,
        metavar="N",
        help="rounds, of which the median is taken [default: 7]",
    )
    add(
        "--steps",
        type=integer(1, 10**6),
        default=100,
        metavar="N",
        help="steps in a turn at most [default: 100]",
    )
    add("--seconds", type=number(3600), default=0.5, help="length of a turn [default: 0.5]")
    add(
        "--choose",
        action="store_true",
        help="measure again what --engine auto takes, for these models or the files of --compare, and keep it",
    )
    add("--forget", action="store_true", help="remove all that is kept for --engine auto")
    add_result_flags(parser, markdown="the tables")
    parser.set_defaults(command=_benchmark_inference)


def _benchmark_inference(namespace: argparse.Namespace) -> int:
    if namespace.data and not namespace.compare:
        raise UserError("--data goes with --compare FILE...")
    if namespace.forget:
        from effnet.runtime.engine_choices import EngineChoices

        count = EngineChoices().forget()
        say(f"{count} choice{'s'[: count != 1]} of --engine auto removed")
        if not namespace.choose:
            return 0
    is_shown = namespace.choose or "auto" in (namespace.engine or ())
    with shown_log() if is_shown else nullcontext():
        result, text = _measured(namespace)
    return conclude(namespace, result, lambda _: print(text), markdown=text)


def _common(namespace: argparse.Namespace) -> dict[str, Any]:
    given = {"batch_sizes": namespace.batch_size, "engines": namespace.engine}
    return {**given, **{name: getattr(namespace, name) for name in ("device", "rounds", "steps", "seconds")}}


def _measured(namespace: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if namespace.choose:
        return _choose(namespace)
    return _compare(namespace) if namespace.compare else _sweep(namespace)


def _choose(namespace: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from effnet.benchmark.choices import choose_again, report

    if namespace.engine:
        raise UserError("--choose compares all engines that run here; leave --engine out")
    result = choose_again(_settings(namespace), [Path(file) for file in namespace.compare or ()])
    return result, report(result)


def _sweep(namespace: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from effnet.benchmark.inference import benchmark_inference, report

    result = benchmark_inference(_settings(namespace))
    return result, report(result)


def _settings(namespace: argparse.Namespace) -> "InferenceBenchmark":
    from effnet.benchmark.inference import InferenceBenchmark

    return InferenceBenchmark(
        archs=namespace.arch,
        precisions=namespace.precision,
        image_size=namespace.image_size,
        baselines=namespace.baselines,
        compiled=namespace.compiled,
        **_common(namespace),
    )


def _compare(namespace: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from effnet.benchmark.compare import Comparison, benchmark_files, report

    settings = Comparison(
        files=[Path(file) for file in namespace.compare],
        data=Path(namespace.data) if namespace.data else None,
        class_map=namespace.class_map,
        **_common(namespace),
    )
    result = benchmark_files(settings)
    return result, report(result)
