"""Command lines in Markdown, for tests that run or parse them."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_OURS = re.compile(r"(effnet|python) ")


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of a language."""
    return [body for named, body in _FENCED.findall(text) if named == language]


def bash_commands(text: str) -> list[str]:
    """Commands in the blocks to be typed into a shell, one per line."""
    return [line.strip() for block in blocks(text, "bash") for line in block.splitlines() if line.strip()]


def indented_commands(text: str) -> list[str]:
    """Commands of this project in indented blocks."""
    lines = re.findall(r"^ {4,}.*", _FENCED.sub("", text), re.MULTILINE)
    return [line.strip() for line in lines if _OURS.match(line.strip())]


def shown_commands(text: str) -> list[str]:
    """Every command of this project that is written out: in blocks, indented, and with flags in a sentence or table."""
    text = re.sub(r"\\\n *", "", text)
    prose = _FENCED.sub("", text)
    indented = [line.strip() for line in re.findall(r"^ {4,}.*", prose, re.MULTILINE)]
    inline = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    found = [*bash_commands(text), *indented, *(span for span in inline if " -" in span)]
    return [command for command in found if _OURS.match(command)]
