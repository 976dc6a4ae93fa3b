"""The charts of a report as files: PNG, SVG and CSV of each."""

from collections.abc import Sequence
from pathlib import Path

from effnet.report.charts import Chart
from effnet.report.vega import drawn
from effnet.runtime.files import atomic_paths


def write_pictures(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Write each chart as ``NAME.png``, ``NAME.svg`` and ``NAME.csv``; the folder is made.

    Returns:
        The files.

    Raises:
        UserError: vl-convert is not installed, or a file can't be written.
    """
    written: list[Path] = []
    for chart in charts:
        contents = {"png": drawn(chart, "png"), "svg": drawn(chart, "svg"), "csv": chart.csv().encode()}
        paths = [folder / f"{chart.name}.{suffix}" for suffix in contents]
        with atomic_paths(*paths, make_folder=True) as temporary:
            for path, content in zip(temporary, contents.values(), strict=True):
                path.write_bytes(content)
        written += paths
    return written
