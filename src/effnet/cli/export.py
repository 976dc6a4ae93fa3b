"""`effnet export`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Parser, Verbs


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


def _export_weights(namespace: argparse.Namespace) -> int:
    from effnet.export.weights import export_weights

    export_weights(Path(namespace.checkpoint_path), Path(namespace.weight_path), ema=namespace.ema)
    return 0
