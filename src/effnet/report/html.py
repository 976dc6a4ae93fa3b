"""Parts that all pages share: templates, pictures in the page, and the policy that keeps it to itself."""

import base64
import functools
import hashlib
import io
from pathlib import Path
from typing import Any

from PIL import Image

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

_TEMPLATES = Path(__file__).parent / "templates"
_SIDE = 224
"""pixels of a thumbnail at most"""
_QUALITY = 82


@functools.cache
def environment() -> Any:
    """Return Jinja's environment of the templates; values are escaped, an unknown one is an error.

    Raises:
        UserError: Jinja is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise UserError(f"a page needs jinja2: {install_command('report')}") from None
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template_text(name: str) -> str:
    """Return a file beside the templates, such as a style."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def data_uri(picture: Image.Image) -> str:
    """Return a thumbnail of a picture as an address that holds it."""
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def policy(*scripts: str) -> str:
    """Return a content security policy: the page's own scripts run and no others, and nothing comes from elsewhere.

    Args:
        scripts: contents of the script elements.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
