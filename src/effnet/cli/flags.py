"""Command-line flags made from the recipe: each setting is a flag, its docstring the help."""

import argparse
import ast
import difflib
import functools
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field
from typing import Any, Literal, NoReturn, TypeAlias

from effnet.cli.arguments import ANY_INTEGER, ANY_NUMBER, ArgumentType, or_word, path
from effnet.cli.choice import add_trt_flag
from effnet.recipe import settings
from effnet.recipe.fields import flag_name, is_list, value_type
from effnet.recipe.numbers import shown
from effnet.runtime.errors import UserError

_LONGEST_LIST = 24
_METAVARS = {int: "N", float: "X", str: "NAME"}
# The recipe checks the ranges.
_TYPES: dict[Any, ArgumentType[Any]] = {int: ANY_INTEGER, float: ANY_NUMBER, str: path}
# Arguments that NVIDIA's scripts accept in addition to the recipe's settings.
_JIT_HELP = "accepted for older scripts; TorchScript is superseded by --compile"


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""the collection to which a command adds its parser"""


class Parser(argparse.ArgumentParser):
    """Parser whose errors are `UserError`s of one line.

    Long flags may be written with `_` or `-` and may stand anywhere among the other arguments.

    Args:
        groups: names of commands by the heading under which the help lists them; others come last.
        options: of `argparse.ArgumentParser`.
    """

    def __init__(self, *, groups: Mapping[str, Sequence[str]] | None = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **options)
        self._mixes = False
        self.groups = groups or {}

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse as the base class does, after replacing `_` in flag names by `-`."""
        args = [_dashed(arg) for arg in (sys.argv[1:] if args is None else args)]
        # Intermixed arguments are parsed in two passes that call this method again. A parser with subcommands leaves
        # them to the subcommand's parser. After `--` they are not supported: the second pass would read flags there.
        if self._mixes or self._subparsers is not None or "--" in args:
            return super().parse_known_args(args, namespace)
        self._mixes = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixes = False

    def commands(self) -> "dict[str, Parser]":
        """Return the parsers of the commands by name; none for a parser without commands."""
        if self._subparsers is None:
            return {}
        (action,) = self._subparsers._group_actions
        return dict(typing.cast("Commands", action).choices)

    def format_help(self) -> str:
        """Return the help; that of a parser with `groups` lists its commands by them."""
        if not self.groups or self._subparsers is None:
            return super().format_help()
        (action,) = self._subparsers._group_actions
        rows = {row.dest: row for row in typing.cast("Commands", action)._choices_actions}
        others = [name for name in rows if not any(name in names for names in self.groups.values())]
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        for title, names in {**self.groups, "further": others}.items():
            formatter.start_section(title)
            formatter.add_arguments([rows[name] for name in names if name in rows])
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            unknown, *_ = message.removeprefix(prefix).split(" ")
            hint = _hint(unknown.partition("=")[0], self._option_string_actions, self.prog)
            raise UserError(f"unknown argument {unknown or repr(unknown)}; {hint}")
        hint = "" if message.endswith("?") else f"; see {self.prog} --help"
        raise UserError(f"{message.removeprefix('argument ')}{hint}")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Refuse ``--flag=--``, of which the base class makes no value at all, unchecked."""
        if action.option_strings and "--" in arg_strings:
            raise argparse.ArgumentError(action, "must not be '--'")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggest the nearest choice or command for one that does not exist."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            listed = f"must be one of {', '.join(known)}, not {shown(value)}"
            near = difflib.get_close_matches(str(value), known, n=1)
            raise argparse.ArgumentError(action, listed + (f"; did you mean {near[0]}?" if near else ""))


class _Formatter(argparse.HelpFormatter):
    """Help that fits a terminal: short usage, one value for all names of a flag, long lists of values in the text."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=32, **options)

    def _format_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Iterable[Any], prefix: str | None
    ) -> str:
        """Name what a command needs; the list below has the rest."""
        return super()._format_usage(
            usage or self._short_usage(list(actions), groups), actions, groups, prefix
        )

    def _short_usage(self, actions: Sequence[argparse.Action], groups: Iterable[Any]) -> str:
        flags = [action for action in actions if action.option_strings]
        words = [self._prog, *(self._format_action_invocation(flag) for flag in flags if flag.required)]
        for group in groups:
            if group.required and group._group_actions:
                words.append(f"({' | '.join(map(self._format_action_invocation, group._group_actions))})")
        for action in actions:
            if not action.option_strings:
                words.append(self._format_args(action, self._get_default_metavar_for_positional(action)))
        if any(not flag.required for flag in flags):
            words.append("[options]")
        indent = len("usage: ")
        wrapped = textwrap.wrap(
            " ".join(words), self._width - indent, break_long_words=False, break_on_hyphens=False
        )
        return ("\n" + " " * indent).join(wrapped).replace("%", "%%")

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Wrap a text, whose names stay whole."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        if _lists_values_in_text(action):
            return lambda count: ("NAME",) * count
        return super()._metavar_formatter(action, default_metavar)

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        if not _lists_values_in_text(action):
            return text
        return f"{text}; one of {', '.join(map(str, action.choices or ()))}"


def _lists_values_in_text(action: argparse.Action) -> bool:
    """Return True for a flag with so many values that they do not fit beside its name."""
    if action.choices is None or action.metavar is not None or not action.option_strings:
        return False
    return len(",".join(map(str, action.choices))) > _LONGEST_LIST


def _hint(unknown: str, known: Iterable[str], prog: str) -> str:
    near = difflib.get_close_matches(unknown, known, n=1)
    return f"did you mean {near[0]}?" if near else f"see {prog} --help"


def _dashed(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def add_recipe_flags(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    """Add a flag for every setting, in the recipe's groups but those of `without`.

    A setting without a flag on the command line is absent from the parsed namespace, so that it does not override a
    recipe file.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, cls, leaf in settings():
        if name in without:
            continue
        group = groups.setdefault(name, parser.add_argument_group(cls.__doc__ or name))
        _add_flag(group, leaf, field_docs(cls)[leaf.name])
    groups["compute"].add_argument(
        "--amp", action="store_const", const="amp", dest="precision", default=argparse.SUPPRESS,
        help="mixed precision: FP16 on a GPU, BF16 on a CPU; the same as --precision amp",
    )  # fmt: skip
    groups["compute"].add_argument(
        "--jit",
        nargs="?",
        const="script",
        choices=("no", "script"),
        default=argparse.SUPPRESS,
        help=_JIT_HELP,
    )
    add_trt_flag(groups["compute"], "only model2onnx.py, effnet export onnx, writes for TensorRT")


def add_quiet_flag(parser: argparse._ActionsContainer) -> None:
    """Add `--quiet`, for commands without the recipe's."""
    parser.add_argument("--quiet", action="store_true", help="draw no progress on the terminal")


def add_flags(parser: argparse._ActionsContainer, names: Sequence[str]) -> None:
    """Add the flags of some settings, as `add_recipe_flags` does for all."""
    for _, cls, leaf in settings():
        if leaf.name in names:
            _add_flag(parser, leaf, field_docs(cls)[leaf.name])


def given_settings(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return the settings given on the command line, by name."""
    names = {leaf.name for _, _, leaf in settings()}
    return {name: value for name, value in vars(namespace).items() if name in names}


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def _add_flag(group: argparse._ActionsContainer, leaf: Field[Any], doc: str) -> None:
    names = (flag_name(leaf), *leaf.metadata.get("flags", ()))
    short_first = sorted(names, key=lambda name: name.startswith("--"))
    kind, _ = value_type(leaf)
    options: dict[str, Any] = {
        "dest": leaf.name,
        "default": argparse.SUPPRESS,
        "help": _help(leaf, kind, doc),
    }
    if kind is bool:
        negatable = not leaf.name.startswith("no_")
        group.add_argument(
            *short_first, action=argparse.BooleanOptionalAction if negatable else "store_true", **options
        )
        return
    if is_list(kind):
        options |= {"nargs": "+", "metavar": leaf.metadata["metavar"]}
        if offered := typing.get_args(typing.get_args(kind)[0]):
            options |= {"choices": offered, "help": f"{options['help']}: {', '.join(offered)}"}
        else:
            options["type"] = path
    elif typing.get_origin(kind) is tuple:
        options |= {"nargs": len(typing.get_args(kind)), "type": ANY_NUMBER}
        options["metavar"] = tuple(str(leaf.metadata["metavar"]).split())
    elif typing.get_origin(kind) is Literal:
        options["choices"] = typing.get_args(kind)
    else:
        value_of = or_word(_TYPES[kind], leaf.metadata.get("none_as"))
        options |= {"type": value_of, "metavar": leaf.metadata.get("metavar") or _METAVARS[kind]}
    group.add_argument(*short_first, **options)


def _help(leaf: Field[Any], kind: Any, doc: str) -> str:
    told = "[default:" in doc or leaf.default in (None, ()) or kind is bool
    shown = " ".join(f"{v:g}" for v in leaf.default) if isinstance(leaf.default, tuple) else leaf.default
    return (doc if told else f"{doc} [default: {shown}]").replace("%", "%%")
