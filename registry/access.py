"""Who may do what: roles, who holds them, keys as a fold over their ledger chain. Values in, values out."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from contracts.errors import LedgerBroken, TimeInvalid
from contracts.rollout import LedgerRow, RowKind
from contracts.times import parse_time

ACCESS_CHAIN = "_access"
KEY_FORM = re.compile(r"st_([0-9a-f]{8})_[0-9a-f]{64}")
_NOBODY = "0" * 64


class Role(StrEnum):
    """What somebody may do.

    `viewer` looks; `trainer` brings data in and makes candidates; `approver` agrees to a move; `promoter` moves
    versions; `admin` does everything and says who may do what; `caller` is a program that asks for answers and posts
    outcomes, and sees nothing else.
    """

    VIEWER = "viewer"
    TRAINER = "trainer"
    APPROVER = "approver"
    PROMOTER = "promoter"
    ADMIN = "admin"
    CALLER = "caller"


IMPLIED: Mapping[Role, frozenset[Role]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.TRAINER: frozenset({Role.TRAINER, Role.VIEWER}),
    Role.APPROVER: frozenset({Role.APPROVER, Role.VIEWER}),
    Role.PROMOTER: frozenset({Role.PROMOTER, Role.VIEWER}),
    Role.ADMIN: frozenset(Role),
    Role.CALLER: frozenset({Role.CALLER}),
}


@dataclass(frozen=True)
class Principal:
    """Who acts.

    `models`: those that it may know of, None for every one; `titles`: what the organisation calls it, held against a
    policy's `gate.approvals.by`; `how`: key, token or local (access is open); `credential`: a key's prefix or a
    token's key id, never a secret.
    """

    name: str
    roles: tuple[Role, ...]
    models: tuple[str, ...] | None = None
    titles: tuple[str, ...] = ()
    how: Literal["key", "token", "local"] = "key"
    credential: str = ""

    def sees(self, model: str) -> bool:
        """Whether it may know that the model exists."""
        return self.models is None or model in self.models


def local(name: str) -> Principal:
    """Whoever is at this machine while access is open: an admin of everything."""
    return Principal(name, (Role.ADMIN,), how="local")


@dataclass(frozen=True)
class Permission:
    """Whether something is allowed and why; `hidden`: the model must look as if it did not exist."""

    allowed: bool
    reason: str
    hidden: bool = False


def may(principal: Principal, role: Role, *, model: str | None = None, every_model: bool = False) -> Permission:
    """Whether somebody may do what needs a role.

    Args:
        principal: who asks.
        role: what is needed.
        model: the model that it is about, None when it is about none.
        every_model: it is about all models at once.
    """
    if not any(role in IMPLIED[held] for held in principal.roles):
        return Permission(False, f"the role {role} is needed")
    if model is not None and not principal.sees(model):
        return Permission(False, "no such model", hidden=True)
    if every_model and principal.models is not None:
        return Permission(False, f"the role {role} for every model is needed")
    return Permission(True, f"{principal.name} holds {role}")


@dataclass(frozen=True)
class KeyEntry:
    """One key as it is known afterwards: never its secret, only the SHA-256 of its text.

    A password needs a slow hash because people choose few of them; a key is 256 random bits, which nobody can search
    through, so that one SHA-256 is enough and a request stays cheap.
    """

    prefix: str
    sha256: str
    owner: str
    roles: tuple[Role, ...]
    models: tuple[str, ...] | None
    titles: tuple[str, ...]
    issued_at: datetime
    issued_by: str
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_by: str = ""
    revoked_because: str = ""

    def state(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """How the key stands at a moment; one that is replaced holds until its day comes."""
        if self.revoked_at is not None and now >= self.revoked_at:
            return "revoked"
        return "active" if now < self.expires_at else "expired"

    @cached_property
    def principal(self) -> Principal:
        """Who acts with this key."""
        return Principal(self.owner, self.roles, self.models, self.titles, "key", self.prefix)

    @property
    def opens_everything(self) -> bool:
        """Whether it is an admin's key for every model, with which further keys can be issued."""
        return may(self.principal, Role.ADMIN, every_model=True).allowed


@dataclass(frozen=True)
class AccessList:
    """Every key ever issued, by prefix, as of a revision of the access chain."""

    keys: Mapping[str, KeyEntry] = field(default_factory=dict)
    revision: int = 0
    ledger_head: str = ""


@dataclass(frozen=True)
class KeyCheck:
    """Who a key belongs to, or None and why not; the reason is for the log, never for whoever asked."""

    principal: Principal | None
    why: str
    prefix: str = ""


def key_hash(text: str) -> str:
    """SHA-256 of a key's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_key(known: AccessList, text: str, now: datetime) -> KeyCheck:
    """Whom a key's text stands for at a moment.

    An unknown, wrong, expired or revoked key takes the same steps, so that time tells nothing: always one hash and one
    comparison in constant time. The prefix, by which the entry is found, is no secret.
    """
    form = KEY_FORM.fullmatch(text)
    prefix = form.group(1) if form else ""
    entry = known.keys.get(prefix)
    same = hmac.compare_digest(key_hash(text), entry.sha256 if entry else _NOBODY)
    if form is None:
        return KeyCheck(None, "not in the form of a key")
    if entry is None:
        return KeyCheck(None, "no such key", prefix)
    if not same:
        return KeyCheck(None, "the prefix is known, the secret is wrong", prefix)
    state = entry.state(now)
    return KeyCheck(entry.principal, "", prefix) if state == "active" else KeyCheck(None, state, prefix)


def fold_access(rows: Iterable[LedgerRow]) -> AccessList:
    """The keys after the rows of the access chain.

    Raises:
        LedgerBroken: a row that this chain cannot contain.
    """
    known: dict[str, KeyEntry] = {}
    revision, head = 0, ""
    for row in rows:
        if row.kind is RowKind.KEY_ISSUED and row.version not in known:
            known[row.version] = _issued(row)
            _replace_old(known, row)
        elif row.kind is RowKind.KEY_REVOKED and row.version in known:
            _revoke(known, row.version, row, row.at, row.reason)
        else:
            raise LedgerBroken(row.model, row.revision, f"{row.kind} of {row.version}: it may not stand here")
        revision, head = row.revision, row.hash
    return AccessList(known, revision, head)


def _issued(row: LedgerRow) -> KeyEntry:
    said: dict[str, Any] = row.payload
    try:
        models = said["models"]
        return KeyEntry(
            prefix=row.version,
            sha256=str(said["sha256"]),
            owner=str(said["owner"]),
            roles=tuple(Role(role) for role in said["roles"]),
            models=None if models is None else tuple(str(model) for model in models),
            titles=tuple(str(title) for title in said["titles"]),
            issued_at=row.at,
            issued_by=row.actor,
            expires_at=parse_time(str(said["expires_at"]), "expires_at"),
        )
    except (KeyError, TypeError, ValueError, TimeInvalid) as error:
        raise LedgerBroken(row.model, row.revision, f"not a key: {type(error).__name__} {error}") from None


def _replace_old(known: dict[str, KeyEntry], row: LedgerRow) -> None:
    old = row.payload.get("replaces")
    if not old:
        return
    if old not in known:
        raise LedgerBroken(row.model, row.revision, f"it replaces {old}, which was never issued")
    until = parse_time(str(row.payload["old_holds_until"]), "old_holds_until")
    _revoke(known, str(old), row, until, f"replaced by {row.version}")


def _revoke(known: dict[str, KeyEntry], prefix: str, row: LedgerRow, at: datetime, why: str) -> None:
    """The earliest moment counts: what was revoked stays so, what still holds after a rotation can end sooner."""
    entry = known[prefix]
    if entry.revoked_at is None or at < entry.revoked_at:
        known[prefix] = replace(entry, revoked_at=at, revoked_by=row.actor, revoked_because=why)
