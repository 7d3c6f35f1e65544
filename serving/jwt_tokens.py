"""Tokens of an issuer (JWT, RFC 7519 and 8725; client credentials as in RFC 9068): who they say asks, if they hold."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt
from jwt.types import Options

from contracts.errors import InputInvalid, Unauthenticated
from contracts.times import Clock
from registry.access import Principal, Role
from serving.jwks import MAX_BYTES, MAX_KEYS, KeySet

LEEWAY_S = 30.0
MAX_CHARS = 8192
REMEMBERED = 1024
SCOPE_PREFIX = "seatrial:"
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_RSA_BITS = 2048
# PyJWT would ask the machine's clock; times are checked by ours.
_OPTIONS: Options = {
    "require": ["exp", "iat", "iss", "aud", "sub"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


class KeySource(Protocol):
    """Where an issuer's keys come from; see serving.jwks."""

    def current(self) -> KeySet | None:
        """The keys when nothing has to be read or fetched for them."""
        ...

    def lookup(self, kid: str) -> KeySet:
        """The keys for a token of this key id; may read or fetch."""
        ...


@dataclass(frozen=True)
class PublicKey:
    """One key that may sign tokens, with the one algorithm that goes with its kind."""

    algorithm: str
    key: Any


@dataclass(frozen=True)
class _Remembered:
    principal: Principal
    not_before: float
    expires: float
    number: int


class Tokens:
    """Checks tokens of one issuer for one audience.

    Only RS256, ES256 and EdDSA are taken, each with a key of its own kind, found by key id among the issuer's; what the
    token's header says never chooses how it is checked. Roles come from the claim `roles` or from `scope`
    (`seatrial:promoter`), models from `seatrial_models` (a list, `*` for every one; without it, none), titles from
    `seatrial_titles`. A token that held once is remembered until it expires or the keys change.

    Args:
        issuer: wanted in `iss`.
        audience: wanted in `aud`.
        keys: the issuer's.
        clock: the machine's, also beside a rehearsal.
    """

    def __init__(self, issuer: str, audience: str, keys: KeySource, clock: Clock) -> None:
        self._issuer, self._audience, self._keys, self._clock = issuer, audience, keys, clock
        self._known: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._lock = threading.Lock()

    def remembered(self, token: str) -> Principal | None:
        """Whom a token that held before stands for, None when it has to be checked (anew)."""
        found = self._known.get(_digest(token))
        if found is None:
            return None
        keys, now = self._keys.current(), self._clock.now().timestamp()
        good = keys is not None and keys.number == found.number and found.not_before <= now < found.expires
        return found.principal if good else None

    def principal(self, token: str) -> Principal:
        """Whom a token stands for.

        Raises:
            Unauthenticated: it does not hold; the reason is for the log.
            DependencyDown: the issuer's keys are not to be had.
        """
        known = self.remembered(token)
        if known is not None:
            return known
        kid, algorithm = _header(token)
        keys = self._keys.lookup(kid)
        key = keys.keys.get(kid)
        if key is None:
            raise Unauthenticated(f"token: the issuer has no key {_shown(kid)}")
        if key.algorithm != algorithm:
            raise Unauthenticated(f"token: algorithm {_shown(algorithm)} with a key for {key.algorithm}")
        claims = self._claims(token, key)
        begins, ends = self._times(claims)
        who = Principal(
            name=_name(claims),
            roles=_roles(claims),
            models=_models(claims),
            titles=_texts(claims, "seatrial_titles"),
            how="token",
            credential=kid[:80],
        )
        with self._lock:
            self._known[_digest(token)] = _Remembered(who, begins, ends, keys.number)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return who

    def _claims(self, token: str, key: PublicKey) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthenticated(f"token: {type(error).__name__}") from None

    def _times(self, claims: Mapping[str, Any]) -> tuple[float, float]:
        now = self._clock.now().timestamp()
        expires = _moment(claims, "exp") + LEEWAY_S
        begins = max(_moment(claims, name) for name in ("iat", "nbf") if name in claims) - LEEWAY_S
        if now >= expires:
            raise Unauthenticated("token: expired")
        if now < begins:
            raise Unauthenticated("token: not valid yet")
        return begins, expires


def read_keys(content: bytes) -> dict[str, PublicKey]:
    """The keys of a JWK set that may sign tokens, by key id; others in it (encryption, symmetric, weak) are left out.

    Raises:
        InputInvalid: not a JWK set, too large, or one that gives away a private key.
    """
    if len(content) > MAX_BYTES:
        raise InputInvalid("JWK set", f"at most {MAX_BYTES} bytes", "more")
    try:
        listed = json.loads(content)["keys"]
        entries = [entry for entry in listed if isinstance(entry, dict)][:MAX_KEYS]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputInvalid("JWK set", "a JSON object with a list of keys", "something else") from None
    found: dict[str, PublicKey] = {}
    for entry in entries:
        if entry.get("kty") != "oct" and "d" in entry:
            raise InputInvalid("JWK set", "public keys", "a private key; the issuer has to replace it")
        kid, key = entry.get("kid"), _public_key(entry)
        if isinstance(kid, str) and kid and key is not None:
            if kid in found:
                raise InputInvalid("JWK set", "each key id once", _shown(kid))
            found[kid] = key
    return found


def _public_key(entry: Mapping[str, Any]) -> PublicKey | None:
    kind = str(entry.get("kty"))
    algorithm = _ALGORITHMS.get((kind, None if kind == "RSA" else str(entry.get("crv"))))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(dict(entry), algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    weak = kind == "RSA" and key.key_size < _RSA_BITS
    return None if weak else PublicKey(algorithm, key)


def _header(token: str) -> tuple[str, str]:
    if len(token) > MAX_CHARS or not token.isascii():
        raise Unauthenticated("token: too long, or not ASCII")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise Unauthenticated(f"token: {type(error).__name__}") from None
    kid, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS.values():
        raise Unauthenticated(f"token: algorithm {_shown(str(algorithm))} is not taken")
    if not isinstance(kid, str) or not kid:
        raise Unauthenticated("token: no key id")
    return kid, algorithm


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value > 1e11:
        raise Unauthenticated(f"token: {name} is no time")
    return float(value)


def _name(claims: Mapping[str, Any]) -> str:
    name = claims["sub"]
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 200:
        raise Unauthenticated("token: sub is no name")
    return name


def _roles(claims: Mapping[str, Any]) -> tuple[Role, ...]:
    """Roles that the token names; an issuer's other roles and scopes are not ours to judge."""
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise Unauthenticated("token: scope is no text")
    named = set(_texts(claims, "roles"))
    named |= {part.removeprefix(SCOPE_PREFIX) for part in scope.split() if part.startswith(SCOPE_PREFIX)}
    return tuple(role for role in Role if role.value in named)


def _models(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    named = _texts(claims, "seatrial_models")
    return None if "*" in named else named


def _texts(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name, [])
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise Unauthenticated(f"token: {name} is no list of texts")
    return tuple(value)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _shown(text: str) -> str:
    return repr(text[:40])
