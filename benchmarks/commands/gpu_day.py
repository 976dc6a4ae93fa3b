"""`python -m benchmarks gpu-day`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands
from effnet.runtime.errors import UserError


def add_gpu_day(commands: Commands) -> None:
    """Add `python -m benchmarks gpu-day`."""
    day = commands.add_parser(
        "gpu-day", help="all that has to be measured on a GPU, beside what is predicted"
    )
    add = day.add_argument
    add(
        "stages",
        metavar="STAGE",
        nargs="*",
        help="a name, or a letter for all that begin with it [default: all]",
    )
    add("--out", metavar="DIR", type=Path, help="folder of results")
    add("--data", metavar="DIR", type=Path, help="folder for images [default: data in that of --out]")
    add("--archive", metavar="FILE", type=Path, help="write all results into this .tar.gz after each stage")
    add(
        "--smallest",
        action="store_true",
        help="at sizes for two cores, on the CPU: shows that every stage runs",
    )
    add("--list", action="store_true", help="show the stages, and run nothing")
    add(
        "--summary",
        action="store_true",
        help="show the results in --out beside their predictions, and run nothing",
    )
    add("--predictions", action="store_true", help="print the table of predictions, and run nothing")
    add("--prepare", action="store_true", help="fill .gpu-day/ with what has to travel to the machine")
    add(
        "--shared",
        metavar="DIR",
        type=Path,
        default=Path("../shared"),
        help="--prepare: [default: ../shared]",
    )
    day.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.gpu_day.images import carry
    from benchmarks.gpu_day.run import run_stages
    from benchmarks.gpu_day.stages import STAGES, selected
    from benchmarks.gpu_day.summary import bytes_table, predictions_table, print_summary, read_results

    if namespace.predictions:
        print(f"{predictions_table()}\n\n{bytes_table()}")
        return 0
    if namespace.prepare:
        print(f"{carry(namespace.shared)} is filled")
        return 0
    try:
        stages = selected(namespace.stages)
    except KeyError as error:
        names = ", ".join(stage.name for stage in STAGES)
        raise UserError(f"no stage {error.args[0]!r}; they are {names}") from None
    if namespace.list:
        for stage in stages:
            print(f"{stage.name:12} {stage.minutes:g} minutes at most: {stage.shows}")
        return 0
    if namespace.out is None:
        raise UserError("--out DIR is needed")
    out = namespace.out.resolve()
    failed = False
    if not namespace.summary:
        outcomes = run_stages(
            stages,
            out,
            (namespace.data or out / "data").resolve(),
            smallest=namespace.smallest,
            archive=namespace.archive,
        )
        failed = any(done.failure for parts in outcomes.values() for done in parts.values())
    print_summary(read_results(out))
    return int(failed)
