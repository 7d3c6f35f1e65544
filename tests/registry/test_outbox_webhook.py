"""Webhooks for real: a server on loopback, signatures, TLS to a checked address, answers of every kind."""

from __future__ import annotations

import datetime as dt
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from contracts.canonical import canonical_json
from contracts.errors import TargetRefused, Unauthenticated, UsageError
from contracts.events_out import EventsOut
from contracts.rollout import RowKind
from contracts.times import SetClock, SystemClock
from contracts.yaml_file import load_strict
from registry.dispatch import dispatch, wanted_by
from registry.outbox import Sent, event_of, next_wait
from registry.sql_outbox import Outbox
from registry.webhook import Webhook
from registry.webhook_signature import sign, verify
from tests.registry.receiver import Receiver, fill, receiving, webhook_target
from tests.registry.rig import MODEL, START, chain

SECRET = "whsec_" + "b2xkLXNlY3JldC1vZi10d2VudHktZm91cg=="
NEWER = "whsec_" + "bmV3LXNlY3JldC1vZi10d2VudHktZm91ci0h"
EVENT = event_of(chain((RowKind.PROMOTED, "v2", {}))[0]) or {}
LOOPBACK = ("127.0.0.1",)


def post(receiver: Receiver, secrets: Sequence[str] = (SECRET,), timeout_s: float = 5.0) -> Sent:
    """One event to the receiver."""
    return Webhook(receiver.url, secrets, allow=LOOPBACK, timeout_s=timeout_s).send(EVENT, START)


def test_what_arrives_is_the_event_and_its_signature_holds() -> None:
    """Body, content type, host and the three headers; the receiver's function accepts it."""
    with receiving() as receiver:
        assert post(receiver) == Sent(True)
    (request,) = receiver.got
    assert request.body.decode() == canonical_json(EVENT)
    assert request.path == "/events"
    assert request.headers["Content-Type"].startswith("application/cloudevents+json")
    assert request.headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert verify([SECRET], request.headers, request.body, START) == EVENT["id"]


def test_signatures_are_those_of_the_standard() -> None:
    """The example that Standard Webhooks' own libraries are tested with."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    at = dt.datetime.fromtimestamp(1614265330, dt.UTC)
    signed = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body)
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signed["webhook-timestamp"] == "1614265330"


def test_while_a_secret_is_changed_both_receivers_can_check() -> None:
    """Signed with the old and the new: who knows either one is served; a third is not."""
    with receiving() as receiver:
        assert post(receiver, (NEWER, SECRET)).ok
    (request,) = receiver.got
    for secret in (SECRET, NEWER):
        assert verify([secret], request.headers, request.body, START)
    with pytest.raises(Unauthenticated, match="no signature"):
        verify(["whsec_" + "eA" * 16], request.headers, request.body, START)


@pytest.mark.parametrize("spoil", ["body", "webhook-id", "webhook-timestamp", "webhook-signature", "missing", "v2"])
def test_whatever_was_changed_on_the_way_is_found(spoil: str) -> None:
    """Body, id, time, signature, a missing header, another version of the scheme."""
    body, headers = b'{"id": "a"}', sign([SECRET], "evt", START, b'{"id": "a"}')
    if spoil == "body":
        body = b'{"id": "b"}'
    elif spoil == "missing":
        del headers["webhook-timestamp"]
    elif spoil == "v2":
        headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v2,")
    else:
        headers[spoil] = headers[spoil][:-1] + ("1" if headers[spoil][-1] != "1" else "2")
    with pytest.raises(Unauthenticated):
        verify([SECRET], headers, body, START)


@pytest.mark.parametrize(("minutes", "fits"), [(-6, False), (-4, True), (4, True), (6, False)])
def test_an_old_webhook_cannot_be_played_again(minutes: int, fits: bool) -> None:
    """Five minutes either way."""
    headers = sign([SECRET], "evt", START, b"{}")
    now = START + timedelta(minutes=minutes)
    if fits:
        assert verify([SECRET], headers, b"{}", now) == "evt"
        return
    with pytest.raises(Unauthenticated, match="too long ago"):
        verify([SECRET], headers, b"{}", now)


_NOT_SECRETS = ["", "whsec_", "plain-text", "whsec_c2hvcnQ=", "whsec_!!!", SECRET[6:], "whsec_" + "A" * 400]


@pytest.mark.parametrize("secret", _NOT_SECRETS)
def test_a_weak_or_malformed_secret_is_refused_without_repeating_it(secret: str) -> None:
    """Found when the target is made, before anything is sent."""
    with pytest.raises(UsageError) as refused:
        Webhook("https://erp.example.org/", [secret])
    assert len(secret) < 7 or secret not in str(refused.value)


_DELIVERED, _FOR_GOOD = (200, 204), (400, 401, 404, 410, 413)
_LATER = (301, 307, 408, 425, 429, 500, 503)


@pytest.mark.parametrize("status", [*_DELIVERED, *_FOR_GOOD, *_LATER])
def test_the_status_says_whether_to_try_again(status: int) -> None:
    """2xx is delivered; 4xx is for good, but for 408, 425 and 429; the answer's text is nowhere."""
    with receiving() as receiver:
        receiver.answer, receiver.body = lambda _: (status, {}), b"" if status == 204 else b"<script>planted</script>"
        sent = post(receiver)
    assert sent.ok == (status in _DELIVERED)
    assert sent.refused == (status in _FOR_GOOD)
    assert "planted" not in sent.words
    assert sent.ok or f"HTTP {status}" in sent.words


_ASKED = [("120", 120.0), ("Thu, 01 Jan 2026 00:10:00 GMT", 600.0), ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0)]


@pytest.mark.parametrize(("asked", "seconds"), [*_ASKED, ("soon", 0.0), ("-5", 0.0), ("", 0.0)])
def test_retry_after_is_read_as_seconds_or_as_a_date(asked: str, seconds: float) -> None:
    """Whatever is neither says nothing."""
    with receiving() as receiver:
        receiver.answer = lambda _: (503, {"Retry-After": asked})
        assert post(receiver).wait_s == seconds


def test_a_redirect_is_not_followed() -> None:
    """The place it points to sees nobody."""
    with receiving() as canary, receiving() as receiver:
        receiver.answer = lambda _: (307, {"Location": canary.url})
        assert not post(receiver).ok
        assert (len(receiver.got), len(canary.got)) == (1, 0)


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events go to the checked address, whatever the shell says."""
    with receiving() as canary, receiving() as receiver:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, canary.url)
        assert post(receiver).ok
        assert (len(receiver.got), len(canary.got)) == (1, 0)


def test_nobody_there_is_a_failure_that_can_be_repeated() -> None:
    """A closed port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        sent = Webhook(f"http://127.0.0.1:{port}/", [SECRET], allow=LOOPBACK).send(EVENT, START)
    assert (sent.ok, sent.refused) == (False, False)
    assert "refused" in sent.words.lower()


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"220 smtp.example.org ready\r\n", b"HTTP/1.1 200"])
def test_a_server_that_never_finishes_is_cut_off(says: bytes) -> None:
    """Bytes that trickle keep each single read alive; the whole attempt ends all the same."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(says)
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"a")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        sent = Webhook(url, [SECRET], allow=LOOPBACK, timeout_s=0.4).send(EVENT, START)
        stop.set()
        thread.join()
    assert not sent.ok
    assert "smtp" not in sent.words


def test_an_endless_answer_does_not_matter_once_the_status_is_there() -> None:
    """At most 64 KB of it are read, and the event counts as delivered."""
    with receiving() as receiver:
        receiver.body = b"x" * 5_000_000
        assert post(receiver).ok


def _certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for a host name, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = SystemClock().now()
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path = folder / f"{name}.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(("asked", "fits"), [("erp.internal", True), ("crm.internal", False)])
def test_tls_is_held_against_the_name_although_an_address_is_connected_to(
    tmp_path: Path, asked: str, fits: bool
) -> None:
    """The pinned connection still sends the server name, checks the certificate for it, and names it as Host."""
    pem = _certificate(tmp_path, "erp.internal")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    names: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    with receiving(tls=server) as receiver:
        url = f"https://{asked}:{receiver.port}/hook"
        trust = ssl.create_default_context(cafile=pem)
        hook = Webhook(url, [SECRET], allow=[asked], trust=trust, resolver=lambda _host, _port: ["127.0.0.1"])
        sent = hook.send(EVENT, START)
    assert names == [asked]
    assert sent.ok == fits
    assert fits or "certificate" in sent.words
    assert [request.headers["Host"] for request in receiver.got] == ([f"{asked}:{receiver.port}"] if fits else [])


def test_a_second_address_is_tried_when_the_first_does_not_answer() -> None:
    """Both were checked before."""
    with receiving(host="127.0.0.1") as receiver:
        url = f"http://erp.internal:{receiver.port}/"
        both = ["127.0.0.3", "127.0.0.1"]
        assert Webhook(url, [SECRET], allow=["erp.internal"], resolver=lambda *_: both).send(EVENT, START).ok


def test_a_name_that_cannot_be_looked_up_is_a_failure_that_can_be_repeated() -> None:
    """And an empty answer too."""

    def lost(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    for resolver in (lost, lambda *_: ()):
        sent = Webhook("https://erp.example.org/", [SECRET], resolver=resolver).send(EVENT, START)
        assert (sent.ok, sent.refused) == (False, False)


def test_an_address_that_is_refused_is_refused_before_anything_waits_for_it() -> None:
    """When the target is made."""
    with pytest.raises(TargetRefused, match="allow"):
        Webhook("http://127.0.0.1:8080/", [SECRET])


_DIES = """
import os, random, signal, sys
from contracts.times import SystemClock
from contracts.yaml_file import load_strict
from registry.dispatch import dispatch
from registry.sql_outbox import Outbox
from registry.webhook import Webhook
from tests.registry.receiver import webhook_target

class Dying(Webhook):
    def send(self, event, now):
        sent = super().send(event, now)
        assert sent.ok, sent.words
        os.kill(os.getpid(), signal.SIGKILL)

url, where, secret = sys.argv[1:]
sender = Dying(where, [secret], allow=["127.0.0.1"])
dispatch(Outbox(url), webhook_target(where), sender, SystemClock(), random.Random(1))
"""


def test_an_event_sent_by_a_process_that_died_before_saying_so_comes_again_with_the_same_id(tmp_path: Path) -> None:
    """Killed between sending and writing it down: after the lease the event is sent again, and the rest behind it."""
    url, root = fill(tmp_path), Path(__file__).parents[2]
    with receiving() as receiver:
        arguments = [sys.executable, "-c", _DIES, url, receiver.url, SECRET]
        died = subprocess.run(arguments, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, timeout=60, check=False)
        assert died.returncode == -9
        assert len(receiver.got) == 1
        target, outbox, clock = webhook_target(receiver.url), Outbox(url), SetClock(SystemClock().now())
        sender = Webhook(receiver.url, [SECRET], allow=LOOPBACK)
        assert dispatch(outbox, target, sender, clock, random.Random(1)).delivered == 0
        clock.set(clock.now() + timedelta(minutes=3))
        assert dispatch(outbox, target, sender, clock, random.Random(1)).delivered == 3
    assert receiver.ids[0] == receiver.ids[1]
    assert len(set(receiver.ids)) == 3
    assert outbox.waiting(wanted_by(target), MODEL) == ()


def test_the_example_in_the_documentation_checks_a_real_webhook() -> None:
    """The ten lines of docs/events.md accept what arrived and refuse it changed, with another secret, or old."""
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    made: dict[str, Callable[[str, dict[str, str], bytes], bool]] = {}
    exec(code, made)
    now = SystemClock().now()
    with receiving() as receiver:
        hook = Webhook(receiver.url, [SECRET, NEWER], allow=LOOPBACK)
        hook.send(EVENT, now)
        hook.send(EVENT, now - timedelta(hours=1))
    new, old = receiver.got
    assert made["is_ours"](SECRET, new.headers, new.body)
    assert made["is_ours"](NEWER, new.headers, new.body)
    assert not made["is_ours"](SECRET, new.headers, new.body + b" ")
    assert not made["is_ours"]("whsec_" + "eA" * 16, new.headers, new.body)
    assert not made["is_ours"](SECRET, old.headers, old.body)


def test_the_documented_file_of_targets_is_valid(tmp_path: Path) -> None:
    """The events.yaml of docs/events.md, and its schedule."""
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "events.yaml").write_text(example)
    targets = load_strict(tmp_path / "events.yaml", EventsOut).targets
    assert [target.kind for target in targets] == ["webhook", "webhook", "file", "kafka"]
    waits = [next_wait(n, _Middle()) for n in range(1, targets[0].max_attempts)]
    assert [wait.total_seconds() for wait in waits[:11]] == [30 * 2**n for n in range(10)] + [21_600]
    assert round(sum(waits, timedelta()) / timedelta(hours=1)) == 63


class _Middle(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2
