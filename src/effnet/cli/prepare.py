"""`effnet prepare`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import MOST_WORKERS, integer, path
from effnet.cli.choice import add_max_pixels_flag
from effnet.cli.flags import Commands, Parser
from effnet.cli.messages import say
from effnet.cli.sources import DATA_HELP, add_source_flags, source_recipe
from effnet.runtime.progress import working


def add_prepare(commands: Commands, prog: str | None) -> None:
    """Add `effnet prepare`."""
    parser = commands.add_parser("prepare", prog=prog, help="prepare or check a data set")
    forms = parser.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    sample = forms.add_parser("sample", help="write a small real data set: handwritten digits")
    sample.add_argument("dir", type=path, metavar="DIR", help="folder to write")
    sample.set_defaults(command=_prepare_sample)
    _add_pack(forms)
    _add_check(forms)
    _add_imagenet(forms)


def _prepare_sample(namespace: argparse.Namespace) -> int:
    from effnet.data.sample import prepare_sample

    with working("writing the sample"):
        prepare_sample(Path(namespace.dir))
    return 0


def _add_pack(forms: Commands) -> None:
    pack = forms.add_parser(
        "pack", help="resize a data set once and store it in a few large files that are fast to read"
    )
    pack.add_argument("dir", type=path, metavar="DIR", help=DATA_HELP)
    pack.add_argument("out", type=path, metavar="OUT", help="folder to write; an interrupted run is resumed")
    pack.add_argument(
        "--size",
        type=integer(32, 8192),
        default=320,
        metavar="PIXELS",
        help="shorter side, never enlarged [default: 320]",
    )
    form = pack.add_mutually_exclusive_group()
    form.add_argument(
        "--quality", type=integer(1, 100), default=95, metavar="Q", help="of JPEG, 1 to 100 [default: 95]"
    )
    form.add_argument(
        "--raw",
        action="store_true",
        help="store pixels instead: three times as fast to read, six times as large",
    )
    pack.add_argument(
        "-j",
        "--workers",
        type=integer(0, MOST_WORKERS),
        metavar="N",
        help="processes [default: one a core, at most 16]",
    )
    pack.add_argument(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="stop at a file that can't be decoded, or leave it out and list it [default: stop]",
    )
    add_max_pixels_flag(pack)
    add_source_flags(pack)
    pack.add_argument("--verify", action="store_true", help="compare every written file with its checksum")
    pack.set_defaults(command=_prepare_pack)


def _prepare_pack(namespace: argparse.Namespace) -> int:
    from effnet.data.pack import PackSettings, pack
    from effnet.data.packed import verify

    out = Path(namespace.out)
    settings = PackSettings(namespace.size, None if namespace.raw else namespace.quality)
    counts = pack(
        Path(namespace.dir),
        out,
        settings,
        workers=namespace.workers,
        skip_bad=namespace.on_bad_image == "skip",
        max_pixels=namespace.max_pixels,
        show_progress=True,
        recipe=source_recipe(namespace),
    )
    say(f"{out}: {', '.join(f'{count} images in {split}' for split, count in counts.items())}")
    if namespace.verify:
        verify(out, show_progress=True)
        say(f"{out}: every file has its checksum")
    return 0


def _add_check(forms: Commands) -> None:
    check = forms.add_parser(
        "check",
        help="decode every image; report broken, equal and odd ones, class balance, sizes and leakage",
        description="Exit code: 0 without problems, 1 with broken images, empty classes or leakage, 2 for bad input.",
    )
    check.add_argument("dir", type=path, metavar="DIR", help=DATA_HELP)
    check.add_argument(
        "-j",
        "--workers",
        type=integer(0, MOST_WORKERS),
        metavar="N",
        help="processes [default: one a core, at most 16]",
    )
    add_max_pixels_flag(check)
    add_source_flags(check, divides=False)
    check.add_argument("--json", action="store_true", help="print everything as one JSON object")
    check.set_defaults(command=_prepare_check)


def _prepare_check(namespace: argparse.Namespace) -> int:
    from effnet.cli.check import print_report
    from effnet.data.check import check

    report = check(
        Path(namespace.dir),
        workers=namespace.workers,
        max_pixels=namespace.max_pixels,
        show_progress=not namespace.json,
        settings=source_recipe(namespace).data,
    )
    print_report(report, as_json=namespace.json)
    return 1 if report.problems else 0


def _add_imagenet(forms: Commands) -> None:
    imagenet = forms.add_parser(
        "imagenet", help="unpack ImageNet's archives into class folders; an interrupted run is resumed"
    )
    imagenet.add_argument("train_tar", type=path, metavar="TRAIN_TAR", help="ILSVRC2012_img_train.tar")
    imagenet.add_argument("val_tar", type=path, metavar="VAL_TAR", help="ILSVRC2012_img_val.tar")
    imagenet.add_argument(
        "out", type=path, metavar="OUT", help="folder to write, with train/<class>/ and val/<class>/"
    )
    classes = imagenet.add_mutually_exclusive_group(required=True)
    classes.add_argument(
        "--devkit",
        type=path,
        metavar="FILE",
        help="ILSVRC2012_devkit_t12.tar.gz, which has the validation images' classes",
    )
    classes.add_argument(
        "--val-classes",
        type=path,
        metavar="FILE",
        help="class folder of each validation image, one per line, in their order",
    )
    imagenet.set_defaults(command=_prepare_imagenet)


def _prepare_imagenet(namespace: argparse.Namespace) -> int:
    from effnet.data.imagenet import prepare_imagenet, read_devkit, read_val_classes

    if namespace.devkit:
        val_classes = read_devkit(Path(namespace.devkit))
    else:
        val_classes = read_val_classes(Path(namespace.val_classes))
    out = Path(namespace.out)
    tars = Path(namespace.train_tar), Path(namespace.val_tar)
    summary = prepare_imagenet(*tars, out, val_classes, show_progress=True)
    say(f"{out}: " + ", ".join(f"{images:,} images in {split}" for split, images in summary.images.items()))
    for warning in summary.warnings:
        say(f"warning: {warning}")
    return 0
