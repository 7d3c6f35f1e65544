"""The HTTP face of the decision handler: a Starlette app with strict limits and errors as problem+json (RFC 9457)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from contracts.errors import Conflict, DependencyDown, SeatrialError, UnknownName
from registry.access import Principal
from serving.authenticate import Authenticator, access_of_environment
from serving.doors import DOORS
from serving.guard import PRINCIPAL, Guard
from serving.handler import DecisionHandler
from serving.openapi import openapi
from serving.presentation import answer_body, record_body
from serving.problems import problem
from serving.requests import ForecastRequest, OutcomeRequest, RequestInvalid, ScoreRequest, decode, read_request

log = structlog.get_logger("seatrial.serving")
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Limits:
    """Bounds on what a caller may cost: bytes of a body, seconds to send it, items answered on the event loop."""

    body_bytes: int = 1024 * 1024
    body_s: float = 30.0
    inline_items: int = 4
    refresh_s: float = 0.25


def make_app(
    source: Callable[[], DecisionHandler],
    limits: Limits | None = None,
    *,
    background: bool = True,
    access: Callable[[], Authenticator | None] = access_of_environment,
) -> Starlette:
    """The app.

    Args:
        source: gives the handler; first called when a request comes, so that making the app does no I/O.
        limits: bounds on callers.
        background: while the app runs, look for changed snapshots and bring logs onto the disk every `refresh_s`.
        access: gives the authenticator, None while access is open; what the environment says when not given.
    """
    bounds = limits or Limits()
    api = _Api(source, bounds)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(upkeep(source, bounds.refresh_s)) if background else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await run_in_threadpool(source().sync)

    return Starlette(
        routes=[Route(door.path, getattr(api, door.answers), methods=[door.method]) for door in DOORS],
        middleware=[Middleware(Guard, doors=DOORS, access=access)],
        lifespan=lifespan,
        exception_handlers={SeatrialError: _refused, HTTPException: _http, Exception: _broken},
    )


async def upkeep(source: Callable[[], DecisionHandler], every_s: float) -> None:
    """Take new snapshots into service and bring logs onto the disk, for ever; a failure is logged and tried again."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await run_in_threadpool(_look_after, source())
        except Exception as error:
            log.error("upkeep_failed", kind=type(error).__name__)


def _look_after(handler: DecisionHandler) -> None:
    for model in handler.refresh():
        log.info("swapped", model=model, revision=handler.models.get(model).snapshot.revision)
    handler.sync()


class _Api:
    """The endpoints over one handler."""

    def __init__(self, source: Callable[[], DecisionHandler], limits: Limits) -> None:
        self._source, self._limits = source, limits

    async def forecast(self, request: Request) -> Response:
        """Forecasts of demand."""
        asked = read_request(ForecastRequest, decode(await read_body(request, self._limits)))
        model = _model(request)
        records = await self._run(len(asked.items), lambda: self._source().forecast(model, asked))
        return _json(answer_body(model, records))

    async def score(self, request: Request) -> Response:
        """Risks of shipments."""
        asked = read_request(ScoreRequest, decode(await read_body(request, self._limits)))
        model = _model(request)
        records = await self._run(len(asked.items), lambda: self._source().score(model, asked))
        return _json(answer_body(model, records))

    async def outcomes(self, request: Request) -> Response:
        """Outcomes as they become known."""
        asked = read_request(OutcomeRequest, decode(await read_body(request, self._limits)))
        who = _principal(request)
        sees = None if who.models is None else who.sees
        taken = await self._run(len(asked.items), lambda: self._source().outcome(asked, sees=sees))
        return _json({"outcomes": taken}, status=202)

    async def decision(self, request: Request) -> Response:
        """One decision's record; that of a model that who asks may not see is not there."""
        wanted = request.path_params["wanted"]
        record = self._source().decision(wanted)
        if not _principal(request).sees(record.model):
            raise UnknownName("decision", wanted[:40], ())
        return _json(record_body(record))

    async def live(self, _: Request) -> Response:
        """The process answers."""
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """At least one model is in service; which ones is told while access is open."""
        state = self._source().ready()
        told = state if request.scope[PRINCIPAL] is not None else {"ready": state["ready"]}
        return _json(told, status=200 if state["ready"] else 503)

    async def metrics(self, _: Request) -> Response:
        """Prometheus series."""
        text = await run_in_threadpool(self._source().metrics.text)  # a scrape may look at what landed
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def schema(self, _: Request) -> Response:
        """The OpenAPI document."""
        return _json(openapi())

    async def _run(self, items: int, work: Callable[[], Any]) -> Any:
        """Small requests on the loop (a thread's hop costs more than the answer), larger ones beside it."""
        return work() if items <= self._limits.inline_items else await run_in_threadpool(work)


async def read_body(request: Request, limits: Limits) -> bytes:
    """The request's body, counted while it comes.

    Raises:
        HTTPException: 413 too large, 408 too slow, 415 not plain JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "the body must be application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "the body must come uncompressed")
    said = request.headers.get("content-length", "0")
    if not said.isdecimal() or len(said) > 18 or int(said) > limits.body_bytes:
        raise HTTPException(413, f"the body may have at most {limits.body_bytes} bytes")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise HTTPException(413, f"the body may have at most {limits.body_bytes} bytes")
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"the body took longer than {limits.body_s:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body was cut short") from None
    return b"".join(parts)


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, RequestInvalid):
        fields = [{"field": field, "wanted": words} for field, words in error.problems]
        return problem(422, "Request not valid", str(error), errors=fields)
    if isinstance(error, UnknownName):
        return problem(404, "Not found", f"no such {error.what}")
    if isinstance(error, Conflict):
        return problem(409, "Conflict", str(error))
    if isinstance(error, DependencyDown):
        return problem(503, "Not available", f"{error.dependency} is not available")
    log.error("refused", kind=type(error).__name__)
    return problem(500, "Internal error", "the request could not be answered")


async def _http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(getattr(error, "detail", ""))
    made = problem(status, detail if status in (404, 405) else "Request refused", detail)
    for name, value in (getattr(error, "headers", None) or {}).items():
        made.headers[name] = value
    return made


async def _broken(_: Request, error: Exception) -> Response:
    log.error("broken", kind=type(error).__name__)
    return problem(500, "Internal error", "the request could not be answered")


def _model(request: Request) -> str:
    """The model that the path names.

    Raises:
        UnknownName: who asks may not see it, which looks as if it did not exist.
    """
    model = str(request.path_params["slug"]).replace("-", "_")
    if not _principal(request).sees(model):
        raise UnknownName("model", model, ())
    return model


def _principal(request: Request) -> Principal:
    who = request.scope[PRINCIPAL]
    if not isinstance(who, Principal):
        raise RuntimeError("an endpoint that needs a principal stands behind a door that needs none")
    return who


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")
