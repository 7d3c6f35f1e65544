"""Webhooks: an event posted to an address, signed; the connection goes to the very address that was checked.

`http.client` and not a bigger client: it follows no redirect, asks no proxy, reads no netrc, keeps no cookie and looks
up no name when it is given a socket.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from contracts.canonical import canonical_json
from contracts.errors import TargetRefused
from registry.addresses import Allowed, Endpoint, Resolver, addresses_of, allowed_of, endpoint_of, system_resolver
from registry.outbox import Sent
from registry.webhook_signature import secret_bytes, sign

MAX_ANSWER = 65_536
_AGAIN = (408, 425, 429)


class Webhook:
    """Posts events to one address.

    Args:
        url: where to; https, or http where `allow` names the host.
        secrets: signing secrets (`whsec_...`), each of which signs.
        allow: host names, addresses and networks that are good although they are not public.
        timeout_s: for connecting, sending and the whole answer; the look-up of the name keeps the system's own limit.
        resolver: from a name and a port to addresses; the system's.
        trust: the TLS settings; the system's certificate authorities.

    Raises:
        TargetRefused: the address can never be good (see registry.addresses).
        UsageError: a secret is no signing secret.
    """

    def __init__(
        self,
        url: str,
        secrets: Sequence[str],
        *,
        allow: Sequence[str] = (),
        timeout_s: float = 10.0,
        resolver: Resolver = system_resolver,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed: Allowed = allowed_of(allow)
        self._where: Endpoint = endpoint_of(url, self._allowed)
        for secret in secrets:
            secret_bytes(secret)
        self._secrets, self._timeout, self._resolver = tuple(secrets), timeout_s, resolver
        self._trust = trust or ssl.create_default_context()

    def send(self, event: dict[str, Any], now: datetime) -> Sent:
        """See Sender.send."""
        body = canonical_json(event).encode()
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": "seatrial",
            "Connection": "close",
            **sign(self._secrets, str(event["id"]), now, body),
        }
        try:
            addresses = addresses_of(self._where, self._allowed, self._resolver)
            status, asked = self._post(addresses, headers, body)
        except TargetRefused as refused:
            return Sent(False, str(refused))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Sent(False, f"{self._where.shown}: {_why(error)}")
        return _judged(status, self._where.shown, _seconds(asked, now))

    def close(self) -> None:
        """See Sender.close."""

    def _post(self, addresses: Sequence[str], headers: dict[str, str], body: bytes) -> tuple[int, str]:
        deadline = time.monotonic() + self._timeout
        with _connected(addresses, self._where.port, deadline) as plain, _ending(plain, deadline) as late:
            connection = http.client.HTTPConnection(self._where.host, self._where.port)
            with contextlib.closing(connection):
                try:
                    connection.sock = self._secured(plain)
                    connection.request("POST", self._where.path, body, {"Host": self._host(), **headers})
                    answer = connection.getresponse()
                except (OSError, http.client.HTTPException):
                    if late.is_set():
                        raise TimeoutError from None
                    raise
                if late.is_set():  # cut off amid its headers, which http.client takes for their end
                    raise TimeoutError
                with answer, contextlib.suppress(OSError, http.client.HTTPException):
                    answer.read(MAX_ANSWER)  # so that the other side can finish; what it says is not looked at
                return answer.status, answer.headers.get("Retry-After") or ""

    def _secured(self, plain: socket.socket) -> socket.socket:
        if self._where.scheme == "http":
            return plain
        return self._trust.wrap_socket(plain, server_hostname=self._where.host)

    def _host(self) -> str:
        host = f"[{self._where.host}]" if ":" in self._where.host else self._where.host
        usual = {"https": 443, "http": 80}[self._where.scheme]
        return host if self._where.port == usual else f"{host}:{self._where.port}"


@contextlib.contextmanager
def _connected(addresses: Sequence[str], port: int, deadline: float) -> Iterator[socket.socket]:
    """A connection to the first of the addresses that answers."""
    failed: OSError = TimeoutError()
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            found = socket.create_connection((address, port), timeout=left)
        except OSError as error:
            failed = error
            continue
        with found:
            yield found
        return
    raise failed


@contextlib.contextmanager
def _ending(connection: socket.socket, deadline: float) -> Iterator[threading.Event]:
    """Cut the connection at the deadline, whatever trickles in; the event says that it was cut."""
    late = threading.Event()
    handle = connection.dup()  # TLS takes the socket object away; this one stays ours

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        handle.close()


def _judged(status: int, shown: str, wait_s: float) -> Sent:
    if 200 <= status < 300:
        return Sent(True)
    words = f"{shown}: HTTP {status}"
    if 300 <= status < 400:
        return Sent(False, f"{words}: a redirect, which is not followed", wait_s=wait_s)
    return Sent(False, words, refused=400 <= status < 500 and status not in _AGAIN, wait_s=wait_s)


def _seconds(asked: str, now: datetime) -> float:
    """Retry-After in seconds: a number, or a date (RFC 9110, section 10.2.3); 0 when it says nothing usable."""
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    try:
        until = email.utils.parsedate_to_datetime(asked)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())


def _why(error: Exception) -> str:
    """What went wrong, without anything that the other side wrote."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold ({error.verify_message})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
