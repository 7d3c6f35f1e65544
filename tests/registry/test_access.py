"""Keys as rows of the ledger: issued, replaced, revoked, folded, and projected to the file that serving reads."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.errors import CheckFailed, Conflict, InputInvalid, LedgerBroken, UnknownName, UsageError
from contracts.rollout import LedgerRow, RowKind
from contracts.times import SetClock
from registry.access import ACCESS_CHAIN, AccessList, Principal, Role, check_key, fold_access, may
from registry.access_file import read_access, write_access
from registry.keys import KeyRing, Wish
from registry.ledger import MemoryLedger, RowDraft, verify
from registry.sql_ledger import SqlLedger
from tests.registry.rig import START, chain

ADMIN = (Role.ADMIN,)


def wish(owner: str = "ann", *roles: Role, models: tuple[str, ...] | None = None, days: float = 90) -> Wish:
    return Wish(owner, roles or ADMIN, models, (), START + timedelta(days=days))


@pytest.fixture
def clock() -> SetClock:
    return SetClock(START)


@pytest.fixture
def ring(tmp_path: Path, clock: SetClock) -> KeyRing:
    return KeyRing(
        SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}"), tmp_path / "access.json", clock, "ann", required=True
    )


def test_what_a_role_leads_to() -> None:
    """Permission says yes or no, and why; a model that is not one's own must look as if it did not exist."""
    who = Principal("ann", (Role.APPROVER,), ("demand",))
    assert may(who, Role.VIEWER, model="demand").allowed
    assert may(who, Role.PROMOTER, model="demand").reason == "the role promoter is needed"
    assert may(who, Role.VIEWER, model="stockout").hidden
    assert not may(who, Role.VIEWER, every_model=True).allowed
    assert not may(Principal("erp", (Role.CALLER,)), Role.VIEWER).allowed
    assert not may(Principal("nobody", ()), Role.VIEWER).allowed


def test_a_key_is_a_row_that_names_who_issued_it(ring: KeyRing, tmp_path: Path) -> None:
    """The chain verifies, the row holds who, what for and a hash, and the file says what the ledger says."""
    made = ring.issue(wish(), "first")
    (row,) = ring._ledger.rows(ACCESS_CHAIN)
    verify((row,))
    assert (row.kind, row.version, row.actor, row.reason) == (RowKind.KEY_ISSUED, made.entry.prefix, "ann", "first")
    assert read_access(tmp_path / "access.json") == ring.known()
    found = check_key(ring.known(), made.text, START)
    assert found.principal == Principal("ann", ADMIN, None, (), "key", made.entry.prefix)


def test_wishes_that_are_refused_leave_no_row(ring: KeyRing) -> None:
    """No owner, no role, no model, another chain's name, an expiry that is over, and a first key that is no admin's."""
    for bad in (
        wish(" "),
        wish("a\nb"),
        Wish("ann", (), None, (), START + timedelta(days=1)),
        wish(models=()),
        wish(models=("_access",)),
        wish(models=("*",)),
        wish(days=0),
        wish("bob", Role.VIEWER),
        wish("bob", Role.ADMIN, models=("demand",)),
    ):
        with pytest.raises(UsageError):
            ring.issue(bad, "no")
    assert ring.known() == AccessList()


def test_revoking_is_done_once_and_never_to_the_last_admin(ring: KeyRing, clock: SetClock) -> None:
    """Twice gives one row; the last admin's key stays while access is required, also when the others have expired."""
    first, brief = ring.issue(wish(), "first").entry, ring.issue(wish("bob", days=2), "second").entry
    look = ring.issue(wish("cid", Role.VIEWER), "third").entry
    for _ in range(2):
        assert ring.revoke(look.prefix, "gone").state(clock.now()) == "revoked"
    assert len(ring._ledger.rows(ACCESS_CHAIN)) == 4
    with pytest.raises(UnknownName):
        ring.revoke("00000000", "typo")
    clock.set(START + timedelta(days=2))
    with pytest.raises(CheckFailed, match="last admin's key"):
        ring.revoke(first.prefix, "by mistake")
    ring.issue(wish("dan"), "successor")
    assert ring.revoke(first.prefix, "left").revoked_because == "left"
    assert brief.state(clock.now()) == "expired"


def test_two_admins_revoke_each_other(tmp_path: Path, ring: KeyRing, clock: SetClock) -> None:
    """Whoever is second is refused: one admin is left, in whatever order the rows come."""
    keys = [ring.issue(wish(name), "admin").entry.prefix for name in ("ann", "bob")]
    ended: list[str] = []

    def revoke(prefix: str) -> None:
        ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
        try:
            KeyRing(ledger, tmp_path / "access.json", clock, "x", required=True).revoke(prefix, "mutiny")
        except CheckFailed:
            ended.append(prefix)

    threads = [threading.Thread(target=revoke, args=(prefix,)) for prefix in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 1
    assert [p for p, entry in ring.known().keys.items() if entry.state(START) == "active"] == ended
    assert read_access(tmp_path / "access.json") == ring.known()


def test_a_replaced_key_holds_until_its_moment(ring: KeyRing, clock: SetClock) -> None:
    """Rotation is one row: the new key is the same person's, the old one holds an hour longer or ends by hand."""
    old = ring.issue(wish(), "first")
    new = ring.rotate(
        old.entry.prefix, keep=timedelta(hours=1), expires_at=START + timedelta(days=9), reason="every quarter"
    )
    assert (new.entry.owner, new.entry.roles, len(ring._ledger.rows(ACCESS_CHAIN))) == ("ann", ADMIN, 2)
    known = ring.known()
    assert check_key(known, old.text, START + timedelta(minutes=59)).principal is not None
    assert check_key(known, old.text, START + timedelta(hours=1)).why == "revoked"
    assert check_key(known, new.text, START + timedelta(hours=1)).principal is not None
    ring.revoke(old.entry.prefix, "at once")
    assert check_key(ring.known(), old.text, START).why == "revoked"
    with pytest.raises(CheckFailed, match="is revoked; issue a new one"):
        ring.rotate(old.entry.prefix, keep=timedelta(0), expires_at=START + timedelta(days=9), reason="again")


def test_a_file_that_was_lost_or_edited_is_written_again(ring: KeyRing, tmp_path: Path) -> None:
    """After a crash between ledger and file, and after a hand edit, the ledger's word is restored and said once."""
    ring.issue(wish(), "first")
    file, known = tmp_path / "access.json", ring.known()
    file.unlink()
    assert ring.project() == ("the access list was revision 0, the ledger is at 1",)
    write_access(file, AccessList(known.keys, 7, "f" * 64))
    assert len(ring.project()) == 1
    file.write_text('{"format": 1, "keys": "all"}')
    with pytest.raises(InputInvalid, match="access list"):
        read_access(file)
    assert ring.project() == ("the access list was unreadable, the ledger is at 1",)
    assert (ring.project(), read_access(file)) == ((), known)


def test_a_writer_that_is_always_late_says_so(tmp_path: Path, clock: SetClock) -> None:
    """When other writers keep being first the wish ends in a conflict, without a key."""

    class Busy(MemoryLedger):
        def append(self, draft: RowDraft, expected: int):  # type: ignore[no-untyped-def]
            return super().append(draft, expected + 1)

    with pytest.raises(Conflict):
        KeyRing(Busy(), tmp_path / "access.json", clock, "ann", required=False).issue(wish(), "first")
    assert not (tmp_path / "access.json").exists()


def test_rows_that_may_not_stand_in_the_chain() -> None:
    """A promotion among keys, a key revoked before it was issued and a key without a hash are named, never believed."""
    good: dict[str, object] = {
        "sha256": "0" * 64,
        "owner": "ann",
        "roles": ["admin"],
        "models": None,
        "titles": [],
        "expires_at": "2027-01-01T00:00:00Z",
    }
    assert fold_access(chain((RowKind.KEY_ISSUED, "aaaaaaaa", good), model=ACCESS_CHAIN)).revision == 1
    for steps in (
        ((RowKind.PROMOTED, "v1", {}),),
        ((RowKind.KEY_REVOKED, "aaaaaaaa", {}),),
        ((RowKind.KEY_ISSUED, "aaaaaaaa", {**good, "roles": ["root"]}),),
        ((RowKind.KEY_ISSUED, "aaaaaaaa", {"owner": "ann"}),),
        ((RowKind.KEY_ISSUED, "aaaaaaaa", good), (RowKind.KEY_ISSUED, "aaaaaaaa", good)),
        (
            (
                RowKind.KEY_ISSUED,
                "aaaaaaaa",
                {**good, "replaces": "bbbbbbbb", "old_holds_until": "2026-01-01T00:00:00Z"},
            ),
        ),
    ):
        with pytest.raises(LedgerBroken):
            fold_access(chain(*steps, model=ACCESS_CHAIN))


def test_a_key_revoked_while_it_is_replaced_stays_without_a_heir(
    tmp_path: Path, ring: KeyRing, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revocation lands between the look and the row: no new key comes out of the old one."""
    ring.issue(wish(), "first")
    lost = ring.issue(wish("erp", Role.CALLER), "for the ERP").entry.prefix
    ledger = ring._ledger
    append = ledger.append

    def overtaken(draft: RowDraft, expected: int) -> LedgerRow:
        monkeypatch.setattr(ledger, "append", append)
        ring.revoke(lost, "lost")
        return append(draft, expected)

    monkeypatch.setattr(ledger, "append", overtaken)
    with pytest.raises(CheckFailed, match="is revoked"):
        ring.rotate(lost, keep=timedelta(hours=1), expires_at=START + timedelta(days=9), reason="usual")
    assert len(ring.known().keys) == 2
