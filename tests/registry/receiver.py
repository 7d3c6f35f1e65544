"""A real HTTP server on loopback that remembers what came, and rows and targets to send it."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from contracts.events_out import FileTarget, WebhookTarget
from contracts.rollout import LedgerRow, RowKind
from registry.ledger import RowDraft
from registry.sql_ledger import SqlLedger
from tests.registry.rig import MODEL, START

Answer = tuple[int, dict[str, str]]


@dataclass
class Request:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The body as an event."""
        return dict(json.loads(self.body))


@dataclass
class Receiver:
    """What came, and how to answer: `answer` is asked with the request and gives a status and headers.

    `connections`: how often somebody connected, also without a request that could be read.
    """

    url: str = ""
    port: int = 0
    connections: int = 0
    got: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda _request: (200, {})
    body: bytes = b"thank you"

    @property
    def ids(self) -> list[str]:
        """Ids of the events that were taken, in order."""
        return [str(request.event["id"]) for request in self.got]


@contextmanager
def receiving(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Receiver]:
    """A running receiver."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            request = Request(self.path, dict(self.headers.items()), self.rfile.read(length))
            status, headers = receiver.answer(request)
            receiver.got.append(request)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(receiver.body)))
            self.end_headers()
            self.wfile.write(receiver.body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def get_request(self) -> tuple[Any, Any]:
            found = super().get_request()
            receiver.connections += 1
            return found

    server = Server((host, port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    receiver.url = f"{'https' if tls else 'http'}://{host}:{receiver.port}/events"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def append(ledger: SqlLedger, number: int, *, model: str = MODEL, kind: RowKind = RowKind.POLICY_CHANGED) -> LedgerRow:
    """Row `number` of a model, appended for real."""
    at = START + timedelta(hours=number)
    return ledger.append(RowDraft(model, kind, "", at, "ann", "because", f"q{number}", {}), number - 1)


def fill(home: Path, models: Sequence[str] = (MODEL,), each: int = 3) -> str:
    """A ledger with some rows of some models; returns its URL."""
    url = f"sqlite:///{home / 'ledger.db'}"
    ledger = SqlLedger(url)
    for number in range(1, each + 1):
        for model in models:
            append(ledger, number, model=model)
    ledger.close()
    return url


def file_target(**change: Any) -> FileTarget:
    """A target for tests that send by hand."""
    return FileTarget.model_validate({"name": "erp", "kind": "file", "path": "unused", **change})


def webhook_target(url: str, **change: Any) -> WebhookTarget:
    """A webhook on loopback."""
    plain = {"name": "erp", "kind": "webhook", "url": url, "secret_env": "HOOK", "allow": ["127.0.0.1"], **change}
    return WebhookTarget.model_validate(plain)
