"""Fault 50: no, wrong, expired, revoked or forged keys and tokens, and an issuer that does not answer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.testclient import TestClient

from contracts.errors import DependencyDown, InputInvalid, TargetRefused, Unauthenticated
from contracts.settings import Settings
from contracts.times import SetClock
from registry.access import Role
from registry.access_file import AccessFile
from registry.keys import Issued, KeyRing, Wish
from registry.ledger import MemoryLedger
from serving.app import Limits, make_app
from serving.authenticate import Authenticator
from serving.jwks import MAX_AGE, MAX_BYTES, REFETCH_AFTER, KeyAddress, KeyFile
from serving.jwt_tokens import Tokens, read_keys
from serving.wiring import handler_from
from tests.faults.token_issuer import AUDIENCE, ISSUER, Issuer, serving

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 3, 4, 6, 0, tzinfo=UTC)
RECORD = "/v1/decisions/" + "0" * 32
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW)


@pytest.fixture
def ring(tmp_path: Path, clock: SetClock) -> KeyRing:
    return KeyRing(MemoryLedger(), tmp_path / "access.json", clock, "ann", required=False)


@pytest.fixture
def key(ring: KeyRing) -> Issued:
    """A viewer's key for ten days."""
    return ring.issue(Wish("eve", (Role.VIEWER,), None, (), NOW + timedelta(days=10)), "to look")


@pytest.fixture
def tokens(tmp_path: Path, issuer: Issuer, clock: SetClock) -> Tokens:
    (tmp_path / "jwks.json").write_bytes(issuer.jwks())
    return Tokens(ISSUER, AUDIENCE, KeyFile(tmp_path / "jwks.json", read_keys, clock), clock)


@pytest.fixture
def ask(tmp_path: Path, clock: SetClock, ring: KeyRing, tokens: Tokens) -> Iterator[Ask]:
    """Asks the real app for a record that is not there: 404 for whom it lets in."""
    ring.project()
    settings = Settings(home=tmp_path, features=ROOT / "features" / "repo")
    handler = handler_from(settings, clock)
    access = Authenticator(AccessFile(settings.access_file, every_s=0).current, tokens, clock)
    app = make_app(lambda: handler, Limits(refresh_s=60), access=lambda: access)
    with TestClient(app, raise_server_exceptions=False) as http:
        yield lambda *headers: http.get(RECORD, headers=[("authorization", text.encode()) for text in headers])
    handler.close()


def bearer(credential: str) -> str:
    return f"Bearer {credential}"


def refused(answer: Any) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="seatrial"')


def test_every_key_that_does_not_hold_gets_the_same_401(
    ask: Ask, ring: KeyRing, key: Issued, clock: SetClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong, unknown, truncated, padded, revoked and expired keys: one body, the reason in the log, no secret."""
    assert ask(bearer(key.text)).status_code == 404
    other = ring.issue(Wish("bob", (Role.VIEWER,), None, (), NOW + timedelta(days=1)), "to look")
    revoked = ring.issue(Wish("cid", (Role.ADMIN,), None, (), NOW + timedelta(days=9)), "to look")
    ring.revoke(revoked.entry.prefix, "left the company")
    clock.set(NOW + timedelta(days=1))
    head, secret = key.text[:12], key.text[12:]
    wrong = head + ("0" if secret[0] != "0" else "1") + secret[1:]
    texts = [wrong, other.text[:12] + secret, key.text[:-1], key.text + "0", "st_00000000_" + secret, key.text.upper()]
    texts += [revoked.text, other.text, "st_", "", "not.a.token", "st_" + "é" * 70]
    answers = [ask(bearer(text)) for text in texts]
    for answer in answers:
        refused(answer)
    assert {answer.content for answer in answers} == {ask().content}
    assert {answer.headers["www-authenticate"] for answer in answers} == {
        'Bearer realm="seatrial", error="invalid_token"'
    }
    logged = capsys.readouterr()
    told = logged.out + logged.err
    for issued, why in ((revoked, "revoked"), (other, "expired"), (key, "the secret is wrong")):
        assert re.search(f"key {issued.entry.prefix}: .*{why}", told)
    assert not [text for text in (key.text, other.text, revoked.text, secret, wrong) if text[-60:] in told]
    assert ask(bearer(key.text)).status_code == 404


def test_a_missing_credential_and_another_scheme_are_401(ask: Ask, key: Issued) -> None:
    """Without Authorization the challenge names no error; Basic and doubled headers are refused, however good."""
    answer = ask()
    refused(answer)
    assert answer.headers["www-authenticate"] == 'Bearer realm="seatrial"'
    for headers in (
        (f"Basic {key.text}",),
        (key.text,),
        (bearer(key.text), bearer(key.text)),
        ("Bearer " + "x" * 20_000,),
    ):
        refused(ask(*headers))
    assert ask(f"bearer  {key.text}").status_code == 404


def test_a_revocation_counts_from_the_next_look(ask: Ask, ring: KeyRing, key: Issued) -> None:
    """The running app lets a key in, and no more once it is revoked."""
    assert ask(bearer(key.text)).status_code == 404
    ring.revoke(key.entry.prefix, "lost laptop")
    refused(ask(bearer(key.text)))


def test_a_damaged_access_list_lets_nobody_in(ask: Ask, key: Issued, tmp_path: Path) -> None:
    """A file that is no access list is 503 for every key, not the state before it; a whole one lets in again."""
    path = tmp_path / "access.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    answer = ask(bearer(key.text))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    path.write_bytes(whole)
    assert ask(bearer(key.text)).status_code == 404


def test_an_issuers_file_that_changes(tmp_path: Path, issuer: Issuer, clock: SetClock) -> None:
    """A key that is taken out ends the tokens it signed, also those remembered; without a file none hold."""
    path = tmp_path / "keys.json"
    path.write_bytes(issuer.jwks())
    tokens = Tokens(ISSUER, AUDIENCE, KeyFile(path, read_keys, clock, every_s=0), clock)
    token = issuer.token(NOW)
    assert [tokens.principal(token).name, tokens.remembered(token) is not None] == ["erp", True]
    path.write_bytes(json.dumps({"keys": [issuer.public("e1")]}).encode())
    assert tokens.remembered(token) is None
    with pytest.raises(Unauthenticated, match="no key"):
        tokens.principal(token)
    path.unlink()
    with pytest.raises(DependencyDown):
        tokens.principal(issuer.token(NOW, "e1"))


def test_secrets_are_kept_nowhere(ring: KeyRing, key: Issued, tmp_path: Path) -> None:
    """Neither the ledger's rows nor the access file hold a key's secret; two keys never share one."""
    kept = repr(ring._ledger.rows("_access")) + (tmp_path / "access.json").read_text()
    assert key.text[12:] not in kept
    assert key.entry.sha256 in kept
    assert re.fullmatch(r"st_[0-9a-f]{8}_[0-9a-f]{64}", key.text)
    assert key.text != ring.issue(Wish("eve", (Role.VIEWER,), None, (), NOW + timedelta(days=1)), "again").text


@pytest.mark.parametrize("kid", ["r1", "e1", "d1"])
def test_a_good_token_is_let_in(ask: Ask, issuer: Issuer, kid: str) -> None:
    """RS256, ES256 and EdDSA tokens hold, the first time and from memory."""
    token = issuer.token(NOW, kid)
    assert [ask(bearer(token)).status_code for _ in range(2)] == [404, 404]


def forged(issuer: Issuer) -> dict[str, str]:
    """Tokens that must not hold, by what is wrong with them."""
    later = NOW + timedelta(hours=1)
    claims = issuer.claims(NOW)
    pem = (
        issuer.keys["r1"][1]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = issuer.token(NOW)
    head, body, signature = good.split(".")
    admin = base64.urlsafe_b64encode(json.dumps({**claims, "roles": ["admin"]}).encode()).decode().rstrip("=")
    return {
        "alg none": jwt.encode(claims, None, "none", headers={"kid": "r1"}),
        "alg none, signature kept": f"{part({'alg': 'none', 'kid': 'r1'})}.{body}.{signature}",
        "HS256 with the public key": hs256(claims, pem),
        "HS512 with the public key": hs256(claims, pem, "HS512"),
        "ES256 header over RS256 signature": f"{part({'alg': 'ES256', 'kid': 'r1'})}.{body}.{signature}",
        "RS256 with an elliptic key id": f"{part({'alg': 'RS256', 'kid': 'e1'})}.{body}.{signature}",
        "RS512": jwt.encode(claims, issuer.keys["r1"][1], "RS512", headers={"kid": "r1"}),
        "a stranger's key": jwt.encode(claims, stranger, "RS256", headers={"kid": "r1"}),
        "a key that the token brings": jwt.encode(
            claims, stranger, "RS256", headers={"kid": "r1", "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}}
        ),
        "claims changed": f"{head}.{admin}.{signature}",
        "signature cut": f"{head}.{body}.{signature[:-8]}",
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "wrong audience": issuer.token(NOW, aud="another"),
        "no audience": issuer.token(NOW, aud=None),
        "wrong issuer": issuer.token(NOW, iss="https://issuer.example.evil"),
        "no issuer": issuer.token(NOW, iss=None),
        "expired": issuer.token(NOW, exp=int((NOW - timedelta(seconds=31)).timestamp())),
        "no expiry": issuer.token(NOW, exp=None),
        "expiry as text": issuer.token(NOW, exp="soon"),
        "not before in the future": issuer.token(NOW, nbf=int(later.timestamp())),
        "issued in the future": issuer.token(NOW, iat=int(later.timestamp())),
        "no subject": issuer.token(NOW, sub=None),
        "an invisible subject": issuer.token(NOW, sub="ann\u202e"),
        "roles as one text": issuer.token(NOW, roles="admin"),
        "unknown key id": jwt.encode(claims, issuer.keys["r1"][1], "RS256", headers={"kid": "r9"}),
        "no key id": jwt.encode(claims, issuer.keys["r1"][1], "RS256"),
        "key id that is a path": jwt.encode(claims, issuer.keys["r1"][1], "RS256", headers={"kid": "../../etc"}),
        "beyond reason": issuer.token(NOW, padding="x" * 9000),
    }


def part(header: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")


def hs256(claims: dict[str, Any], secret: bytes, algorithm: str = "HS256") -> str:
    """A token signed with a public key as if it were a shared secret, which PyJWT itself refuses to make."""
    head, body = part({"alg": algorithm, "kid": "r1", "typ": "JWT"}), part(claims)
    digest = hashlib.sha256 if algorithm == "HS256" else hashlib.sha512
    signed = hmac.new(secret, f"{head}.{body}".encode(), digest).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(signed).decode().rstrip('=')}"


def test_forged_tokens_get_the_same_401(
    ask: Ask, issuer: Issuer, capsys: pytest.CaptureFixture[str], record_property: Callable[..., None]
) -> None:
    """Whatever is wrong with a token: one body; no token and no signature in the log; a good one holds afterwards."""
    bad = forged(issuer)
    answers = {name: ask(bearer(token)) for name, token in bad.items()}
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(bad, 401)
    assert {answer.content for answer in answers.values()} == {ask().content}
    logged = capsys.readouterr()
    assert not [name for name, token in bad.items() if token.split(".")[1] in logged.out + logged.err]
    assert ask(bearer(issuer.token(NOW))).status_code == 404
    record_property("figure: forged, expired or misdirected tokens refused", f"{len(bad)} of {len(bad)}")


def test_times_have_a_small_leeway(tokens: Tokens, issuer: Issuer, clock: SetClock) -> None:
    """A clock half a minute off does not lock anybody out; a remembered token ends when it expires."""
    soon = int((NOW + timedelta(seconds=20)).timestamp())
    assert tokens.principal(issuer.token(NOW, nbf=soon, iat=soon)).name == "erp"
    token = issuer.token(NOW, exp=soon)
    assert tokens.principal(token).name == "erp"
    clock.set(NOW + timedelta(seconds=50))
    assert tokens.remembered(token) is None
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.principal(token)


def test_a_token_brings_roles_models_and_titles(tokens: Tokens, issuer: Issuer) -> None:
    """Roles come from `roles` and `scope`; another application's are passed over; without models none is seen."""
    who = tokens.principal(
        issuer.token(
            NOW,
            roles=["approver", "payroll-admin", "superuser"],
            scope="openid seatrial:promoter admin seatrial:root",
            seatrial_models=["demand"],
            seatrial_titles=["model-owner"],
        )
    )
    assert (set(who.roles), who.models, who.titles) == ({Role.APPROVER, Role.PROMOTER}, ("demand",), ("model-owner",))
    assert tokens.principal(issuer.token(NOW, seatrial_models=None)).models == ()


def test_an_issuer_that_is_down(tmp_path: Path, issuer: Issuer, clock: SetClock) -> None:
    """Down before the first fetch nobody comes in; down after it the cached keys hold, also for the next process, until
    they are too old; then nobody comes in, and afterwards everybody again."""

    def opened(address: str) -> Tokens:
        keys = KeyAddress(address, read_keys, clock, tmp_path / "cached.json", loopback_http=True)
        return Tokens(ISSUER, AUDIENCE, keys, clock)

    def closed(over: Tokens) -> None:
        with pytest.raises(DependencyDown, match="issuer's keys"):
            over.principal(issuer.token(clock.now()))

    with serving(issuer.jwks()) as gone:
        address = gone.address
    early = opened(address)
    closed(early)
    with serving(issuer.jwks()) as server:
        tokens = opened(server.address)
        assert tokens.principal(issuer.token(NOW)).name == "erp"
        assert (tokens.principal(issuer.token(NOW, "e1")).name, server.asked) == ("erp", 1)
        address = server.address
    clock.set(NOW + MAX_AGE)
    assert tokens.principal(issuer.token(clock.now())).name == "erp"
    assert opened(address).principal(issuer.token(clock.now(), "d1")).name == "erp"
    clock.set(clock.now() + REFETCH_AFTER)
    closed(tokens)
    closed(opened(address))


def test_unknown_key_ids_do_not_make_us_a_load_on_the_issuer(tmp_path: Path, issuer: Issuer, clock: SetClock) -> None:
    """Many tokens with made-up key ids cause one fetch in half a minute; a key that was added is found after it."""
    with serving(issuer.jwks()) as server:
        keys = KeyAddress(server.address, read_keys, clock, tmp_path / "cached.json", loopback_http=True)
        tokens = Tokens(ISSUER, AUDIENCE, keys, clock)
        for number in range(20):
            with pytest.raises(Unauthenticated, match="no key"):
                tokens.principal(
                    jwt.encode(issuer.claims(NOW), issuer.keys["r1"][1], "RS256", headers={"kid": f"x{number}"})
                )
        assert server.asked == 1
        other = Issuer()
        other.keys["r2"] = other.keys.pop("r1")
        server.content = other.jwks()
        clock.set(NOW + REFETCH_AFTER)
        assert tokens.principal(other.token(clock.now(), "r2")).name == "erp"
        assert server.asked == 2
        with pytest.raises(Unauthenticated):
            tokens.principal(issuer.token(clock.now()))


def test_what_an_issuer_may_not_answer(tmp_path: Path, issuer: Issuer, clock: SetClock) -> None:
    """A redirect, an error, an endless answer and other documents are no keys; only https addresses are taken."""
    for status, content in ((302, b""), (500, b""), (200, b" " * (MAX_BYTES + 1)), (200, b"<html>"), (200, b"[]")):
        with serving(content) as server:
            server.status = status
            keys = KeyAddress(server.address, read_keys, clock, tmp_path / "cached.json", loopback_http=True)
            with pytest.raises(DependencyDown):
                keys.lookup("r1")
            assert server.asked == 1
    for address in (
        "http://issuer.example/jwks",
        "file:///jwks.json",
        "https://ann:secret@issuer.example/jwks",
        "https://",
    ):
        with pytest.raises(TargetRefused) as told:
            KeyAddress(address, read_keys, clock, tmp_path / "cached.json", loopback_http=True)
        assert "secret" not in str(told.value)


def test_which_keys_of_a_set_are_taken(issuer: Issuer) -> None:
    """Symmetric, encrypting, weak and foreign keys are left out; a published private key refuses the whole set."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    other = Issuer()
    other.keys = {"weak": ("RS256", weak)}
    entries = [
        issuer.public("r1"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {**issuer.public("e1"), "kid": "enc", "use": "enc"},
        {**issuer.public("r1"), "kid": "ps", "alg": "PS256"},
        other.public("weak"),
        {"kty": "EC", "crv": "P-521", "kid": "other"},
        {"kty": "RSA", "kid": "broken", "n": "?"},
        "not a key",
    ]
    assert list(read_keys(json.dumps({"keys": entries}).encode())) == ["r1"]
    with pytest.raises(InputInvalid, match="private key"):
        read_keys(json.dumps({"keys": [{**issuer.public("r1"), "d": "AQAB"}]}).encode())
    with pytest.raises(InputInvalid, match="once"):
        read_keys(json.dumps({"keys": [issuer.public("r1"), issuer.public("r1")]}).encode())
