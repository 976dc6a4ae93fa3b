"""Write `src/effnet/recipe/keywords.py`, the settings as types of keyword arguments, from `recipe/settings.py`.

python tools/keywords.py
"""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent, wrap

from effnet.recipe import choices, settings

MODULE = Path(__file__).resolve().parent.parent / "src" / "effnet" / "recipe" / "keywords.py"

_HEAD = '''"""Settings as keyword arguments, for completion and type checkers.

`make tables` writes this module from `effnet.recipe.settings`.
"""

from typing import Literal, TypedDict

from effnet.recipe.choices import {names}
from effnet.recipe.settings import Interpolation


class Settings(TypedDict, total=False):
    """Settings of a run by name; those left out have the recipe's value or the default."""

'''


def fields() -> Iterator[tuple[str, str, str]]:
    """Yield the name, the annotation and the docstring of every setting."""
    seen: set[type] = set()
    for _, cls, _ in settings():
        if cls in seen:
            continue
        seen.add(cls)
        (definition,) = ast.parse(inspect.getsource(cls)).body
        assert isinstance(definition, ast.ClassDef)
        for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                doc = following.value.value if _is_doc(following) else ""  # type: ignore[union-attr]
                yield statement.target.id, ast.unparse(statement.annotation), " ".join(str(doc).split())


def _is_doc(statement: ast.stmt | None) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def module() -> str:
    """Return the module's text, formatted."""
    rows = list(fields())
    used = sorted(name for name in vars(choices) if any(name in annotation for _, annotation, _ in rows))
    text = _HEAD.format(names=", ".join(name for name in used if name.endswith("Name")))
    for name, annotation, doc in rows:
        text += f"    {name}: {annotation}\n"
        if doc:
            text += indent("\n".join(wrap(f'"""{doc}"""', 112)), "    ") + "\n"
    return _formatted(text)


def _formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(MODULE), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    MODULE.write_text(module(), encoding="utf-8")
