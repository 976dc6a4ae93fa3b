"""Matplotlib, which draws the pictures: the one module that imports it."""

from typing import Any

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command


def new_figure(purpose: str, **arguments: Any) -> Any:
    """Return an empty `matplotlib.figure.Figure`, which needs no display.

    Args:
        purpose: what needs it, for the error.
        arguments: of the figure.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(f"{purpose} needs matplotlib: {install_command('plots')}") from None
    return Figure(**arguments)
