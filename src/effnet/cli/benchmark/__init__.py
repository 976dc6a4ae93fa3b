"""`effnet benchmark`: one module for each thing that is measured."""

from effnet.cli.benchmark.data import add_data
from effnet.cli.benchmark.epoch import add_epoch
from effnet.cli.benchmark.inference import add_inference
from effnet.cli.benchmark.kernels import add_kernels
from effnet.cli.benchmark.roofline import add_roofline
from effnet.cli.benchmark.scaling import add_scaling
from effnet.cli.benchmark.suite import add_suite
from effnet.cli.benchmark.train import add_train
from effnet.cli.flags import Commands, Parser

FORMS = (add_train, add_inference, add_epoch, add_data, add_roofline, add_kernels, add_scaling, add_suite)


def add_benchmark(commands: Commands, prog: str | None) -> None:
    """Add `effnet benchmark`."""
    parser = commands.add_parser("benchmark", prog=prog, help="measure speed beside other implementations")
    forms = parser.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    for add in FORMS:
        add(forms)
