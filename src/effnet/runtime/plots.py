"""Matplotlib, which draws the pictures: the one module that imports it."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command
from effnet.runtime.files import atomic_path

_DPI = 100


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


def drawn(figure: Any) -> npt.NDArray[np.uint8]:
    """Return the pixels of a figure that `new_figure` has returned, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings(action="ignore"):  # of characters that the font lacks
        canvas.draw()
    return np.array(canvas.buffer_rgba(), np.uint8)[..., :3]


def save_figure(figure: Any, path: Path, flag: str) -> None:
    """Write a figure in the format of the path's suffix, complete or not at all.

    Args:
        figure: what `new_figure` has returned.
        path: the picture.
        flag: the flag that names the path, for the error.

    Raises:
        UserError: matplotlib does not know the suffix.
    """
    with atomic_path(path) as temporary:
        try:
            with warnings.catch_warnings(action="ignore"):  # of characters that the font lacks
                figure.savefig(temporary, dpi=_DPI)
        except ValueError as error:
            raise UserError(f"{flag} {path}: {' '.join(str(error).split())}") from None
