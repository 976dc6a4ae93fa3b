"""The verbs of `effnet`: what each takes, and what it calls."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from effnet.cli.flags import Parser, add_recipe_flags, given_settings
from effnet.errors import UserError
from effnet.recipe import Recipe, read_recipe

Verb = Callable[[argparse.Namespace], int]
Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


def run(argv: Sequence[str], prog: str | None = None) -> int:
    """Parse and run; gives the exit code."""
    parser = Parser(prog="effnet", description="Train, quantize and deploy EfficientNet image classifiers.")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    for add in (
        _add_train,
        _add_evaluate,
        _add_classify,
        _add_export,
        _add_prepare,
        _add_models,
        _add_benchmark,
    ):
        add(verbs, prog)
    namespace = parser.parse_args(argv)
    verb: Verb = namespace.verb
    return verb(namespace)


def _add_train(verbs: Verbs, prog: str | None) -> None:
    name = prog or "effnet train"
    parser = verbs.add_parser(
        "train", prog=name, usage=f"{name} DIR [options]", help="train a model on a folder of images"
    )
    _add_data_flags(parser)
    parser.set_defaults(verb=_train)


def _add_evaluate(verbs: Verbs, prog: str | None) -> None:
    name = prog or "effnet evaluate"
    parser = verbs.add_parser(
        "evaluate", prog=name, usage=f"{name} DIR [options]", help="validate a checkpoint or weights"
    )
    _add_data_flags(parser)
    parser.set_defaults(verb=_train, evaluate=True)


def _add_data_flags(parser: Parser) -> None:
    parser.add_argument("dir", metavar="DIR", nargs="?", help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("--recipe", metavar="FILE", help="settings as YAML; flags override them")
    parser.add_argument(
        "--json", action="store_true", help="evaluation: print one JSON object with the metrics"
    )
    add_recipe_flags(parser)


def _train(namespace: argparse.Namespace) -> int:
    from effnet.inference.evaluate import evaluate
    from effnet.training.run import train

    recipe = _recipe(namespace)
    if hasattr(namespace, "jit"):
        print("--jit: TorchScript is superseded; use --compile for a compiled training step")
    if namespace.dir is None and recipe.data.data_backend != "synthetic":
        raise UserError("name the folder of images, or use --data-backend synthetic")
    path = Path(namespace.dir) if namespace.dir is not None else None
    if recipe.run.evaluate:
        evaluate(recipe, path, as_json=namespace.json)
    else:
        train(recipe, path)
    return 0


def _recipe(namespace: argparse.Namespace) -> Recipe:
    """The recipe of a command: defaults, then what a resumed checkpoint says, then the file, then the flags."""
    from effnet.training.checkpoint import inherited_settings

    flags = given_settings(namespace)
    from_file = read_recipe(namespace.recipe) if namespace.recipe else {}
    resumed = {**from_file, **flags}.get("resume")
    inherited = inherited_settings(resumed) if resumed else _named_model({**from_file, **flags})
    return Recipe().replace({**inherited, **from_file, **flags})


def _named_model(given: dict[str, Any]) -> dict[str, Any]:
    """The model that a weight file says it is of, where the command names none."""
    from effnet.models.weights import read_metadata

    file = given.get("pretrained_from_file")
    metadata = read_metadata(file) if file and "arch" not in given else None
    return {"arch": metadata.model} if metadata else {}


def _add_classify(verbs: Verbs, prog: str | None) -> None:
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


def _add_export(verbs: Verbs, prog: str | None) -> None:
    parser = verbs.add_parser("export", prog=prog, help="write a model in another form")
    forms = parser.add_subparsers(metavar="FORM", required=True, parser_class=Parser)
    weights = forms.add_parser("weights", help="pure weights of a checkpoint, as .pth or .safetensors")
    add_weights_flags(weights)


def add_weights_flags(parser: Parser) -> None:
    """Flags of `export weights`."""
    parser.add_argument("--checkpoint-path", required=True, metavar="FILE", help="checkpoint of a training")
    parser.add_argument(
        "--weight-path", required=True, metavar="FILE", help="file to write, .pth or .safetensors"
    )
    parser.add_argument("--ema", action="store_true", help="the averaged weights")
    parser.set_defaults(verb=_export_weights)


def _export_weights(namespace: argparse.Namespace) -> int:
    from effnet.export.weights import export_weights

    export_weights(Path(namespace.checkpoint_path), Path(namespace.weight_path), ema=namespace.ema)
    return 0


def _add_prepare(verbs: Verbs, prog: str | None) -> None:
    parser = verbs.add_parser("prepare", prog=prog, help="make or check a data set")
    forms = parser.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    sample = forms.add_parser("sample", help="write a small real data set: handwritten digits")
    sample.add_argument("dir", metavar="DIR", help="folder to write")
    sample.set_defaults(verb=_prepare_sample)
    _add_pack(forms)
    _add_check(forms)
    _add_imagenet(forms)


def _prepare_sample(namespace: argparse.Namespace) -> int:
    from effnet.data.sample import prepare_sample

    prepare_sample(Path(namespace.dir))
    return 0


def _add_pack(forms: Verbs) -> None:
    pack = forms.add_parser(
        "pack", help="resize a data set once, into a few large files that are fast to read"
    )
    pack.add_argument("dir", metavar="DIR", help="folder with train/<class>/ and val/<class>/")
    pack.add_argument("out", metavar="OUT", help="folder to write; an interrupted packing is finished")
    pack.add_argument(
        "--size", type=int, default=320, metavar="PIXELS", help="shorter side, never enlarged [default: 320]"
    )
    form = pack.add_mutually_exclusive_group()
    form.add_argument("--quality", type=int, default=95, metavar="Q", help="of JPEG, 1 to 100 [default: 95]")
    form.add_argument(
        "--raw", action="store_true", help="pixels as they are: three times as fast, six times as large"
    )
    pack.add_argument(
        "-j", "--workers", type=int, metavar="N", help="processes [default: one a core, at most 16]"
    )
    pack.add_argument(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="a file that can't be decoded stops the packing, or is left out and listed [default: stop]",
    )
    pack.add_argument("--verify", action="store_true", help="then compare every file with its checksum")
    pack.set_defaults(verb=_prepare_pack)


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
        show_progress=True,
    )
    print(f"{out}: {', '.join(f'{count} images in {split}' for split, count in counts.items())}")
    if namespace.verify:
        verify(out)
        print(f"{out}: every file has its checksum")
    return 0


def _add_check(forms: Verbs) -> None:
    check = forms.add_parser(
        "check",
        help="decode every image; report broken, equal and odd ones, class balance, sizes and leakage",
        description="Exit code: 0 without problems, 1 with broken images, empty classes or leakage, 2 for bad input.",
    )
    check.add_argument(
        "dir", metavar="DIR", help="folder with train/<class>/ and val/<class>/, or one of them"
    )
    check.add_argument(
        "-j", "--workers", type=int, metavar="N", help="processes [default: one a core, at most 16]"
    )
    check.add_argument("--json", action="store_true", help="print everything as one JSON object")
    check.set_defaults(verb=_prepare_check)


def _prepare_check(namespace: argparse.Namespace) -> int:
    from effnet.cli.check import print_report
    from effnet.data.check import check

    report = check(Path(namespace.dir), workers=namespace.workers, show_progress=not namespace.json)
    print_report(report, as_json=namespace.json)
    return 1 if report.problems else 0


def _add_imagenet(forms: Verbs) -> None:
    imagenet = forms.add_parser(
        "imagenet", help="unpack ImageNet's archives into class folders; an interrupted run is finished"
    )
    imagenet.add_argument("train_tar", metavar="TRAIN_TAR", help="ILSVRC2012_img_train.tar")
    imagenet.add_argument("val_tar", metavar="VAL_TAR", help="ILSVRC2012_img_val.tar")
    imagenet.add_argument("out", metavar="OUT", help="folder to write, with train/<class>/ and val/<class>/")
    classes = imagenet.add_mutually_exclusive_group(required=True)
    classes.add_argument(
        "--devkit",
        metavar="FILE",
        help="ILSVRC2012_devkit_t12.tar.gz, which has the validation images' classes",
    )
    classes.add_argument(
        "--val-classes",
        metavar="FILE",
        help="class folder of each validation image, one a line, in their order",
    )
    imagenet.set_defaults(verb=_prepare_imagenet)


def _prepare_imagenet(namespace: argparse.Namespace) -> int:
    from effnet.data.imagenet import prepare_imagenet, read_devkit, read_val_classes

    if namespace.devkit:
        val_classes = read_devkit(Path(namespace.devkit))
    else:
        val_classes = read_val_classes(Path(namespace.val_classes))
    out = Path(namespace.out)
    tars = Path(namespace.train_tar), Path(namespace.val_tar)
    summary = prepare_imagenet(*tars, out, val_classes, show_progress=True)
    print(f"{out}: " + ", ".join(f"{images:,} images in {split}" for split, images in summary.images.items()))
    for warning in summary.warnings:
        print(f"warning: {warning}")
    return 0


def _add_models(verbs: Verbs, prog: str | None) -> None:
    parser = verbs.add_parser("models", prog=prog, help="list the models")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(verb=_models)


def _models(namespace: argparse.Namespace) -> int:
    from effnet.cli.models import print_models

    print_models(as_json=namespace.json)
    return 0


def _add_benchmark(verbs: Verbs, prog: str | None) -> None:
    parser = verbs.add_parser("benchmark", prog=prog, help="measure speed beside other implementations")
    forms = parser.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    train = forms.add_parser("train", help="training steps on synthetic images")
    train.add_argument("--json", metavar="FILE", help="write the result here")
    train.add_argument("--no-peers", dest="peers", action="store_false", help="this project alone")
    train.add_argument(
        "--rounds", type=int, default=5, help="rounds, of which the median is taken [default: 5]"
    )
    train.add_argument("--steps", type=int, default=5, help="steps of each contender in a round [default: 5]")
    add_recipe_flags(train)
    train.set_defaults(verb=_benchmark_train)
    _add_benchmark_data(forms)


def _benchmark_train(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.train import TrainBenchmark, benchmark_train, print_table, write

    recipe = Recipe().replace(given_settings(namespace))
    result = benchmark_train(TrainBenchmark(recipe, namespace.peers, namespace.rounds, namespace.steps))
    print_table(result)
    if namespace.json:
        write(result, Path(namespace.json))
    return 0


def _add_benchmark_data(forms: Verbs) -> None:
    data = forms.add_parser("data", help="input pipelines on a folder of images")
    data.add_argument("dir", metavar="DIR", help="folder with train/<class>/, or with class folders")
    data.add_argument("--json", metavar="FILE", help="write the result here")
    data.add_argument("--image-size", type=int, default=224, metavar="PIXELS", help="[default: 224]")
    data.add_argument("-b", "--batch-size", type=int, default=64, metavar="IMAGES", help="[default: 64]")
    data.add_argument(
        "-j", "--workers", type=int, metavar="N", help="processes or threads [default: one a core]"
    )
    data.add_argument(
        "--repeats", type=int, default=5, help="rounds, of which the median is taken [default: 5]"
    )
    data.add_argument(
        "--images",
        type=int,
        default=2000,
        help="images in a round; the folder's are repeated or thinned out [default: 2000]",
    )
    data.add_argument(
        "--packed",
        action="append",
        default=[],
        metavar="OUT",
        help="packed set of the same images, may be repeated [default: they are packed into a temporary folder]",
    )
    data.add_argument(
        "--only", action="append", metavar="NAME", help="a contender to run, may be repeated [default: all]"
    )
    data.set_defaults(verb=_benchmark_data)


def _benchmark_data(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.data import DataBenchmark, benchmark_data, print_table, write

    settings = DataBenchmark(
        Path(namespace.dir),
        packed=[Path(out) for out in namespace.packed],
        images=namespace.images,
        image_size=namespace.image_size,
        batch_size=namespace.batch_size,
        workers=namespace.workers,
        repeats=namespace.repeats,
        only=namespace.only,
    )
    result = benchmark_data(settings)
    print_table(result)
    if namespace.json:
        write(result, Path(namespace.json))
    return 0
