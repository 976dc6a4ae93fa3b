"""The table of output formats.

A new one is a module here that makes a `FORMAT`, and its name in `effnet.recipe.choices.OutputFormatName`.
"""

from pathlib import Path

from effnet.inference.predict.formats.form import OutputFormat
from effnet.recipe.choices import OutputFormatName
from effnet.runtime.errors import UserError
from effnet.runtime.registry import ModuleRegistry

FORMATS: ModuleRegistry[OutputFormat] = ModuleRegistry(
    OutputFormatName, "effnet.inference.predict.formats", "FORMAT"
)
"""the registry, by the suffix of ``--out``"""


def format_of(path: Path) -> OutputFormat:
    """Return the format that a file's suffix names.

    Raises:
        UserError: none has it, or a package for it is missing.
    """
    name = path.suffix.removeprefix(".")
    if name not in FORMATS:
        raise UserError(
            f"--out {path}: predictions are written as {', '.join(f'.{name}' for name in FORMATS)}"
        )
    found = FORMATS[name]
    found.check()
    return found
