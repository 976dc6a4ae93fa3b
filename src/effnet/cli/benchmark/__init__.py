"""`effnet benchmark`: one module for each form."""

from effnet.cli.benchmark.data import add_data
from effnet.cli.benchmark.inference import add_inference
from effnet.cli.benchmark.train import add_train
from effnet.cli.flags import Commands, Parser

FORMS = (add_train, add_inference, add_data)


def add_benchmark(commands: Commands, prog: str | None) -> None:
    """Add `effnet benchmark`."""
    parser = commands.add_parser("benchmark", prog=prog, help="measure speed beside other implementations")
    forms = parser.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    for add in FORMS:
        add(forms)
