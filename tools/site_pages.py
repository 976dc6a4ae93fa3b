"""Parts of the documentation site that are made when it is built: navigation, the page of flags, the page of the API.

`docs/conf.py` calls these functions when Sphinx reads the pages that they complete.
"""

import argparse
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import effnet
from effnet.cli.commands import command_parser
from effnet.cli.flags import Parser
from effnet.recipe import settings

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"

_LINK = re.compile(r"^- \[[^]]+\]\(([^)#]+)\.md\)", re.MULTILINE)
_PAGE = re.compile(r"(?<!\[)`((?:docs|recipes)/[\w-]+\.md)`")
_FLAG = re.compile(r"(?<![\w`-])(--[a-z][\w-]*)")
_SPECIAL = re.compile(r"([\\*_<>\[\]|])")


def pages() -> list[str]:
    """Return the names of all pages in `docs/`, without suffix."""
    return sorted(path.stem for path in DOCS.glob("*.md"))


def with_links(text: str, name: str) -> str:
    """Return a page with a link in place of each name of a page that stands there as code, such as `docs/data.md`.

    Args:
        text: Markdown of the page.
        name: its path in the repository.
    """

    def link(match: re.Match[str]) -> str:
        target = os.path.relpath(match[1], Path(name).parent)
        return f"[{match[1]}]({target})" if (REPOSITORY / match[1]).exists() else match[0]

    return _PAGE.sub(link, text)


def with_navigation(index: str, names: Sequence[str]) -> str:
    """Return the first page with the site's navigation: its sections, and the pages to which their lists link.

    Args:
        index: Markdown of the page.
        names: all pages in `docs/`; those without a link follow in a section of their own.
    """
    sections = {}
    for section in index.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        sections[title] = _LINK.findall(body)
    linked = {name for found in sections.values() for name in found}
    sections["More"] = [name for name in names if name not in linked and name != "index"]
    trees = [_tree(title, found) for title, found in sections.items() if found]
    return "\n".join([index, *trees])


def _tree(title: str, names: Sequence[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *names, "```", ""])


def api() -> str:
    """Return directives that document every public name, for Sphinx's autodoc."""
    lines = []
    for name in sorted(effnet.__all__):
        public = getattr(effnet, name)
        lines += [f"## {name}", "", "```{eval-rst}"]
        if isinstance(public, type):
            lines += [f".. autoclass:: effnet.{name}", "   :members:", "   :special-members: __call__"]
        else:
            lines += [f".. autofunction:: effnet.{name}"]
        lines += ["```", ""]
    return "\n".join(lines)


def flags() -> str:
    """Return every command with its arguments as Markdown, and the settings of a run once, after them."""
    groups = list(dict.fromkeys(cls.__doc__ or name for name, cls, _ in settings()))
    commands = dict(leaves(command_parser()))
    parts = [_command(name, summary, parser, groups) for name, (summary, parser) in commands.items()]
    _, complete = commands["effnet quantize"]
    parts.append(
        "## Settings of a run\n\nEach is also a key of a recipe, under its name without the hyphens.\n"
    )
    for group in complete._action_groups:
        if group.title in groups:
            parts.append(f"### {group.title}\n\n{_table(complete, group)}")
    return "\n".join(parts)


def leaves(
    parser: Parser, name: str = "effnet", summary: str = ""
) -> Iterator[tuple[str, tuple[str, Parser]]]:
    """Yield each command that has no subcommands: its name, its summary and its parser."""
    commands = parser.commands()
    if not commands:
        yield name, (summary, parser)
        return
    assert parser._subparsers is not None
    (action,) = parser._subparsers._group_actions
    summaries = {listed.dest: listed.help or "" for listed in getattr(action, "_choices_actions", ())}
    for word, child in commands.items():
        yield from leaves(child, f"{name} {word}", summaries.get(word, ""))


def _command(name: str, summary: str, parser: Parser, groups: Collection[str]) -> str:
    parts = [f"## {name}\n", f"{_prose(summary[:1].upper() + summary[1:])}.\n"]
    if parser.description and parser.description != summary:
        parts.append(f"{_prose(parser.description)}\n")
    taken = [group.title for group in parser._action_groups if group.title in groups and group._group_actions]
    parts += [_table(parser, group) for group in parser._action_groups if group.title not in groups]
    if taken:
        links = ", ".join(f"[{title}](#{_slug(str(title))})" for title in taken)
        parts.append(f"And the settings of these groups: {links}.\n")
    return "\n".join(part for part in parts if part)


def _slug(title: str) -> str:
    """Return the anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _table(parser: Parser, group: argparse._ArgumentGroup) -> str:
    """Return a group's arguments as a table, or an empty text if it has none."""
    formatter = parser._get_formatter()
    rows = [
        f"| {_names(action)} | {_help(formatter, action)} |"
        for action in group._group_actions
        if action.help is not argparse.SUPPRESS and "--help" not in action.option_strings
    ]
    return "\n".join(["| argument | meaning |", "| --- | --- |", *rows, ""]) if rows else ""


def _names(action: argparse.Action) -> str:
    value = _value(action)
    names = action.option_strings or [""]
    return ", ".join(f"`{f'{name} {value}'.strip()}`" for name in names)


def _value(action: argparse.Action) -> str:
    """Return what stands for an argument's value; nothing for a flag without one."""
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    value = action.metavar or ("CHOICE" if action.choices else action.dest.upper())
    value = value.replace("|", " or ")
    return {"?": f"[{value}]", "*": f"[{value} ...]", "+": f"{value} [...]"}.get(str(action.nargs), value)


def _help(formatter: argparse.HelpFormatter, action: argparse.Action) -> str:
    text = _prose(formatter._expand_help(action) if action.help else "")
    if not action.choices:
        return text
    chosen = ", ".join(f"`{choice}`" for choice in action.choices)
    return f"{text}; one of {chosen}" if text else f"One of {chosen}"


def _prose(text: str) -> str:
    """Return help as Markdown: flags as code, and no character that means something else there."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(
        piece.replace("|", r"\|")
        if piece.startswith("`")
        else _FLAG.sub(r"`\1`", _SPECIAL.sub(r"\\\1", piece))
        for piece in pieces
    )
