"""Files of a data set by name, whole or in parts: in a folder, behind HTTP(S), or wherever fsspec reaches."""

import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from effnet.runtime.errors import UserError
from effnet.runtime.http import NETWORK_ERRORS, HttpClient, RefusedError, reason

_CONNECTIONS = 16  # of a worker: what hides the delay of an object storage's answers
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
# Of parts that one request fetches. A run is no longer, so that a batch of photographs still comes over many
# connections; a gap of this size takes less time than the delay of another request.
_LONGEST_RUN = 1 << 20  # bytes
_LARGEST_GAP = 16 << 10  # bytes

# two letters at least: C:/ is a drive. One slash is what pathlib leaves of two.
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])", re.IGNORECASE)


class Part(NamedTuple):
    """Bytes `start` to `stop` of a file, the latter excluded."""

    name: str
    start: int
    stop: int


class Files(Protocol):
    """Files under one place. Every failure is a `UserError` that names the file."""

    def where(self, name: str) -> str:
        """Return a file's name for messages."""

    def whole(self, name: str, *, at_most: int) -> bytes:
        """Return the content of a file, which may have `at_most` bytes."""

    def parts(self, wanted: Sequence[Part]) -> Iterator[Callable[[], bytes | memoryview]]:
        """Yield for each part a function that returns it; remote parts are already being fetched by then."""


def open_files(place: Path | str, *below: str) -> Files:
    """The files in the folder `below` of a folder or a URL.

    A URL's query, such as a signature that holds for all files under it, goes with every request.
    """
    match = _URL.match(str(place))
    if not match:
        return LocalFiles(Path(place, *below))
    url = f"{match[1].lower()}://{str(place)[match.end() :]}"
    head, _, query = url.partition("?")
    head = "/".join((head.rstrip("/"), *below))
    remote = HttpClient if match[1].lower() in ("http", "https") else _Fsspec
    return RemoteFiles(remote, head, f"?{query}" if query else "")


class LocalFiles:
    """Files in a folder; parts are views of memory-mapped files, which workers share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._maps: dict[str, memoryview] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFiles, (self.root,)

    def where(self, name: str) -> str:
        """See `Files`."""
        return str(self.root / name)

    def whole(self, name: str, *, at_most: int) -> bytes:
        """See `Files`."""
        try:
            with (self.root / name).open("rb") as file:
                _check_size(self.where(name), os.fstat(file.fileno()).st_size, at_most)
                return file.read()
        except OSError as error:
            raise UserError(f"{self.where(name)}: {error.strerror}") from None

    def parts(self, wanted: Sequence[Part]) -> Iterator[Callable[[], bytes | memoryview]]:
        """See `Files`."""
        for part in wanted:
            yield partial(self._part, part)

    def _part(self, part: Part) -> memoryview:
        data = self._mapped(part.name)[part.start : part.stop]
        if len(data) != part.stop - part.start:
            raise UserError(f"{self.where(part.name)} is shorter than its index says; pack or copy it again")
        return data

    def _mapped(self, name: str) -> memoryview:
        if name not in self._maps:
            try:
                with (self.root / name).open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise UserError(f"{self.where(name)}: {error}") from None
            self._maps[name] = memoryview(mapped)
        return self._maps[name]


def _check_size(where: str, size: int, at_most: int) -> None:
    if size > at_most:
        raise UserError(f"{where}: has {size >> 20} MiB, more than the {at_most >> 20} MiB that it may have")


_FINAL = (RefusedError, FileNotFoundError, PermissionError)


class Remote(Protocol):
    """A reader of one kind of remote place; an instance belongs to one thread."""

    def get(self, url: str, start: int, stop: int | None) -> bytes:
        """Return bytes of a file, to its end if `stop` is None. Raise OSError where a retry may help."""


class RemoteFiles:
    """Files under a URL; parts come over several connections at once, ahead of their use.

    Neighbouring parts come in one request.
    """

    def __init__(self, remote: Callable[[], Remote], head: str, tail: str) -> None:
        self._remote, self._head, self._tail = remote, head, tail
        self._process = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFiles, (self._remote, self._head, self._tail)

    def where(self, name: str) -> str:
        """See `Files`; without the query, which may be a secret."""
        return f"{self._head}/{name}"

    def whole(self, name: str, *, at_most: int) -> bytes:
        """See `Files`."""
        content = self._get(self._remote(), name, 0, None)
        _check_size(self.where(name), len(content), at_most)
        return content

    def parts(self, wanted: Sequence[Part]) -> Iterator[Callable[[], bytes | memoryview]]:
        """See `Files`."""
        if self._process != os.getpid():  # a worker inherits neither threads nor connections
            self._pool = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="effnet-fetch")
            self._of_thread = threading.local()
            self._process = os.getpid()
        fetched: dict[int, Callable[[], memoryview]] = {}
        for run, places in runs_of(wanted):
            future = self._pool.submit(self._get_part, run)
            for place in places:
                fetched[place] = partial(_piece, future, run, wanted[place])
        for place in range(len(wanted)):
            yield fetched[place]

    def _get_part(self, part: Part) -> bytes:
        if not hasattr(self._of_thread, "remote"):
            self._of_thread.remote = self._remote()
        data = self._get(self._of_thread.remote, part.name, part.start, part.stop)
        if len(data) != part.stop - part.start:
            raise UserError(f"{self.where(part.name)} is shorter than its index says; pack or copy it again")
        return data

    def _get(self, remote: Remote, name: str, start: int, stop: int | None) -> bytes:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return remote.get(f"{self._head}/{name}{self._tail}", start, stop)
            except NETWORK_ERRORS as error:
                if attempt == _ATTEMPTS or isinstance(error, _FINAL):
                    raise UserError(f"{self.where(name)}: {reason(error)}") from None
                time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError


def runs_of(wanted: Sequence[Part]) -> list[tuple[Part, list[int]]]:
    """Return what to fetch for the parts: each a run of a file, with the positions in `wanted` of the parts in it.

    Parts with small gaps between them are one run, in whatever order they are wanted. The run that is needed first
    is the first.
    """
    runs: list[tuple[Part, list[int]]] = []
    for place in sorted(range(len(wanted)), key=wanted.__getitem__):
        part = wanted[place]
        run, places = runs[-1] if runs else (None, [])
        if (
            run is not None
            and run.name == part.name
            and part.start - run.stop <= _LARGEST_GAP
            and max(run.stop, part.stop) - run.start <= max(_LONGEST_RUN, run.stop - run.start)
        ):
            places.append(place)
            runs[-1] = Part(run.name, run.start, max(run.stop, part.stop)), places
        else:
            runs.append((part, [place]))
    return sorted(runs, key=lambda run: min(run[1]))


def _piece(run: Future[bytes], whole: Part, part: Part) -> memoryview:
    return memoryview(run.result())[part.start - whole.start : part.stop - whole.start]


class _Fsspec:
    """Object storage and whatever else fsspec has a file system for."""

    def get(self, url: str, start: int, stop: int | None) -> bytes:
        """See `Remote`."""
        try:
            import fsspec  # type: ignore[import-untyped]
        except ImportError:
            raise UserError(f"{url.split('://')[0]}:// needs fsspec: pip install fsspec") from None
        try:
            files, path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:  # of the package for this kind of place, or of the kind
            raise UserError(f"{url.split('?')[0]}: {' '.join(str(error).split())}") from None
        data: bytes = files.cat_file(path, start=start, end=stop)
        return data
