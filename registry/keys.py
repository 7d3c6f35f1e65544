"""Keys: issued, replaced and revoked as rows of the ledger; the access file is written after them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from contracts.errors import CheckFailed, InputInvalid, LedgerConflict, UnknownName, UsageError
from contracts.rollout import LedgerRow, RowKind
from contracts.times import Clock, iso
from registry.access import ACCESS_CHAIN, AccessList, KeyEntry, Role, fold_access, key_hash
from registry.access_file import read_access, write_access
from registry.durable import only_one
from registry.ledger import Ledger, RowDraft

_RETRIES = 20
_MODEL = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Issued:
    """A key's entry and its text, which is told this once and kept nowhere."""

    entry: KeyEntry
    text: str


@dataclass(frozen=True)
class Wish:
    """What a key shall be: whose, what for, which models (None: every one), until when."""

    owner: str
    roles: tuple[Role, ...]
    models: tuple[str, ...] | None
    titles: tuple[str, ...]
    expires_at: datetime


class KeyRing:
    """The one writer of the access chain and of its file.

    Args:
        ledger: the truth.
        file: where the access list goes for those who must do without the ledger.
        clock: the machine's: keys live in real time, also beside a rehearsal.
        actor: who acts, as the ledger will name them.
        required: whether access is required, so that the last admin's key must stay.
    """

    def __init__(self, ledger: Ledger, file: Path, clock: Clock, actor: str, *, required: bool) -> None:
        self._ledger, self._file, self._clock, self._actor, self._required = ledger, file, clock, actor, required

    def known(self) -> AccessList:
        """Every key, from the ledger."""
        return fold_access(self._ledger.rows(ACCESS_CHAIN))

    def issue(self, wish: Wish, reason: str) -> Issued:
        """Issue a key.

        Raises:
            UsageError: no owner, no role, an expiry that is over, or a first key that could not issue another.
            LedgerConflict: other writers kept being first.
        """
        self.check(wish)
        return self._write(wish, reason, {})

    def check(self, wish: Wish) -> None:
        """Refuse a wish that cannot be granted; see `issue`."""
        if not wish.owner.strip() or not wish.owner.isprintable() or len(wish.owner) > 200:
            raise UsageError(f"owner: wanted the name of a person or program, got {wish.owner!r}")
        if not wish.roles or wish.models == ():
            raise UsageError("key: wanted at least one role, and at least one model (or every one)")
        if not all(_MODEL.fullmatch(model) for model in wish.models or ()):
            raise UsageError(f"--model: wanted names as in the policies, got {', '.join(wish.models or ())}")
        if wish.expires_at <= self._clock.now():
            raise UsageError(f"key: wanted an expiry in the future, got {iso(wish.expires_at)}")
        everything = Role.ADMIN in wish.roles and wish.models is None
        if self._required and not everything and not self.known().keys:
            raise UsageError("the first key: wanted --role admin and every model, so that it can issue the others")

    def rotate(self, prefix: str, *, keep: timedelta, expires_at: datetime, reason: str) -> Issued:
        """Replace a key by a new one for the same owner, roles, titles and models.

        Both are one row, so that a crash leaves the old key alone or both in order.

        Args:
            keep: how long the old key still holds.

        Raises:
            UnknownName: no such key. CheckFailed: it does not hold any more.
        """
        old, now = self.replaceable(prefix), self._clock.now()
        wish = Wish(old.owner, old.roles, old.models, old.titles, expires_at)
        self.check(wish)
        return self._write(wish, reason, {"replaces": prefix, "old_holds_until": iso(now + keep)})

    def replaceable(self, prefix: str) -> KeyEntry:
        """The key to replace; raises as `rotate`."""
        return self._replaceable(prefix, self.known())

    def _replaceable(self, prefix: str, known: AccessList) -> KeyEntry:
        if prefix not in known.keys:
            raise UnknownName("key", prefix, known.keys)
        old, now = known.keys[prefix], self._clock.now()
        if old.state(now) != "active":
            raise CheckFailed(f"key {prefix} of {old.owner} is {old.state(now)}; issue a new one")
        return old

    def revoke(self, prefix: str, reason: str) -> KeyEntry:
        """Revoke a key; no-op when it is revoked.

        Raises:
            UnknownName: no such key.
            CheckFailed: it is the last admin's key while access is required.
        """
        for _ in range(_RETRIES):
            rows = self._ledger.rows(ACCESS_CHAIN)
            entry = self.may_revoke(prefix, fold_access(rows))
            if entry.state(self._clock.now()) == "revoked":
                break
            try:
                self._append(rows, RowKind.KEY_REVOKED, prefix, reason, f"revoke:{prefix}", {})
                break
            except LedgerConflict:
                continue
        self.project()
        return self._entry(prefix)

    def may_revoke(self, prefix: str, known: AccessList) -> KeyEntry:
        """The key to revoke; raises as `revoke`."""
        if prefix not in known.keys:
            raise UnknownName("key", prefix, known.keys)
        entry, now = known.keys[prefix], self._clock.now()
        holds = [one for one in known.keys.values() if one.state(now) == "active" and one.opens_everything]
        if self._required and [one.prefix for one in holds if one.revoked_at is None or one is entry] == [prefix]:
            raise CheckFailed(
                f"key {prefix} of {entry.owner} is the last admin's key and access is required; issue another admin "
                f"key first: seatrial access issue --owner NAME --role admin"
            )
        return entry

    def project(self) -> tuple[str, ...]:
        """Make the access file say what the ledger says; returns in words what was different."""
        with only_one(self._file.with_name(f".{self._file.name}.lock")):
            known = self.known()
            try:
                there: AccessList | None = read_access(self._file)
            except InputInvalid:
                there = None
            if there == known:
                return ()
            if known.keys or self._file.exists():
                write_access(self._file, known)
        was = f"revision {there.revision}" if there else "unreadable"
        return (f"the access list was {was}, the ledger is at {known.revision}",)

    def _entry(self, prefix: str) -> KeyEntry:
        known = self.known().keys
        if prefix not in known:
            raise UnknownName("key", prefix, known)
        return known[prefix]

    def _write(self, wish: Wish, reason: str, more: dict[str, Any]) -> Issued:
        for _ in range(_RETRIES):
            rows = self._ledger.rows(ACCESS_CHAIN)
            prefix, known = secrets.token_hex(4), fold_access(rows)
            if prefix in known.keys:
                continue
            if old := more.get("replaces"):
                self._replaceable(old, known)  # it may have been revoked since we looked
            text = f"st_{prefix}_{secrets.token_hex(32)}"
            payload: dict[str, Any] = {
                "sha256": key_hash(text),
                "owner": wish.owner,
                "roles": [role.value for role in wish.roles],
                "models": None if wish.models is None else list(wish.models),
                "titles": list(wish.titles),
                "expires_at": iso(wish.expires_at),
                **more,
            }
            try:
                row = self._append(rows, RowKind.KEY_ISSUED, prefix, reason, f"issue:{prefix}", payload)
            except LedgerConflict:
                continue
            if row.payload["sha256"] == payload["sha256"]:
                self.project()
                return Issued(fold_access(self._ledger.rows(ACCESS_CHAIN)).keys[prefix], text)
        raise LedgerConflict(ACCESS_CHAIN, len(rows), len(self._ledger.rows(ACCESS_CHAIN)))

    def _append(
        self,
        rows: Sequence[LedgerRow],
        kind: RowKind,
        prefix: str,
        reason: str,
        request_id: str,
        payload: dict[str, Any],
    ) -> LedgerRow:
        draft = RowDraft(ACCESS_CHAIN, kind, prefix, self._clock.now(), self._actor, reason, request_id, payload)
        return self._ledger.append(draft, rows[-1].revision if rows else 0)
