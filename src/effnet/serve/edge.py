"""Around every request: its id, its line in the log, and its time."""

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from effnet.runtime.errors import UserError, one_line
from effnet.serve.log import fields
from effnet.serve.metrics import Metrics
from effnet.serve.stack import ASGIApp, Headers, Message, MutableHeaders, Receive, Scope, Send

_log = logging.getLogger(__name__)
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OTHER = "other"
_NO_ANSWER = 499  # as nginx calls a client that has gone


class Edge:
    """An application with ids, log and metrics around it.

    Args:
        app: the application; finds `state.id` and `state.log`, a dict of further values for the log, in its requests.
        metrics: counts requests.
        paths: paths that the metrics name; all others are one.
        is_ending: returns True once connections are to be closed after their answer.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, paths: Iterable[str], is_ending: Callable[[], bool]
    ) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)
        self._is_ending = is_ending
        self.answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see ASGI's specification."""
        if scope["type"] != "http":
            return
        started = time.monotonic()
        given = Headers(scope=scope).get("x-request-id", "")
        number = given if _ID.fullmatch(given) else uuid.uuid4().hex
        log: dict[str, Any] = {}
        scope["state"] = {"id": number, "log": log}
        status = _NO_ANSWER

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = number
                headers["x-content-type-options"] = "nosniff"
                if self._is_ending():
                    headers["connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            log["error"] = one_line(error)
            if not isinstance(error, UserError):
                _log.exception("bug", extra=fields(id=number))
        seconds = time.monotonic() - started
        self.answered += 1
        path = scope["path"] if scope["path"] in self._paths else _OTHER
        self._metrics.request(path, status, seconds)
        shown = {"method": scope["method"], "path": scope["path"][:200], "status": status}
        _log.info("request", extra=fields(id=number, **shown, ms=round(1000 * seconds, 2), **log))
