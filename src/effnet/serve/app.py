"""The paths of the server."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from importlib import resources
from typing import Any, TypeVar

from effnet.recipe.numbers import integer
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.text import to_json
from effnet.serve.admission import Admission, Held
from effnet.serve.answering import answers
from effnet.serve.edge import Edge
from effnet.serve.explaining import heat_map
from effnet.serve.metrics import CONTENT_TYPE, Metrics
from effnet.serve.models import Models, Served
from effnet.serve.openapi import CLASS_HEADER, document
from effnet.serve.refusal import Refusal
from effnet.serve.settings import ServeSettings
from effnet.serve.stack import (
    ASGIApp,
    CORSMiddleware,
    HTTPException,
    Middleware,
    Request,
    Response,
    Route,
    Starlette,
)
from effnet.serve.upload import Upload, uploads_of

_Result = TypeVar("_Result")

_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Api:
    """The endpoints.

    Args:
        settings: the server's.
        models: its models.
        metrics: its metrics.
        executor: decodes photographs.

    Attributes:
        is_ending: the server has been asked to end; it still answers, and tells so.
    """

    def __init__(self, settings: ServeSettings, models: Models, metrics: Metrics, executor: Executor) -> None:
        self.is_ending = False
        self._settings, self._models, self._metrics = settings, models, metrics
        self._executor = executor
        self._admission = Admission(settings.queue, settings.max_bytes, metrics)
        self._page = resources.files(__package__).joinpath("page.html").read_bytes()

    def app(self) -> ASGIApp:
        """Return the application."""
        secret = self._with_token
        routes = [
            Route("/", self._index),
            Route("/classify", secret(self._classify), methods=["POST"]),
            Route("/explain", secret(self._explain), methods=["POST"]),
            Route("/models", secret(self._list_models)),
            Route("/metrics", secret(self._show_metrics)),
            Route("/healthz", self._health),
            Route("/openapi.json", self._openapi),
        ]
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(self._settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", CLASS_HEADER],
        )
        app = Starlette(
            routes=routes,
            middleware=[cors] if self._settings.origins else [],
            exception_handlers={Refusal: _refused, HTTPException: _not_found, Exception: _failed},
        )
        app.router.redirect_slashes = False
        return Edge(app, self._metrics, [route.path for route in routes], lambda: self.is_ending)

    def _with_token(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that asks for the token, where there is one."""
        if (token := self._settings.token) is None:
            return endpoint

        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                reason = "the header 'Authorization: Bearer TOKEN' is missing or wrong"
                raise Refusal(401, reason, {"www-authenticate": "Bearer"})
            return await endpoint(request)

        return checked

    async def _index(self, request: Request) -> Response:
        headers = {"content-security-policy": _PAGE_POLICY, "cache-control": "no-cache"}
        return Response(self._page, media_type="text/html", headers=headers)

    async def _list_models(self, request: Request) -> Response:
        return _json({"models": [served.description() for served in self._models]})

    async def _show_metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def _health(self, request: Request) -> Response:
        return _json({"status": "ending"}, 503) if self.is_ending else _json({"status": "ok"})

    async def _openapi(self, request: Request) -> Response:
        return _json(document(self._settings))

    async def _classify(self, request: Request) -> Response:
        started = time.monotonic()
        with (
            self._models.using(request.query_params.get("model")) as served,
            self._admission.held() as held,
        ):
            topk = _topk(request, served)
            self._admission.check()
            uploads = await self._uploads(request, held)
            limit = self._settings.max_pixels
            with self._admission.images(len(uploads)):
                found = await self._in_time(
                    answers(served, uploads, self._executor, topk=topk, max_pixels=limit)
                )
            return self._answered(request, served, found, time.monotonic() - started)

    async def _explain(self, request: Request) -> Response:
        label, limit = request.query_params.get("label"), self._settings.max_pixels
        with (
            self._models.using(request.query_params.get("model")) as served,
            self._admission.held() as held,
        ):
            self._admission.check()
            uploads = await self._uploads(request, held)
            if len(uploads) > 1:
                raise Refusal(422, f"{len(uploads)} images; send one at a time to /explain")
            with self._admission.images(1):
                found = await self._in_time(
                    heat_map(served, uploads[0], self._executor, label=label, max_pixels=limit)
                )
            request.state.log.update(model=served.name, images=1)
        return Response(found.jpeg, media_type="image/jpeg", headers={CLASS_HEADER: str(found.index)})

    async def _uploads(self, request: Request, held: Held) -> list[Upload]:
        settings = self._settings
        return await uploads_of(
            request, held, max_bytes=settings.max_bytes, timeout=settings.timeout, executor=self._executor
        )

    async def _in_time(self, answer: Awaitable[_Result]) -> _Result:
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await answer
        except TimeoutError:
            reason = f"no answer within {self._settings.timeout:g} s; send it again later"
            raise Refusal(503, reason, {"retry-after": "1"}) from None

    def _answered(
        self, request: Request, served: Served, images: list[dict[str, Any]], seconds: float
    ) -> Response:
        is_good = ["error" not in image for image in images]
        for each in is_good:
            self._metrics.image(served.name, is_good=each)
        request.state.log.update(model=served.name, images=len(images))
        answer = {
            "model": served.classifier.arch,
            "name": served.name,
            "engine": served.classifier.engine.name,
            "id": request.state.id,
            "latency_ms": round(1000 * seconds, 2),
            "images": images,
        }
        return _json(answer, 200 if all(is_good) else 422)


def _topk(request: Request, served: Served) -> int | None:
    if (text := request.query_params.get("topk")) is None:
        return None
    try:
        topk = integer(text)
    except ValueError as error:
        raise Refusal(422, f"topk {error}") from None
    classes = len(served.classifier.classes)
    if topk < 1 or 0 < classes < topk:
        raise Refusal(422, f"topk must be from 1 to {classes or 'the number of classes'}")
    return topk


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), status, headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    request.state.log.update(reason=error.reason)
    return _json({"error": error.reason, "id": request.state.id}, error.status, error.headers)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return _json({"error": error.detail, "id": request.state.id}, error.status_code, headers)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer a request that has met a bug, or an engine that fails."""
    reason = one_line(error) if isinstance(error, UserError) else "internal error; see the server's log"
    return _json({"error": reason, "id": request.state.id}, 500)
