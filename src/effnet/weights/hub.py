"""The Hugging Face hub: weights by the name of their repository, and folders that are pushed there.

The one module that imports huggingface_hub. Files are kept in that library's own cache, where they are found without a
network too.
"""

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.runtime.errors import UserError, one_line
from effnet.runtime.extras import install_command

PREFIX = "hf-hub:"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_OLDEST = (0, 30)


@dataclass(frozen=True)
class HubName:
    """Name of a repository on the hub.

    Attributes:
        repository: ``owner/name``.
        revision: branch, tag or commit; None for the newest.
    """

    repository: str
    revision: str | None = None


def is_hub_name(source: object) -> bool:
    """Return True for a source of the form ``hf-hub:...``."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).startswith(PREFIX)


def parse_hub_name(source: str | os.PathLike[str]) -> HubName:
    """Return the repository that a text names.

    Args:
        source: ``owner/name`` or ``owner/name@revision``, with or without ``hf-hub:``.

    Raises:
        UserError: it is no such name.
    """
    repository, separator, revision = os.fspath(source).removeprefix(PREFIX).partition("@")
    parts = repository.split("/")
    well_formed = len(parts) == 2 and all(_NAME.fullmatch(part) and _is_tame(part) for part in parts)
    if separator:
        well_formed = well_formed and bool(_REVISION.fullmatch(revision)) and _is_tame(revision)
    if not well_formed:
        raise UserError(
            f"{one_line(source)}: not the name of a repository; it is owner/name or owner/name@revision, of letters, "
            "digits, -, _ and ."
        )
    return HubName(repository, revision or None)


def _is_tame(part: str) -> bool:
    return ".." not in part and "--" not in part and not part.endswith((".", "-", ".git"))


def local_source(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return a source of weights, with the name of a repository replaced by the file that `fetch` returns."""
    return fetch(source) if is_hub_name(source) else source


def fetch(source: str | os.PathLike[str]) -> Path:
    """Return the weights of a repository on the hub, downloaded unless the cache holds them.

    Args:
        source: ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision``.

    Returns:
        ``model.safetensors``; ``config.json`` lies beside it if the repository has one.

    Raises:
        UserError: no such name, repository, revision or file; no permission; no network and no copy in the cache;
            huggingface_hub is missing.
    """
    name = parse_hub_name(source)
    library = _library()
    with _told(f"{PREFIX}{name.repository}"):
        revision = name.revision
        try:
            config = _download(library, name.repository, CONFIG_FILE, revision)
            revision = config.parent.name  # the commit: both files are of the same
        except library.errors.LocalEntryNotFoundError:
            raise
        except library.errors.EntryNotFoundError:
            pass
        return _download(library, name.repository, WEIGHTS_FILE, revision)


def _download(library: Any, repository: str, file: str, revision: str | None) -> Path:
    return Path(library.hf_hub_download(repository, file, revision=revision, endpoint=_endpoint()))


def upload(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Push all files of a folder in one commit, to a repository that is made if it does not exist.

    Args:
        folder: its files, of which those of the same name are replaced.
        repository: ``owner/name``.
        private: the repository is to be private.
        message: of the commit.

    Returns:
        The repository's address.

    Raises:
        UserError: no token, no permission, no network; `private` for a repository that is public; huggingface_hub is
            missing.
    """
    name = parse_hub_name(repository)
    library = _library()
    token = library.get_token()
    if token is None:
        raise UserError("pushing needs a token that may write: set HF_TOKEN, or log in with `hf auth login`")
    with _told(name.repository):
        api = library.HfApi(endpoint=_endpoint(), token=token)
        address = api.create_repo(name.repository, private=private or None, exist_ok=True)
        if private and not api.repo_info(name.repository).private:
            raise UserError(
                f"{name.repository} exists and is public; make it private in its settings, or leave --private out"
            )
        api.upload_folder(repo_id=name.repository, folder_path=folder, commit_message=message)
    return str(address)


def _endpoint() -> str | None:
    # huggingface_hub reads it once, when it is imported.
    return os.environ.get("HF_ENDPOINT") or None


def _library() -> Any:
    try:
        library = importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(f"the hub needs huggingface_hub: {install_command('hub')}") from None
    version = tuple(int(part) for part in re.findall(r"\d+", library.__version__)[:2])
    if version < _OLDEST:
        needed = ".".join(map(str, _OLDEST))
        raise UserError(
            f"huggingface_hub {library.__version__} is too old, {needed} is needed: {install_command('hub')}"
        )
    importlib.import_module("huggingface_hub.errors")
    return library


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn the library's errors into one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever it makes of a hub's answer
        raise UserError(f"{what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    from effnet.runtime.disk import DISK_ERRORS

    kinds = {kind.__name__ for kind in type(error).__mro__}
    for kind, reason in _REASONS.items():
        if kind in kinds:
            return reason
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub refuses it ({status}); see that the token may do this, HF_TOKEN or `hf auth login`"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return (
            f"{error.filename or 'the cache'} can't be written ({error.strerror}); HF_HOME names its folder"
        )
    detail = f"{type(error).__name__}: {one_line(error)}"
    if status is not None:
        return f"the hub answers {status}; try again later ({detail})"
    if "ConnectError" in kinds or "TimeoutException" in kinds or "ConnectionError" in kinds:
        return f"the hub can't be reached; check the network and HF_ENDPOINT ({detail})"
    return f"the hub's answer can't be used ({detail})"


# By the names of the library's errors, the most special first.
_REASONS = {
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set; unset it",
    "LocalEntryNotFoundError": "not in the cache, and the hub can't be reached; check the network, HF_ENDPOINT and "
    "HF_HUB_OFFLINE",
    "GatedRepoError": "its owner grants access; ask for it on the repository's page, and set HF_TOKEN",
    "RepositoryNotFoundError": "no such repository, or a private one; check the name, and set HF_TOKEN or log in with "
    "`hf auth login`",
    "RevisionNotFoundError": "no such revision; name a branch, a tag or a commit of it",
    "EntryNotFoundError": f"holds no {WEIGHTS_FILE}; pickles are not read from the hub",
}
