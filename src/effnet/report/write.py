"""A report of runs as files: the page, and if they are wanted the pictures of its charts."""

from collections.abc import Sequence
from pathlib import Path

from effnet.report.findings import Findings
from effnet.report.page import Report, render
from effnet.report.runs import Run, read_runs
from effnet.report.stored import stored
from effnet.runtime.disk import check_writable
from effnet.runtime.files import atomic_file


def write_report(
    places: Sequence[str | Path],
    output: Path,
    *,
    data: Path | None = None,
    pictures: Path | None = None,
    device: str = "auto",
    mistakes: int = 24,
) -> list[Path]:
    """Write the page of one run or of several beside each other.

    Args:
        places: folders of runs (``--workspace``), or logs.
        output: the page.
        data: data source on whose validation images the best weights of each run are evaluated; None for the answers
            that the runs' folders hold as CSV files.
        pictures: folder for PNG, SVG and CSV of each chart; None for none.
        device: where to evaluate: ``auto``, ``cuda`` or ``cpu``.
        mistakes: most confident mistakes to show.

    Returns:
        The files.

    Raises:
        UserError: no log of a training, no finished epoch, data that can't be used, or a file that can't be written.
    """
    runs = read_runs(places)
    check_writable(output, make_folder=True, flag="--output")
    findings = {
        place: found
        for place, run in enumerate(runs)
        if (found := _findings(run, data, device, mistakes)) is not None
    }
    report = Report(runs, findings, output)
    page = render(report)
    with atomic_file(output, "w") as file:
        file.write(page)
    written = [output]
    if pictures is not None:
        from effnet.report.pictures import write_pictures

        written += write_pictures(report.all_charts(), pictures)
    return written


def _findings(run: Run, data: Path | None, device: str, mistakes: int) -> Findings | None:
    if data is None:
        return stored(run.folder)
    # PyTorch takes seconds to import, which a report without images does not need.
    from effnet.report.validation import validated

    return validated(run, data, device=device, mistakes=mistakes)
