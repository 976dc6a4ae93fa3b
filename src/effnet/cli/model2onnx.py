"""NVIDIA's `model2onnx.py`: `effnet export onnx`, but `-b N` alone fixes the batch."""

from collections.abc import Sequence

from effnet.cli import main
from effnet.cli.flags import Parser
from effnet.cli.messages import say_error
from effnet.runtime.errors import UserError

PROG = "model2onnx.py"


def model2onnx(argv: Sequence[str]) -> int:
    """Export a model and return the exit code.

    Args:
        argv: arguments of `effnet export onnx`. A batch size among them fixes the batch; without one any will do.
    """
    parser = Parser(prog=PROG, add_help=False)
    parser.add_argument("-b", "--batch-size")
    try:
        named, _ = parser.parse_known_args(argv)
    except UserError as error:
        say_error(PROG, error)
        return 2
    fixed = ["--static-batch"] if named.batch_size is not None else []
    return main(["export", "onnx", *argv, *fixed], prog=PROG)
