"""`python -m benchmarks quantized-logits`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands


def add_quantized_logits(commands: Commands) -> None:
    """Add `python -m benchmarks quantized-logits`."""
    parser = commands.add_parser(
        "quantized-logits", help="error of a quantized model's logits by placement and method of calibration"
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="weights of a float model, or a checkpoint")
    parser.add_argument("data", metavar="DIR", help="folder with class folders")
    parser.add_argument("--out", required=True, metavar="FILE", help="Markdown file for the table")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.quantized_logits import measure

    lines: list[str] = []
    for line in measure(Path(namespace.weights), Path(namespace.data)):
        lines.append(line)
        print(line, flush=True)
    Path(namespace.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0
