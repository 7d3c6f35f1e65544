"""Fault 54: an address for events that leads inside (cloud metadata, loopback, files) is refused; a canary sees nobody.

Tricks of names and numbers, of redirects, of DNS that answers otherwise the second time, and of artifact URIs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import TargetRefused
from contracts.rollout import RowKind
from registry.addresses import Endpoint, addresses_of, allowed_of, endpoint_of
from registry.mlflow_store import MlflowProjection
from registry.outbox import event_of
from registry.webhook import Webhook
from tests.registry.receiver import receiving
from tests.registry.rig import MODEL, START, World, chain

SECRET = "whsec_" + "b2xkLXNlY3JldC1vZi10d2VudHktZm91cg=="
EVENT = event_of(chain((RowKind.PROMOTED, "v2", {}))[0]) or {}
PUBLIC = "93.184.216.34"

# Each leads to the canary's port somewhere in a usual client; {p} is the port.
LITERAL = [
    *("http://127.0.0.1:{p}/", "https://127.0.0.1:{p}/", "https://localhost:{p}/", "https://LOCALHOST:{p}/"),
    *("https://localhost.:{p}/", "https://127.1:{p}/", "https://127.0.1:{p}/", "https://2130706433:{p}/"),
    *("https://0x7f000001:{p}/", "https://0x7f.0.0.1:{p}/", "https://0x7f.1:{p}/", "https://017700000001:{p}/"),
    *("https://0177.0.0.1:{p}/", "https://0177.0x0.0.1:{p}/", "https://127.0.0.01:{p}/", "https://127.000.0.1:{p}/"),
    *("https://0:{p}/", "https://0.0.0.0:{p}/", "https://[::]:{p}/", "https://[::1]:{p}/", "https://[::1%25lo]:{p}/"),
    *("https://[::ffff:127.0.0.1]:{p}/", "https://[::ffff:7f00:1]:{p}/", "https://[0:0:0:0:0:ffff:127.0.0.1]:{p}/"),
    *("https://[::127.0.0.1]:{p}/", "https://[64:ff9b::7f00:1]:{p}/", "https://[2002:7f00:1::]:{p}/"),
    *("https://[fe80::1%25eth0]:{p}/", "https://[fd00::1]:{p}/", "https://[ff02::1]:{p}/"),
    *("https://127.0.0.2:{p}/", "https://127.255.255.254:{p}/", "https://10.0.0.1:{p}/", "https://172.16.0.1:{p}/"),
    *("https://192.168.0.1:{p}/", "https://169.254.169.254:{p}/latest/meta-data/", "https://100.64.0.1:{p}/"),
    *("https://224.0.0.1:{p}/", "https://255.255.255.255:{p}/", "https://192.0.2.1:{p}/", "https://:x@127.0.0.1:{p}/"),
    *("https://erp.example.org@127.0.0.1:{p}/", "https://erp.example.org:x@127.0.0.1:{p}/", "https://@127.0.0.1:{p}/"),
    *("https://127.0.0.1:{p}@erp.example.org/", "https://erp.example.org%40127.0.0.1:{p}/"),
    *("https://erp.example.org#@127.0.0.1:{p}/", "https://127.0.0.1:{p}#erp.example.org"),
    *("https://erp.example.org\\@127.0.0.1:{p}/", "https:\\\\127.0.0.1:{p}/", "https:/\\127.0.0.1:{p}/"),
    *("https://127。0。0。1:{p}/", "https://①②⑦.0.0.1:{p}/", "https://ⓛocalhost:{p}/", "https://１２７.0.0.1:{p}/"),
    *("https://127.0.0.1%00.example.org:{p}/", "https://127.0.0.1\x00.example.org:{p}/", "https://127.0.0.1%2f:{p}/"),
    *("https://127.0.0.1\n.example.org:{p}/", "https://127.0.0.1\t:{p}/", " https://127.0.0.1:{p}/"),
    *("https:// 127.0.0.1:{p}/", "https://127.0.0.1:{p}/\n", "file:///etc/passwd", "FILE:///etc/passwd"),
    *("file://127.0.0.1:{p}/etc/passwd", "gopher://127.0.0.1:{p}/_POST", "GOPHER://127.0.0.1:{p}/"),
    *("dict://127.0.0.1:{p}/stat", "ftp://127.0.0.1:{p}/", "ldap://127.0.0.1:{p}/", "unix:///run/docker.sock"),
    *("data:text/plain,x", "javascript:alert(1)", "jar:http://127.0.0.1:{p}!/", "//127.0.0.1:{p}/", "127.0.0.1:{p}"),
    *("", "https://", "https:///x", "https://:{p}/", "https://127.0.0.1:99999/", "https://127.0.0.1:-1/"),
    *("HTTP://127.0.0.1:{p}/", "hTTp://127.0.0.1:{p}/", "https://[127.0.0.1]:{p}/", "https://[::1:{p}/"),
    *("https://]::1[:{p}/", "https://127.0.0.1.:{p}/", "https://127.0.0.1:{p}:443/", "HTTPS://[::FFFF:127.0.0.1]:{p}/"),
]
ANSWERS = [
    *(["127.0.0.1"], ["::1"], ["10.1.2.3"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["64:ff9b::a9fe:a9fe"]),
    *(["0.0.0.0"], ["224.0.0.1"], ["100.64.0.1"], ["fe80::1%lo"], ["fd12::1"], [PUBLIC, "127.0.0.1"], ["::"]),
    *(["127.0.0.1", PUBLIC], ["2002:7f00:1::"], ["::7f00:1"], ["2001:0:7f00:1::"], ["not-an-address"]),
    *(["240.0.0.1"], ["192.168.1.1", PUBLIC], ["255.255.255.255"], ["198.18.0.1"], ["192.0.0.8"], ["fec0::1"]),
]


def _sent(url: str, resolver: Callable[[str, int], Sequence[str]] | None = None, **more: Any) -> str:
    """What became of one event: `refused` when the target was made, `failed`, or `delivered`."""
    given = {"resolver": resolver} if resolver else {}
    try:
        hook = Webhook(url, [SECRET], timeout_s=2.0, **given, **more)
    except TargetRefused:
        return "refused"
    return "delivered" if hook.send(EVENT, START).ok else "failed"


def test_addresses_that_lead_inside_are_refused_and_the_canary_sees_nobody(
    record_property: Callable[[str, object], None],
) -> None:
    """Numbers in every spelling, users in front, other schemes, odd characters: refused before a name is looked up."""
    with receiving() as canary:
        found = {url: _sent(url.format(p=canary.port), _to_loopback) for url in LITERAL}
        assert canary.connections == 0
    names = {url for url in LITERAL if "localhost" in url.lower() and url.isascii()}
    assert {url for url, what in found.items() if what == "failed"} == names
    assert {what for url, what in found.items() if url not in names} == {"refused"}
    record_property("figure: spellings of an inside address refused, canary connections 0", len(found))


def _to_loopback(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


@pytest.mark.parametrize("answers", ANSWERS, ids=str)
def test_a_public_name_with_an_inside_address_among_its_answers_is_not_connected_to(answers: list[str]) -> None:
    """One bad answer refuses all, so that no order of them helps."""
    with receiving() as canary:
        assert _sent(f"https://erp.example.org:{canary.port}/", lambda _host, _port: answers) == "failed"
        assert canary.connections == 0
    where = endpoint_of("https://erp.example.org/", allowed_of([]))
    with pytest.raises(TargetRefused):
        addresses_of(where, allowed_of([]), lambda _host, _port: answers)


def test_a_second_look_up_with_another_answer_never_happens() -> None:
    """DNS rebinding: the first answer is good, every later one is the canary; the name is looked up once an attempt,
    and what was checked is connected to."""
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    with receiving("127.0.0.2") as good, receiving("127.0.0.1", port=good.port) as canary:
        url = f"http://erp.example.org:{good.port}/"
        hook = Webhook(url, [SECRET], allow=["erp.example.org"], resolver=rebinding)
        assert hook.send(EVENT, START).ok
        assert asked == ["erp.example.org"]
        assert (len(good.got), canary.connections) == (1, 0)


def test_a_public_answer_first_and_the_canary_second_reaches_nobody() -> None:
    """Rebinding the classic way: the check sees a public address, and nothing looks again."""
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    allowed = allowed_of([])
    where = endpoint_of("https://erp.example.org/", allowed)
    assert addresses_of(where, allowed, rebinding) == (PUBLIC,)
    with receiving() as canary:
        assert _sent(f"https://erp.example.org:{canary.port}/", rebinding) == "failed"
        assert canary.connections == 0
    assert len(asked) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_the_inside_is_not_followed(status: int) -> None:
    """Whatever the allowed receiver answers, the canary sees nobody."""
    with receiving("127.0.0.1") as canary, receiving("127.0.0.2") as receiver:
        for location in (canary.url, f"//127.0.0.1:{canary.port}/", "file:///etc/passwd"):
            receiver.answer = _redirect(status, location)
            assert _sent(receiver.url, allow=["127.0.0.2"]) == "failed"
        assert (len(receiver.got), canary.connections) == (3, 0)


def _redirect(status: int, location: str) -> Callable[[object], tuple[int, dict[str, str]]]:
    return lambda _request: (status, {"Location": location})


def test_what_is_allowed_is_exactly_that() -> None:
    """A network, an address or a name opens itself and nothing beside it; the metadata address only by its number."""
    with receiving() as receiver, receiving("127.0.0.2") as canary:
        assert _sent(receiver.url, allow=["127.0.0.1"]) == "delivered"
        assert _sent(receiver.url, allow=["127.0.0.0/31"]) == "delivered"
        named = receiver.url.replace("127.0.0.1", "hub.internal")
        assert _sent(named, _to_loopback, allow=["HUB.internal"]) == "delivered"
        for allow in ([], ["127.0.0.1"], ["127.0.0.0/31"], ["hub.internal"], ["internal"]):
            assert _sent(canary.url, allow=allow) == "refused"
        assert canary.connections == 0
    metadata = endpoint_of("https://hub.internal/", allowed_of(["hub.internal"]))
    for allow, good in ((["hub.internal"], False), (["hub.internal", "169.254.169.254"], True)):
        allowed = allowed_of(allow)
        assert _passes(metadata, allowed, ["169.254.169.254"]) == good


def _passes(where: Endpoint, allowed: Any, answers: Sequence[str]) -> bool:
    try:
        return addresses_of(where, allowed, lambda _host, _port: answers) == tuple(answers)
    except TargetRefused:
        return False


@pytest.mark.parametrize("entry", ["*", "*.example.org", "http://x", "10.0.0.1/8", "a b", "", "..", "0x7f.1", "127.1"])
def test_an_entry_of_allow_that_means_nothing_is_refused(entry: str) -> None:
    """Rather than allowing something else than was meant."""
    with pytest.raises(TargetRefused, match="allow"):
        allowed_of([entry])


PLAIN = [
    *("https://erp.example.org/hook", "https://erp.example.org:8443/a/b?token=x", "HTTPS://ERP.Example.ORG"),
    *(f"https://{PUBLIC}/", "https://[2606:2800:220:1:248:1893:25c8:1946]/", "https://xn--bcher-kva.example/"),
    "https://a_b.example.org./",
]


@pytest.mark.parametrize("url", PLAIN)
def test_plain_public_addresses_pass(url: str) -> None:
    """The rule refuses what leads inside and nothing else; no query is shown to people."""
    where = endpoint_of(url, allowed_of([]))
    assert addresses_of(where, allowed_of([]), lambda _host, _port: [PUBLIC]) == (PUBLIC,)
    assert "token" not in where.shown


def test_a_place_written_into_mlflow_by_hand_is_never_fetched(tmp_path: Path) -> None:
    """MLflow is a projection: a version that points elsewhere changes nothing that is loaded; what we write into it is
    a file's place, whatever it looks like."""
    with receiving() as canary:
        mlflow = MlflowProjection(f"sqlite:///{tmp_path / 'mlflow.db'}")
        world = World(tmp_path, mlflow=mlflow)
        version = world.crown("good")
        for source in (
            f"http://127.0.0.1:{canary.port}/model",
            "http://169.254.169.254/x",
            "s3://bucket/m",
            "file:///etc",
        ):
            _write_source(tmp_path / "mlflow.db", source)
            world.registrar.reconcile(MODEL, world.policy)
            assert World(tmp_path, mlflow=mlflow).state.champion == version
        assert mlflow.register(MODEL, "v2", "", Path(f"http://127.0.0.1:{canary.port}/m"), "f" * 64) == "2"
        assert _sources(tmp_path / "mlflow.db")[-1].startswith("file:///")
        assert canary.connections == 0


def _write_source(database: Path, source: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE model_versions SET source = ?, storage_location = ?", (source, source))
    connection.close()


def _sources(database: Path) -> list[str]:
    with sqlite3.connect(database) as connection:
        found = [str(row[0]) for row in connection.execute("SELECT source FROM model_versions ORDER BY version")]
    connection.close()
    return found


def test_the_canary_would_have_seen_somebody() -> None:
    """The check of the check: where it is allowed, a request arrives, and an attempt at TLS counts as somebody."""
    with receiving() as canary:
        assert _sent(canary.url, allow=["127.0.0.1"]) == "delivered"
        assert _sent(canary.url.replace("http:", "https:"), allow=["127.0.0.1"]) == "failed"
        assert (len(canary.got), canary.connections) == (1, 2)
