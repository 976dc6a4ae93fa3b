"""`effnet export`."""

import argparse
from pathlib import Path

from effnet.cli.choice import add_model_flags, check_positive, model_choice
from effnet.cli.flags import Parser, Verbs

_TARGETS = ("onnxruntime", "openvino", "tensorrt")


def add_export(verbs: Verbs, prog: str | None) -> None:
    """Add `effnet export`."""
    parser = verbs.add_parser("export", prog=prog, help="write a model in another form")
    forms = parser.add_subparsers(metavar="FORM", required=True, parser_class=Parser)
    weights = forms.add_parser("weights", help="pure weights of a checkpoint, as .pth or .safetensors")
    weights.add_argument("--checkpoint-path", required=True, metavar="FILE", help="checkpoint of a training")
    weights.add_argument(
        "--weight-path", required=True, metavar="FILE", help="file to write, .pth or .safetensors"
    )
    weights.add_argument("--ema", action="store_true", help="the averaged weights")
    weights.set_defaults(verb=_export_weights)
    onnx = forms.add_parser("onnx", help="an ONNX file, compared with PyTorch after writing")
    _add_onnx_flags(onnx)
    onnx.set_defaults(verb=_export_onnx)


def _add_onnx_flags(parser: Parser) -> None:
    add_model_flags(parser)
    add = parser.add_argument
    add("--output", metavar="FILE", help="file to write [default: the model's name in the current folder]")
    add("-b", "--batch-size", type=int, metavar="IMAGES", help="images in a batch, for --static-batch")
    add("--static-batch", action="store_true", help="fix the batch at -b [default: any batch]")
    add("--uint8-input", action="store_true", help="take RGB bytes (N, H, W, 3); normalise in the graph")
    add(
        "--target", default="onnxruntime", choices=_TARGETS, help="engine to write for [default: onnxruntime]"
    )
    add("--trt", nargs="?", const=True, type=_truth, metavar="BOOL", help="the same as --target tensorrt")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be True or False, not {text!r}")
    return text.lower() == "true"


def _export_weights(namespace: argparse.Namespace) -> int:
    from effnet.export.weights import export_weights

    export_weights(Path(namespace.checkpoint_path), Path(namespace.weight_path), ema=namespace.ema)
    return 0


def _export_onnx(namespace: argparse.Namespace) -> int:
    from effnet.export.onnx import export_onnx
    from effnet.export.trained import open_trained
    from effnet.training.distributed import choose_device

    check_positive(namespace, "batch_size")
    choice = model_choice(namespace)
    device = choose_device(choice.device)
    trained = open_trained(choice)
    exported = export_onnx(
        trained.model,
        trained.metadata,
        Path(namespace.output or f"{trained.metadata.model}.onnx"),
        target="tensorrt" if namespace.trt else namespace.target,
        batch_size=(namespace.batch_size or 1) if namespace.static_batch else None,
        preprocessing_in_graph=namespace.uint8_input,
        device=device,
    )
    print(exported)
    return 0
