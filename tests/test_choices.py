"""The registries, and what is made from them: flags, settings and the documentation's tables."""

import argparse
import subprocess
import sys
import typing
from typing import Any, Literal

import pytest

from effnet.cli import commands
from effnet.cli.flags import Parser, add_recipe_flags
from effnet.quantization.targets import TARGETS
from effnet.recipe import Recipe, settings
from effnet.recipe.fields import is_list, value_type
from effnet.runtime.errors import UserError
from effnet.runtime.registry import ModuleRegistry, registry
from tests.commands import REPOSITORY
from tools.choices import PAGE, Kind, kinds, page

SETTINGS = [pytest.param(kind, id=kind.title) for kind in kinds() if kind.names is not None]
FURTHER = {"auto"}
"""choices of a setting that are no row: --engine auto"""


class Row(typing.NamedTuple):
    name: str
    summary: str = ""


def action_of(parser: argparse.ArgumentParser, flag: str) -> argparse.Action:
    return parser._option_string_actions[flag]


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_kind_s_flag_setting_and_registry_have_the_same_names(kind: Kind) -> None:
    names = [row.name for row in kind.rows]
    assert names == list(typing.get_args(kind.names))
    (leaf,) = (leaf for _, _, leaf in settings() if leaf.name == kind.setting)
    kind_of, _ = value_type(leaf)
    takes_several = is_list(kind_of)
    offered = typing.get_args(typing.get_args(kind_of)[0] if takes_several else kind_of)
    assert [name for name in offered if name not in FURTHER] == names
    parser = Parser()
    add_recipe_flags(parser)
    assert [name for name in action_of(parser, kind.flag).choices or () if name not in FURTHER] == names
    for name in names:
        Recipe().replace({leaf.name: [name] if takes_several else name})
    with pytest.raises(UserError, match=f"{kind.flag} must be one of .*{names[0]}"):
        Recipe().replace({leaf.name: ["no-such-name"] if takes_several else "no-such-name"})


def subparser(parser: argparse.ArgumentParser, *path: str) -> argparse.ArgumentParser:
    for name in path:
        (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = action.choices[name]
    return parser


@pytest.mark.parametrize(
    ("command", "flag", "title", "further"),
    [
        (("classify",), "--engine", "Engines", ["auto"]),
    ],
)
def test_other_commands_offer_the_same(
    command: tuple[str, ...], flag: str, title: str, further: list[str]
) -> None:
    (kind,) = (kind for kind in kinds() if kind.title == title)
    action = action_of(subparser(commands.command_parser(), *command), flag)
    assert list(action.choices or ()) == further + [row.name for row in kind.rows]


def test_onnx_files_are_written_for_the_targets_that_read_them() -> None:
    action = action_of(subparser(commands.command_parser(), "export", "onnx"), "--target")
    assert list(action.choices or ()) == [row.name for row in TARGETS.values() if row.opset is not None]


def test_every_format_is_a_command() -> None:
    (kind,) = (kind for kind in kinds() if kind.title == "Export formats")
    (action,) = (
        a
        for a in subparser(commands.command_parser(), "export")._actions
        if isinstance(a, argparse._SubParsersAction)
    )
    assert list(action.choices) == [*(row.name for row in kind.rows), "all"]


def test_the_documentation_s_page_is_that_of_the_registries() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make tables`"


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.title)
def test_every_row_has_a_summary_of_one_cell(kind: Kind) -> None:
    for row in kind.rows:
        assert row.summary
        assert not set(row.summary) & {"|", "\n"}


def test_contributing_names_every_kind() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for kind in kinds():
        assert f"(`{kind.flag}`)" in text


def test_the_names_are_known_without_pytorch() -> None:
    code = (
        "import sys; from effnet.cli.commands import command_parser; command_parser().format_help(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "rows", [["one"], ["one", "two", "three"], ["one", "one", "two"], ["one", "three"]], ids="-".join
)
def test_a_registry_refuses_other_names_than_its_list(rows: list[str]) -> None:
    with pytest.raises(ValueError, match="one"):
        registry(Literal["one", "two"], *map(Row, rows))


def test_a_registry_is_in_the_order_of_its_list() -> None:
    assert list(registry(Literal["one", "two"], Row("two"), Row("one"))) == ["one", "two"]


def test_a_module_is_found_by_its_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "shapes_of_a_test"
    package.mkdir()
    row = "from typing import NamedTuple\nclass Row(NamedTuple):\n    name: str\nROW = Row({!r})\n"
    (package / "round_one.py").write_text(row.format("round-one"))
    (package / "square.py").write_text(row.format("circle"))
    monkeypatch.syspath_prepend(str(tmp_path))
    shapes: ModuleRegistry[Row] = ModuleRegistry(Literal["round-one", "square"], package.name, "ROW")
    assert list(shapes) == ["round-one", "square"]
    assert "circle" not in shapes
    assert shapes["round-one"].name == "round-one"
    with pytest.raises(KeyError):
        shapes["round_one"]
    with pytest.raises(ValueError, match="'square' calls itself 'circle'"):
        shapes["square"]
