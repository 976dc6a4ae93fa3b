"""Prose check: the project's word list, applied to documentation, docstrings, comments, messages and names.

    python -m tools.prose [PATH ...]

Each finding is printed as ``file:line: message``; the exit code is 1 if there is one. Code in backticks and code blocks
are not prose. The table ``[tool.prose]`` in ``pyproject.toml`` holds the ``paths`` to check and those to ``skip``.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parent.parent

Kind = Literal["docstring", "comment", "string", "page", "name"]


@dataclass(frozen=True)
class Text:
    """Prose of one kind; `line` is where it begins in its file."""

    kind: Kind
    line: int
    content: str


@dataclass(frozen=True)
class Rule:
    """Pattern of words to avoid, and advice on what to write."""

    pattern: re.Pattern[str]
    advice: str
    kinds: frozenset[Kind] = frozenset({"docstring", "comment", "string", "page"})


def _rule(pattern: str, advice: str, *kinds: Kind) -> Rule:
    compiled = re.compile(pattern, re.IGNORECASE)
    return Rule(compiled, advice, frozenset(kinds)) if kinds else Rule(compiled, advice)


RULES = (
    _rule(
        r"\A\s*(what|whether|which|how)\b",
        "begin with an imperative (Return ...) or a noun phrase",
        "docstring",
    ),
    _rule(r"\A\s*gives\b|[;,]\s+gives\b", "returns", "docstring"),
    _rule(r"\banew\b", "again, from scratch"),
    _rule(r"\bmend(s|ed|ing|able)?\b", "fix"),
    _rule(r"(?<![-\w])peers?\b", "baseline"),
    _rule(r"\bcontenders?\b", "baseline, implementation"),
    _rule(r"\bverbs?\b", "command"),
    _rule(r"\b(objects?|one)\s+a\s+line\b", "one ... per line"),
    _rule(r"\bthe\s+document\b", "NVIDIA's README"),
    _rule(r"\bthe\s+reference\b(?!\s+implementation)", "NVIDIA's implementation"),
    # A quantized model and the float model with the same layers are twins; a kernel has a reference implementation.
    _rule(
        r"(?<!quantized\s)(?<!float\s)\btwins?\b(?!:)",
        "reference implementation, quantized twin or float twin",
    ),
    _rule(r"\A(verbs?)\Z", "command", "name"),
    _rule(r"\A(peers?|contenders?)\Z", "baseline, implementation", "name"),
)

_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and message of each finding in a file."""
    for text in read_texts(path):
        content = text.content if text.kind == "name" else without_code(text.content)
        for rule in RULES:
            if text.kind not in rule.kinds:
                continue
            for found in rule.pattern.finditer(content):
                line = text.line + content[: found.start()].count("\n")
                words = " ".join(found[0].split()).lstrip(";, ")
                yield line, f'{text.kind}: "{words}"; write: {rule.advice}'


def without_code(text: str) -> str:
    """Replace code blocks and code in backticks by as many lines without words."""
    for pattern in (_FENCED, _INLINE):
        text = pattern.sub(lambda found: "\0" + "\n" * found[0].count("\n"), text)
    return text


def read_texts(path: Path) -> Iterator[Text]:
    """Yield the prose of a file, by its suffix."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python_strings(source)
        yield from _python_tokens(source)
    elif path.suffix == ".md":
        yield Text("page", 1, source)
    else:
        mark = "//" if path.suffix in (".cpp", ".h") else "#"
        for number, line in enumerate(source.splitlines(), 1):
            _, found, comment = line.partition(mark)
            if found:
                yield Text("comment", number, comment)


def _python_strings(source: str) -> Iterator[Text]:
    tree = ast.parse(source)
    # A string that is a statement is a docstring: of a module, a class, a function or the attribute above it.
    documented = {
        id(node.value): node.value.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in documented:
                yield Text("docstring", node.lineno, node.value)
            elif " " in node.value:
                yield Text("string", node.lineno, node.value)


def _python_tokens(source: str) -> Iterator[Text]:
    comment: Text | None = None
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            words = token.string.lstrip("#: ")
            # Lines of one comment are one text, so that a phrase is found across them.
            if comment is not None and line == last + 1:
                comment = Text("comment", comment.line, f"{comment.content}\n{words}")
            else:
                if comment is not None:
                    yield comment
                comment = Text("comment", line, words)
            last = line
        elif token.type == tokenize.NAME:
            for word in _WORDS.findall(token.string):
                yield Text("name", line, word)
    if comment is not None:
        yield comment


def files_to_check(paths: Sequence[str], skip: Sequence[str]) -> list[Path]:
    """Return the files with prose below `paths` but not below `skip`; both are relative to the repository."""
    suffixes = {".py", ".md", ".yaml", ".cpp"}
    given = [REPOSITORY / path for path in paths]
    files = {
        file
        for path in given
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file() and file.suffix in suffixes
    }
    return sorted(file for file in files if not _is_below(file, skip))


def _is_below(file: Path, paths: Sequence[str]) -> bool:
    return any(file.is_relative_to(REPOSITORY / path) for path in paths)


def main(argv: Sequence[str] | None = None) -> int:
    """Check files and print the findings.

    Returns:
        Exit code: 1 if there are findings.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.prose", description="Check the project's prose.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files and folders [default: all]")
    arguments = parser.parse_args(argv)
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["prose"]
    count = 0
    given = [str(Path(path).resolve()) for path in arguments.paths] or settings["paths"]
    for file in files_to_check(given, settings["skip"]):
        name = file.relative_to(REPOSITORY)
        for line, message in findings(file):
            count += 1
            print(f"{name}:{line}: {message}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
