"""A report on loopback that follows runs while they go on."""

import functools
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from effnet.report.page import Report, render, version
from effnet.report.runs import Run, find_log, read_runs
from effnet.report.summary import live_line
from effnet.runtime.errors import UserError
from effnet.runtime.text import to_json

HOST = "127.0.0.1"
_OWN_NAMES = ("127.0.0.1", "localhost")
_Signatures = tuple[tuple[int, int], ...]


class LiveServer(ThreadingHTTPServer):
    """Serves the page of runs at ``/``, and where they stand at ``/state``, as they are when it is asked.

    Args:
        places: folders of runs, or logs.
        port: port on loopback; 0 for a free one.

    Raises:
        UserError: there is no log, or the port can't be had.
    """

    daemon_threads = True

    def __init__(self, places: Sequence[str | Path], port: int = 0) -> None:
        self._places = [find_log(place) for place in places]
        self._read = functools.lru_cache(maxsize=1)(self._read_as)
        self._rendered = functools.lru_cache(maxsize=1)(self._render)
        self.runs()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port {port}: {error.strerror or error}; take another, or 0 for a free one"
            ) from None

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def runs(self) -> list[Run]:
        """Return the runs as they are now."""
        return self._read(self._signatures())

    def page(self) -> str:
        """Return the page; it is made again when a log has changed."""
        return self._rendered(self._signatures())

    def state(self) -> str:
        """Return where the runs stand, and the version of the page, as JSON."""
        runs = self.runs()
        lines = [f"{run.name}: {live_line(run)}" if len(runs) > 1 else live_line(run) for run in runs]
        return to_json({"version": version(runs), "line": "; ".join(lines)})

    def _signatures(self) -> _Signatures:
        return tuple(_signature(place) for place in self._places)

    def _read_as(self, signatures: _Signatures) -> list[Run]:
        return read_runs(self._places, may_begin=True)

    def _render(self, signatures: _Signatures) -> str:
        return render(Report(self._read(signatures), live=True))


def _signature(log: Path) -> tuple[int, int]:
    try:
        found = log.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version = "effnet"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer a request."""
        # A page of another origin whose name leads to loopback must not read the runs.
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in _OWN_NAMES:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "only for this machine\n")
            return
        try:
            if self.path == "/":
                self._send(HTTPStatus.OK, "text/html", self.server.page())
            elif self.path == "/state":
                self._send(HTTPStatus.OK, "application/json", self.server.state())
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", "no such page\n")
        except UserError as error:  # the log is gone
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n")

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the terminal belongs to the command's own line."""

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)
