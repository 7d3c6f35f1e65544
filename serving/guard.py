"""Who may come in: stands before the app, finds the door of a request, says who asks, and lets in or refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import DependencyDown, Unauthenticated, UsageError
from registry.access import Principal, local, may
from serving.authenticate import Authenticator
from serving.doors import Door, Doors
from serving.jwks import is_loopback
from serving.problems import problem

log = structlog.get_logger("seatrial.serving")
PRINCIPAL = "seatrial.principal"
CHALLENGE = 'Bearer realm="seatrial"'
_MAX_CHARS = 16_384
_NOTHING = "no credential"
_OPEN = local("local")
_PROXIED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"})


class Guard:
    """An ASGI app before another one.

    What is not among the doors is refused before the app behind sees it, so that a route that somebody adds without
    declaring its role cannot be reached. While access is open, everybody who reaches a loopback address is let in; a
    request that came in over another address, through a proxy or under a foreign name is refused.

    Args:
        app: the app behind.
        doors: its addresses and their roles.
        access: gives the authenticator, None while access is open; first called when a request comes.
    """

    def __init__(self, app: ASGIApp, doors: Sequence[Door], access: Callable[[], Authenticator | None]) -> None:
        self._app, self._doors, self._access = app, Doors(doors), access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI; websockets are refused."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = None if scope["type"] == "lifespan" or PRINCIPAL in scope else await self._look(scope)
        await (refusal or self._app)(scope, receive, send)

    async def _look(self, scope: Scope) -> Response | None:
        """None when the request may go on, with who asks in the scope; otherwise the answer."""
        there = self._doors.at(scope["path"])
        door = next((one for one in there if scope["method"] in one.methods), None)
        if door is None:
            return _no_door(there)
        try:
            access = self._access()
            if access is None:
                scope[PRINCIPAL] = _OPEN
                return _not_from_here(scope)
            who = await _who(access, scope) if door.role is not None else None
            scope[PRINCIPAL] = who
            return _judged(door, who)
        except Unauthenticated as error:
            log.warning("unauthenticated", why=error.why, door=door.path)
            told = CHALLENGE if error.why == _NOTHING else f'{CHALLENGE}, error="invalid_token"'
            detail = "a valid key or token is needed: Authorization: Bearer ..."
            return problem(401, "Not authenticated", detail, headers={"www-authenticate": told})
        except DependencyDown as error:
            log.error("access_unavailable", why=str(error))
            return problem(503, "Not available", f"{error.dependency} is not available")
        except UsageError as error:
            log.error("access_misconfigured", why=str(error))
            return problem(503, "Not available", "the service's access is not set up; its log says what is missing")


async def _who(access: Authenticator, scope: Scope) -> Principal:
    credential = _bearer(scope)
    if access.quick(credential):
        return access.principal(credential)
    return await run_in_threadpool(access.principal, credential)


def _bearer(scope: Scope) -> str:
    given: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given:
        raise Unauthenticated(_NOTHING)
    if len(given) > 1 or len(given[0]) > _MAX_CHARS:
        raise Unauthenticated("several Authorization headers, or one beyond reason")
    kind, _, credential = given[0].decode("latin-1").partition(" ")
    if kind.lower() != "bearer":
        raise Unauthenticated("another scheme than Bearer")
    return credential.strip(" ")


def _judged(door: Door, who: Principal | None) -> Response | None:
    if door.role is None or who is None:
        return None
    permission = may(who, door.role, every_model=door.every_model)
    if permission.allowed:
        return None
    log.warning("forbidden", who=who.name, credential=who.credential, door=door.path, why=permission.reason)
    return problem(403, "Forbidden", permission.reason)


def _no_door(there: Sequence[Door]) -> Response:
    if not there:
        return problem(404, "Not Found", "Not Found")
    allowed = ", ".join(door.method for door in there)
    return problem(405, "Method Not Allowed", "Method Not Allowed", headers={"allow": allowed})


def _not_from_here(scope: Scope) -> Response | None:
    """A refusal when access is open and the request came from elsewhere.

    Over an address that others can reach; through a proxy that says so; or under another name than this machine's own,
    as from a web page whose name was pointed at loopback. A proxy on this machine that says nothing cannot be told.
    """
    server = scope.get("server")
    address = str(server[0]) if server else ""
    said = dict(scope["headers"])
    proxied = not _PROXIED.isdisjoint(said)
    foreign = is_loopback(address) and not _is_here(said.get(b"host", b""))
    if not (proxied or foreign or _others_reach(address)):
        return None
    log.error("open_beyond_loopback", address=address, proxied=proxied, foreign_host=foreign)
    return problem(403, "Forbidden", "access is open here, which is for loopback only; set SEATRIAL_ACCESS=required")


@lru_cache(maxsize=64)
def _is_here(host: bytes) -> bool:
    """Whether a Host header, with or without a port, names this machine's loopback; none says nothing."""
    name = host.decode("latin-1").strip()
    return not name or is_loopback(name.partition("]")[0] if name[:1] == "[" else name.partition(":")[0].lower())


@lru_cache(maxsize=64)
def _others_reach(host: str) -> bool:
    """Whether an address (not a unix socket's path or a test client's name) is another than loopback."""
    return (host[:1].isdigit() or ":" in host) and not is_loopback(host)
