"""Requirements of this package and of each of its extras."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from effnet.runtime.extras import CHECKOUT

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NAME = "effnet"
_FOR_DEVELOPERS = "dev"


@dataclass(frozen=True)
class Requirements:
    """Requirements that hold on this platform.

    Attributes:
        required: of the package itself.
        extras: of each extra, without the one for developers and those that only combine others.
    """

    required: "list[Requirement]"
    extras: "dict[str, list[Requirement]]"


def read_requirements() -> Requirements:
    """Return the requirements of this checkout, or of the installed package.

    Raises:
        ImportError: `packaging`, which reads them, is missing.
        importlib.metadata.PackageNotFoundError: the package is neither a checkout nor installed.
    """
    required: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {}
    for extra, requirement in _pairs():
        if requirement.name == NAME or extra == _FOR_DEVELOPERS:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            (extras.setdefault(extra, []) if extra else required).append(requirement)
    return Requirements(required, extras)


def _pairs() -> "Iterator[tuple[str, Requirement]]":
    """Yield every requirement with its extra, an empty text for none."""
    from packaging.requirements import Requirement

    project = CHECKOUT / "pyproject.toml"
    if project.is_file() and (CHECKOUT / "src" / NAME).is_dir():
        # The metadata of an editable installation are those of the day when it was installed.
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        groups = {"": table["dependencies"], **table["optional-dependencies"]}
        for extra, texts in groups.items():
            yield from ((extra, Requirement(text)) for text in texts)
        return
    names = ["", *(metadata.metadata(NAME).get_all("Provides-Extra") or [])]
    for text in metadata.requires(NAME) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield "", requirement
            continue
        yield from ((extra, requirement) for extra in names if marker.evaluate({"extra": extra}))


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
