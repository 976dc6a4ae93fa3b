"""Output of `effnet prepare check`."""

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from effnet.data.check import ODDITIES, Report, SplitReport
from effnet.runtime.text import printable, to_json

_SHOWN = 10  # findings of each kind; --json has all


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the findings of a check: a table and lists, or everything as one JSON object."""
    if as_json:
        print(to_json({"problems": report.problems, **asdict(report)}))
        return
    console = Console()
    console.print(_overview(report))
    for split, findings in report.splits.items():
        _print_list(console, f"{split}: broken", [f"{file}: {why}" for file, why in findings.broken.items()])
        _print_list(console, f"{split}: class folders without images", findings.empty_classes)
        _print_list(console, f"{split}: the same file", [_equal(group) for group in findings.duplicates])
        for name, files in findings.odd.items():
            _print_list(console, f"{split}: {name}, {ODDITIES[name]}", files)
    _print_list(console, "classes in val/ that train/ lacks", report.unknown_classes)
    _print_list(console, "classes without validation images", report.classes_without_val)
    _print_list(console, "in both train/ and val/", [_equal(group) for group in report.leakage])
    print("problems: " + "; ".join(report.problems) if report.problems else "no problems")


def _overview(report: Report) -> Table:
    table = Table(box=None)
    table.add_column("")
    for split in report.splits:
        table.add_column(split, justify="right")
    columns = [_figures(findings) for findings in report.splits.values()]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _figures(findings: SplitReport) -> dict[str, str]:
    counts = sorted(findings.images_per_class.values())
    spread = {
        name: " / ".join(f"{lengths[key]:g}" for key in ("min", "median", "max")) if lengths else "-"
        for name, lengths in (("width", findings.width), ("height", findings.height))
    }
    return {
        "images": f"{findings.images:,}",
        "GB": f"{findings.bytes / 1e9:.2f}",
        "classes": f"{len(counts):,}",
        "images per class, min / median / max": f"{counts[0]:,} / {counts[len(counts) // 2]:,} / {counts[-1]:,}",
        "width in px, the same": spread["width"],
        "height": spread["height"],
        "broken": f"{len(findings.broken):,}",
        "odd": f"{len({file for files in findings.odd.values() for file in files}):,}",
        "duplicates": f"{sum(len(group) - 1 for group in findings.duplicates):,}",
    }


def _equal(group: list[str]) -> str:
    more = f" = {len(group) - _SHOWN:,} more" if len(group) > _SHOWN else ""
    return " = ".join(group[:_SHOWN]) + more


def _print_list(console: Console, heading: str, lines: list[str]) -> None:
    if not lines:
        return
    console.print(f"{heading}: {len(lines):,}", highlight=False, markup=False)
    for line in lines[:_SHOWN]:
        console.print(f"  {printable(line)}", highlight=False, markup=False, emoji=False, soft_wrap=True)
    if len(lines) > _SHOWN:
        console.print(f"  and {len(lines) - _SHOWN:,} more, which --json lists")
