"""Settings of a server."""

import re
from dataclasses import dataclass
from pathlib import Path

from effnet.data.limits import MAX_PIXELS
from effnet.runtime.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHORTEST_TOKEN = 16
_LONGEST_TOKEN = 1024


@dataclass(frozen=True)
class NamedSource:
    """A model to serve.

    Attributes:
        name: name by which clients ask for it.
        source: as `effnet.load` takes it.
    """

    name: str
    source: str


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server; the flags of ``effnet serve``.

    Attributes:
        models: models, of which the first answers requests that name none.
        host: address to listen on.
        port: port to listen on; 0 for any that is free.
        engine, device, precision, image_size, tta, unknown: as for `effnet.load`, for all models.
        max_pixels: pixels that an image may have.
        max_bytes: bytes that a request may have.
        timeout: seconds in which a request has to arrive, and after that in which it is answered.
        queue: images that may wait.
        max_batch: images that are computed together; 1 for each alone.
        max_wait: seconds that an image waits for others that are being decoded, so that they are computed together.
        watch: seconds between two looks at the models' files, which are opened again after a change; None for no look.
        token: secret that clients have to send; None for none.
        origins: addresses of pages that may ask from a browser; ``*`` for all.
    """

    models: tuple[NamedSource, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    engine: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    image_size: int | None = None
    tta: str = "none"
    unknown: bool = False
    max_pixels: int = MAX_PIXELS
    max_bytes: int = 32 << 20
    timeout: float = 30.0
    queue: int = 128
    max_batch: int = 8
    max_wait: float = 0.005
    watch: float | None = None
    token: str | None = None
    origins: tuple[str, ...] = ()


def named_sources(arguments: list[str]) -> tuple[NamedSource, ...]:
    """Return the models that arguments name: ``NAME=MODEL``, or ``MODEL``, whose name is then that of its file.

    Raises:
        UserError: two models of the same name.
    """
    sources = tuple(map(_named_source, arguments))
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"MODEL: two models are called {name}; tell them apart by NAME=MODEL")
    return sources


def _named_source(argument: str) -> NamedSource:
    name, equals, source = argument.partition("=")
    if equals and source and _NAME.fullmatch(name) and not Path(argument).exists():
        return NamedSource(name, source)
    path = Path(argument)
    last = path.resolve().name if path.is_dir() else re.sub(r"\.(pth\.tar|[a-z]+)$", "", path.name)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")
    return NamedSource(name[:100] or "model", argument)


def read_token(path: Path) -> str:
    """Return the secret in a file, without white space around it.

    Raises:
        UserError: the file can't be read, or the secret is shorter than 16 or longer than 1024 characters, or has
            others than printable ASCII.
    """
    try:
        token = path.read_bytes()[: _LONGEST_TOKEN + 2].decode("ascii").strip()
    except OSError as error:
        raise UserError(f"--token-file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not (_SHORTEST_TOKEN <= len(token) <= _LONGEST_TOKEN and token.isprintable() and " " not in token):
        raise UserError(
            f"--token-file {path}: must hold one secret of {_SHORTEST_TOKEN} to {_LONGEST_TOKEN} characters of "
            "ASCII without blanks; make one by: openssl rand -hex 32"
        )
    return token
