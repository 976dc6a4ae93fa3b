"""A server from its start to its end."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from effnet.runtime.errors import UserError
from effnet.runtime.signals import Interrupted, Signals, handled_signals
from effnet.runtime.text import to_json
from effnet.serve.answering import decoding_threads
from effnet.serve.app import Api
from effnet.serve.edge import Edge
from effnet.serve.log import fields, json_log
from effnet.serve.metrics import Metrics
from effnet.serve.models import Models
from effnet.serve.settings import ServeSettings
from effnet.serve.stack import Config, H11Protocol, Server, h11

_log = logging.getLogger(__name__)
_CONNECTIONS = 1000
_LONGEST_HEAD = 32 << 10  # bytes of a request's line and headers
_NO_REQUEST = {431: f"the request's line and headers may have {_LONGEST_HEAD:,} bytes"}
_LOOK_S = 0.05  # between two looks for a signal
_LAST_CALL_S = 1.0
"""seconds in which clients learn, with an answer, that their connection closes, before it is closed unasked"""
_BACKLOG = 1024


def serve(settings: ServeSettings, ready: Callable[[str], None]) -> None:
    """Answer requests until a signal ends the process.

    Args:
        settings: the server's.
        ready: called with the server's address once it answers.

    Raises:
        UserError: a model can't be opened, or the address can't be listened on.
        Interrupted: always, in the end; all requests that had begun have been answered.
    """
    with _listening(settings.host, settings.port) as listening, json_log(), _signals() as (signals, hangups):
        metrics = Metrics()
        executor = decoding_threads()
        asyncio.run(_run(settings, metrics, executor, listening, signals, hangups, ready))


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens, within the block."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no host"
        raise UserError(f"--host {host} --port {port}: {reason}") from None
    with listening:
        # An answer's head and body are two writes, the second of which would wait for the client's delayed
        # acknowledgement of the first, 40 ms. Connections inherit this.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listening


async def _run(
    settings: ServeSettings,
    metrics: Metrics,
    executor: ThreadPoolExecutor,
    listening: socket.socket,
    signals: Signals,
    hangups: list[int],
    ready: Callable[[str], None],
) -> None:
    models = Models(settings, metrics)
    models.open_all()
    api = Api(settings, models, metrics, executor)
    app = api.app()
    assert isinstance(app, Edge)
    server = _Server(_configuration(app, settings))
    opening = ThreadPoolExecutor(1, "effnet-open")
    with signals.deferred():
        serving = asyncio.ensure_future(server.serve([listening]))
        background = [asyncio.ensure_future(_reload_on(hangups, models, opening))]
        if settings.watch is not None:
            background.append(asyncio.ensure_future(models.watch(opening, settings.watch)))
        while not (server.started or serving.done()):
            await asyncio.sleep(_LOOK_S / 10)
        _log.info("serving", extra=fields(address=_address(listening), models=[each.name for each in models]))
        ready(_address(listening))
        while signals.received is None and not serving.done():
            await asyncio.sleep(_LOOK_S)
        for task in background:
            task.cancel()
        await _end(server, api, serving)
    assert signals.received is not None
    raise Interrupted(signals.received, f"{app.answered} requests answered")


def _configuration(app: Edge, settings: ServeSettings) -> Config:
    return Config(
        app,
        http=_protocol(settings.timeout),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_LONGEST_HEAD,
        timeout_graceful_shutdown=int(2 * settings.timeout) + 1,
        backlog=_BACKLOG,
    )


class _Server(Server):
    """uvicorn's server without its handling of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to this package."""
        yield


def _protocol(timeout: float) -> type[H11Protocol]:
    """Return uvicorn's protocol, which closes connections on which a request's head does not arrive in time.

    Args:
        timeout: seconds; closed after once to twice as many.
    """

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._looking = self.loop.call_later(timeout, self._look, None)

        def connection_lost(self, error: Exception | None) -> None:
            self._looking.cancel()
            super().connection_lost(error)

        def send_400_response(self, msg: str) -> None:
            """Refuse what is no request, with the status that h11's error asks for: 431 for a long head."""
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                status = getattr(sys.exception(), "error_status_hint", 400)
                body = to_json({"error": _NO_REQUEST.get(status, msg)}).encode()
                headers = {
                    "content-type": "application/json",
                    "content-length": str(len(body)),
                    "connection": "close",
                }
                head = h11.Response(status_code=status, headers=list(headers.items()))
                events = (head, h11.Data(data=body), h11.EndOfMessage())
                self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
            self.transport.close()

        def _look(self, before: object) -> None:
            """Close the connection if nothing has been in work since the last look, or the first."""
            is_idle = self.cycle is None or self.cycle.response_complete
            if is_idle and self.cycle is before:
                self.transport.close()
                return
            self._looking = self.loop.call_later(timeout, self._look, self.cycle if is_idle else self)

    return Protocol


@contextlib.contextmanager
def _signals() -> Iterator[tuple[Signals, list[int]]]:
    """The signals that end the process, and a list that gets an entry for each SIGHUP within the block."""
    received: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: received.append(number))
    try:
        with handled_signals() as signals:
            yield signals, received
    finally:
        signal.signal(signal.SIGHUP, before)


async def _reload_on(hangups: list[int], models: Models, executor: ThreadPoolExecutor) -> None:
    while True:
        if hangups:
            hangups.clear()
            await models.reload(executor)
        await asyncio.sleep(_LOOK_S)


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _end(server: Server, api: Api, serving: "asyncio.Future[None]") -> None:
    """Answer what has begun, tell clients that their connections close, then end."""
    api.is_ending = True
    loop = asyncio.get_running_loop()
    end = loop.time() + _LAST_CALL_S
    while server.server_state.connections and loop.time() < end:
        await asyncio.sleep(_LOOK_S)
    server.should_exit = True
    await serving
