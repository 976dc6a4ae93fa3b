"""Parts that all pages share: templates, pictures in the page, and the policy that keeps it to itself."""

import base64
import functools
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

if TYPE_CHECKING:
    from PIL import Image

_TEMPLATES = Path(__file__).parent / "templates"
_QUALITY = 85
_SIDE = 224
"""pixels of a thumbnail at most"""


@functools.cache
def environment() -> Any:
    """Return Jinja's environment of the templates; values are escaped, an unknown one is an error.

    Raises:
        UserError: Jinja is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise UserError(f"a report needs jinja2: {install_command('report')}") from None
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["size"] = _size
    return made


def template_text(name: str) -> str:
    """Return a file beside the templates, such as a style."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def data_uri(picture: "Image.Image") -> str:
    """Return a thumbnail of a picture as an address that holds it."""
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def policy(scripts: Iterable[str], *, asks_server: bool = False) -> str:
    """Return a content security policy: no scripts but the page's own run, and nothing comes from elsewhere.

    Args:
        scripts: contents of the script elements.
        asks_server: the page may ask the server that it comes from.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {chr(39)}{'self' if asks_server else 'none'}{chr(39)}; base-uri 'none'; form-action 'none'"
    )


def _size(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"
