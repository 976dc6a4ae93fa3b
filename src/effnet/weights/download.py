"""Download a file once and keep it: over https, resumed, verified, complete or absent."""

import contextlib
import http.client
import logging
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import filelock

from effnet.runtime.disk import cannot_write, check_room
from effnet.runtime.errors import UserError
from effnet.runtime.files import move_into_place, sha256_of, write_text
from effnet.runtime.http import HttpClient, RefusedError, body, describe, reason, require_https
from effnet.runtime.progress import ProgressBar
from effnet.runtime.temporary import remove_stale_temporaries

_LOG = logging.getLogger("effnet")
MOST = 8 << 30
"""bytes of a file whose length nobody states"""
_RANGE = r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})"
_VALIDATOR = r"[ -~]{1,1000}"
_ATTEMPTS = 4  # after interruptions, as long as each attempt makes progress


def download(url: str, path: Path, *, size: int | None = None, sha256: str | None = None) -> Path:
    """Return `path`, after downloading the file from `url` unless it exists and is intact.

    The SHA-256 is recorded in `<path>.sha256` at the first download, or the first time that a file put there by hand is
    found, and is verified on every call. An interrupted download leaves `<path>.part`, which the next call resumes.
    Of several processes one downloads and the others wait. A server that sends more than it says, or hardly anything,
    is given up.

    Args:
        url: https address; redirections must stay on https.
        path: file to write; missing folders are created.
        size: bytes, if the publisher states it.
        sha256: SHA-256 in lower-case hex or its first digits, if the publisher states it.

    Raises:
        UserError: not https, no network, no such file, an interrupted download, or another file than expected.
    """
    target = _Target(url, path, size, sha256)
    require_https(url)
    remove_stale_temporaries(path.parent)  # of downloads that were killed
    if not target.problem(path):  # without the lock, so that a cache that can only be read will do
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            if problem := target.problem(path):
                if path.is_file():
                    _LOG.warning("%s: %s; downloading it again", path, problem)
                    path.unlink()
                _fetch(target)
                _accept(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            target.forget()
        raise UserError(f"{cannot_write(path, error)}; EFFNET_HOME names the folder of downloads") from None
    return path


@dataclass
class _Target:
    """A file to download, its expected size and hash, and the names of the files beside it."""

    url: str
    path: Path
    size: int | None
    sha256: str | None

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def validator(self) -> Path:
        """File with the server's identifier of the version that `part` is of (ETag or Last-Modified)."""
        return self.path.with_name(self.path.name + ".part.validator")

    @property
    def recorded(self) -> Path:
        return self.path.with_name(self.path.name + ".sha256")

    @property
    def by_hand(self) -> str:
        return f"fetch {self.url} by hand and put it at {self.path}"

    def forget(self) -> None:
        """Remove what has been downloaded of it."""
        self.validator.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def note_hash(self, url: str, headers: Mapping[str, str]) -> None:
        """Take over the hash that the Hugging Face hub states when it redirects."""
        linked = headers.get("X-Linked-Etag", "").strip('"')
        if self.sha256 is None and re.fullmatch("[0-9a-f]{64}", linked):
            self.sha256 = linked

    def problem(self, file: Path) -> str:
        """Return why `file` is not the expected file, or an empty string if it is. Records its hash."""
        if not file.is_file():
            return "not there"
        if self.size not in (None, actual := file.stat().st_size):
            return f"{actual} bytes, not {self.size}"
        digest = sha256_of(file)
        recorded = _text(self.recorded)
        for expected, origin in (
            (self.sha256, "its publisher's"),
            (recorded, f"that in {self.recorded.name}"),
        ):
            if expected and not digest.startswith(expected):
                return f"its SHA-256 {digest[:16]}... is not {origin}, {expected[:16]}..."
        if not recorded:
            with contextlib.suppress(UserError):  # a cache that can only be read
                write_text(self.recorded, digest + "\n")
        return ""


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = filelock.FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _LOG.info("%s: waiting for another process that downloads it", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(target: _Target) -> None:
    """Bring `target.part` to its full length, resuming as often as there is progress."""
    _LOG.info("downloading %s to %s", target.url, target.path)
    for _ in range(_ATTEMPTS):
        before = _length(target.part)
        interruption = _fetch_once(target)
        if interruption is None:
            return
        if _length(target.part) == before:
            break
    if not _length(target.part):
        host = urllib.parse.urlsplit(target.url).hostname
        raise UserError(f"{host} can't be reached ({interruption}); {target.by_hand}")
    raise UserError(
        f"{target.url}: interrupted after {_length(target.part)} bytes ({interruption}); "
        "the part is kept, run the same command again to resume"
    )


def _accept(target: _Target) -> None:
    """Move the finished part into place, or delete it if it is not the expected file."""
    problem = target.problem(target.part)
    target.validator.unlink(missing_ok=True)
    if problem:
        target.part.unlink()
        raise UserError(f"{target.url}: {problem}; nothing was kept, try again later or {target.by_hand}")
    move_into_place(target.part, target.path)


def _fetch_once(target: _Target) -> str | None:
    """Send one request; return None when the part is complete, else the reason why it is not."""
    try:
        with HttpClient(https_only=True, redirected=target.note_hash) as client:
            response = _open(client, target)
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                target.part.unlink(missing_ok=True)
                return "the server has another file by now"
            if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise UserError(f"{target.url}: HTTP {describe(response)}; {target.by_hand}")
            offset, total = _extent(response, target)
            _write(response, target, offset, total)
    except RefusedError as error:
        target.forget()
        raise UserError(f"{target.url}: {error}; nothing was kept, {target.by_hand}") from None
    except (http.client.HTTPException, _Broken) as error:
        return reason(error)
    short = total is not None and _length(target.part) < total
    return f"the connection ended {total - _length(target.part)} bytes early" if short and total else None


class _Broken(Exception):  # noqa: N818 (not an error: it is resumed)
    """The connection broke, as opposed to an error of the disk."""


def _open(client: HttpClient, target: _Target) -> http.client.HTTPResponse:
    headers = {}
    have, validator = _length(target.part), _text(target.validator)
    if have and re.fullmatch(_VALIDATOR, validator):
        headers = {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        return client.open(target.url, headers)
    except RefusedError:
        raise
    except OSError as error:
        raise _Broken(reason(error)) from None


def _extent(response: http.client.HTTPResponse, target: _Target) -> tuple[int, int | None]:
    """Return the offset in the file at which the body starts, and the file's length if the server sends it.

    Raises:
        RefusedError: another length than the publisher states, or no room for it.
        _Broken: another part than asked for.
    """
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(_RANGE, response.headers.get("Content-Range", ""))
        if found and int(found[1]) == _length(target.part) and int(found[2]) + 1 == int(found[3]):
            return int(found[1]), _accepted(int(found[3]), target)
        target.part.unlink(missing_ok=True)  # so that the next attempt starts from the beginning
        raise _Broken("the server sent another part than asked for")
    length = response.headers.get("Content-Length")
    etag = response.headers.get("ETag", "")
    # A weak tag promises the same meaning, not the same bytes.
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    target.forget()
    if validator:
        write_text(target.validator, validator)
    return 0, _accepted(int(length), target) if length else target.size


def _accepted(total: int, target: _Target) -> int:
    """Return the length of a file that a server states, unless it can't be the file."""
    if target.size not in (None, total) or total > MOST:
        raise RefusedError(f"the server offers {total} bytes, not {target.size or f'at most {MOST}'}")
    check_room(target.path.parent, total - _length(target.part), target.path.name)
    return total


def _write(response: http.client.HTTPResponse, target: _Target, offset: int, total: int | None) -> None:
    progress = ProgressBar(target.path.name, total, done=offset, in_bytes=True)
    with target.part.open("ab") as file, progress:
        for part in _parts(response, (MOST if total is None else total) - offset):
            file.write(part)
            progress.advance(len(part))
        file.flush()
        os.fsync(file.fileno())


def _parts(response: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    try:
        yield from body(response, most)
    except RefusedError:
        raise
    except OSError as error:  # told apart from errors of the disk
        raise _Broken(str(error)) from None


def _text(path: Path) -> str:
    """Return a small file's text; empty if there is none."""
    return path.read_text(errors="replace").strip() if path.is_file() else ""


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
