"""Output of an examination: lines for people, or one JSON object."""

import os
import platform
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from effnet.doctor.checks import examine
from effnet.doctor.finding import Finding, Status
from effnet.doctor.requirements import NAME, installed_version
from effnet.runtime.text import printable, to_json

_MARKS: dict[Status, str] = {"ok": "ok", "absent": "-", "warning": "warning", "broken": "BROKEN"}
_COLOURS: dict[Status, int] = {"ok": 32, "absent": 2, "warning": 33, "broken": 31}
_MARK_WIDTH, _NAME_WIDTH = 9, 17
_WIDEST = 100


def run(folder: Path | None = None, *, as_json: bool = False, strict: bool = False) -> int:
    """Examine, and print what is found; the first line comes at once.

    Args:
        folder: the data, whose disk is measured; None for the current folder.
        as_json: print one JSON object at the end instead.
        strict: count warnings as broken in the exit code.

    Returns:
        Exit code: 0, or 1 where something is broken.

    Raises:
        UserError: there is no such folder.
    """
    findings = []
    if not as_json:
        _print(_versions_line())
    for finding in examine(folder):
        findings.append(finding)
        if not as_json:
            for line in lines_of(finding, _width(), coloured=_is_coloured()):
                _print(line)
    counts = Counter(finding.status for finding in findings)
    fine = not counts["broken"] and not (strict and counts["warning"])
    if as_json:
        print(to_json({"fine": fine, **_versions(), "findings": [found.to_dict() for found in findings]}))
    else:
        _print(_summary(counts))
    return 0 if fine else 1


def lines_of(finding: Finding, width: int, *, coloured: bool = False) -> Iterator[str]:
    """Yield a finding's lines: mark, name, text, and what to do about it.

    Args:
        finding: the finding.
        width: columns to fill.
        coloured: colour the mark.
    """
    room = max(20, width - _MARK_WIDTH - _NAME_WIDTH)
    texts = textwrap.wrap(printable(finding.text), room, break_long_words=False, break_on_hyphens=False)
    if finding.remedy:
        remedy = printable(f"do: {finding.remedy}")
        texts += textwrap.wrap(
            remedy, room, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    mark = _MARKS[finding.status].ljust(_MARK_WIDTH)
    if coloured:
        mark = f"\x1b[{_COLOURS[finding.status]}m{mark}\x1b[0m"
    name = finding.name.ljust(_NAME_WIDTH - 1) + " "
    yield f"{mark}{name}{texts[0]}".rstrip()
    for text in texts[1:]:
        yield " " * (_MARK_WIDTH + _NAME_WIDTH) + text


def _versions() -> dict[str, str | None]:
    return {
        "effnet": installed_version(NAME),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
    }


def _versions_line() -> str:
    versions = _versions()
    return (
        f"effnet {versions['effnet'] or '(not installed)'}, Python {versions['python']} ({versions['executable']}), "
        f"{platform.system()} {platform.release()} {platform.machine()}"
    )


def _summary(counts: Counter[Status]) -> str:
    if not counts["broken"] and not counts["warning"]:
        return "nothing is broken"
    broken = f"{counts['broken']} broken" if counts["broken"] else "nothing is broken"
    warnings = f", {counts['warning']} warning{'s' if counts['warning'] > 1 else ''}"
    return broken + (warnings if counts["warning"] else "")


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)


def _is_coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _print(line: str) -> None:
    print(line, flush=True)
