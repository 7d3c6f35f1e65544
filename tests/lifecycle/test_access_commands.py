"""`seatrial access` and what a key or token lets the command line do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Forbidden, UsageError
from contracts.times import SetClock
from lifecycle.commands.roles import as_oneself
from registry.access import Principal, Role
from registry.keys import KeyRing, Wish
from registry.sql_ledger import SqlLedger
from tests.faults.token_issuer import AUDIENCE, ISSUER, Issuer
from tests.lifecycle.command_runs import Ended, ran

Act = Callable[..., Ended]


@pytest.fixture
def act(yard: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Act:
    """Runs a command while access is required, with a key or none, in a yard whose clock stands in another year."""

    def run(*arguments: object, key: str = "", **settings: str) -> Ended:
        environment = {**yard.environment(), "SEATRIAL_ACCESS": "required", "SEATRIAL_KEY": key, **settings}
        return ran(monkeypatch, capsys, environment, arguments)

    return run


@pytest.fixture
def admin(act: Act) -> str:
    """The first key, made on the machine itself."""
    return str(act("access", "issue", "--owner", "ann", "--role", "admin", "--json", SEATRIAL_ACTOR="root").json["key"])


def key_of(act: Act, admin: str, owner: str, *more: str) -> str:
    return str(act("access", "issue", "--owner", owner, *more, "--json", key=admin).json["key"])


def test_the_first_key_is_made_on_the_machine(act: Act, admin: str) -> None:
    """While no key exists one is issued without one, to an admin only; from then on nothing goes without a key."""
    assert admin.startswith("st_")
    again = act("access", "issue", "--owner", "eve", "--role", "admin")
    assert (again.code, "set SEATRIAL_KEY" in again.err, again.out) == (2, True, "")
    (row,) = act("ledger", "log", "_access", "--json", key=admin).json["rows"]
    assert (row["kind"], row["actor"], row["payload"]["owner"]) == ("key_issued", "root", "ann")


def test_a_first_key_for_less_than_everything_is_refused(act: Act) -> None:
    """Otherwise nobody could issue the second."""
    ended = act("access", "issue", "--owner", "bob", "--role", "viewer")
    assert (ended.code, "wanted --role admin" in ended.err) == (2, True)
    ended = act("access", "issue", "--owner", "bob", "--role", "admin", "--dry-run", "--json")
    assert (ended.code, ended.json["dry_run"]) == (0, True)
    assert act("access", "issue", "--owner", "bob", "--role", "admin", "--json").code == 0


def test_a_key_does_what_its_roles_allow(act: Act, admin: str) -> None:
    """A viewer looks and may not hold; a model that is not theirs is unknown; a program's key opens no command."""
    viewer = key_of(act, admin, "bob", "--role", "viewer", "--model", "demand")
    assert act("rollout", "status", "demand", key=viewer).code == 0
    ended = act("rollout", "hold", "demand", "--reason", "x", key=viewer)
    assert (ended.code, "bob may not run `rollout hold`: the role promoter is needed" in ended.err) == (1, True)
    hidden, unknown = (act("rollout", "status", name, key=viewer).err for name in ("stockout", "nothing"))
    assert hidden.replace("stockout", "nothing") == unknown
    assert act("ledger", "verify", key=viewer).code == 1
    assert act("ledger", "verify", "demand", key=viewer).code == 0
    assert act("access", "list", key=viewer).code == 1
    caller = key_of(act, admin, "erp", "--role", "caller")
    assert act("rollout", "status", "demand", key=caller).code == 1
    assert act("schema", "policy").code == 0


def test_the_ledger_names_the_key_and_not_the_setting(act: Act, admin: str) -> None:
    """SEATRIAL_ACTOR has no say while access is required, and is as it was after the command."""
    made = act("access", "issue", "--owner", "cid", "--role", "viewer", "--json", key=admin, SEATRIAL_ACTOR="boss")
    assert made.code == 0
    rows = act("ledger", "log", "_access", "--json", key=admin).json["rows"]
    assert [row["actor"] for row in rows] == ["root", "ann"]


def test_nobody_approves_in_anothers_name(act: Act, admin: str) -> None:
    """--by has to be who acts, --role one of theirs; who has one title approves in it, without one as approver."""
    approver = key_of(act, admin, "dan", "--role", "approver", "--title", "model-owner")
    ended = act("rollout", "approve", "demand", "--by", "eve", "--version", "v1", key=approver)
    assert (ended.code, "wanted 'dan', whose key or token this is" in ended.err) == (2, True)
    dan = Principal("dan", (Role.APPROVER,), titles=("model-owner",))
    said = {"approver": "dan", "role": ""}
    assert as_oneself("rollout approve", dan, said) == {"role": "model-owner"}
    assert as_oneself("rollout approve", Principal("dan", (Role.APPROVER,)), said) == {"role": "approver"}
    with pytest.raises(Forbidden, match="approve as finance"):
        as_oneself("rollout approve", dan, {**said, "role": "finance"})
    with pytest.raises(UsageError):
        as_oneself("rollout approve", dan, {"approver": "", "role": ""})


def test_keys_are_listed_replaced_and_revoked(act: Act, admin: str) -> None:
    """Lists show prefixes; a replaced key ends; the last admin's key stays; a dry run changes nothing."""
    viewer = key_of(act, admin, "bob", "--role", "viewer")
    prefix = viewer[3:11]
    assert act("access", "rotate", prefix, "--dry-run", "--json", key=admin).json["would_replace"]["owner"] == "bob"
    new = act("access", "rotate", prefix, "--keep", "0s", "--json", key=admin).json["key"]
    assert act("rollout", "status", "demand", key=viewer).code == 2
    assert act("rollout", "status", "demand", key=new).code == 0
    assert act("access", "revoke", new[3:11], "--reason", "left", "--dry-run", key=admin).code == 0
    assert act("rollout", "status", "demand", key=new).code == 0
    assert act("access", "revoke", new[3:11], "--reason", "left", key=admin).code == 0
    ended = act("rollout", "status", "demand", key=new)
    assert (ended.code, f"key {new[3:11]}: revoked" in ended.err) == (2, True)
    ended = act("access", "revoke", admin[3:11], "--reason", "oops", key=admin)
    assert (ended.code, "last admin's key" in ended.err) == (1, True)
    listed = act("access", "list", "--all", "--json", key=admin).json["keys"]
    assert [one["state"] for one in listed] == ["active", "revoked", "revoked"]


def test_a_secret_is_shown_once(act: Act, admin: str, yard: Any) -> None:
    """Only issuing and rotating print a key's text; no other command, error or file of the workspace holds it."""
    viewer = key_of(act, admin, "bob", "--role", "viewer")
    told = act("access", "issue", "--owner", "eve", "--role", "viewer", key=admin)
    secrets = [text.split("_")[2] for text in (admin, viewer, told.out.split()[0])]
    assert all(len(secret) == 64 for secret in secrets)
    said = ""
    for arguments in (
        ["access", "list", "--all"],
        ["access", "list", "--json"],
        ["access", "whoami", "--json"],
        ["ledger", "log", "_access", "--json"],
        ["rollout", "hold", "demand", "--reason", "x"],
        ["serve", "--host", "256.0.0.1", "--port", "0"],
    ):
        for key in (admin, viewer, viewer[:-1]):
            ended = act(*arguments, key=key)
            said += ended.out + ended.err
    kept = b"".join(path.read_bytes() for path in Path(yard.settings.home).rglob("*") if path.is_file())
    assert not [secret for secret in secrets if secret in said or secret.encode() in kept]


def test_an_expired_key_stays_so_while_the_clock_is_set_back(act: Act, admin: str, yard: Any) -> None:
    """Keys live in real time: a rehearsal's clock, which stands before the expiry, does not bring one back."""
    past = datetime(2020, 1, 1, tzinfo=UTC)
    ring = KeyRing(SqlLedger(yard.settings.ledger), yard.settings.access_file, SetClock(past), "ann", required=True)
    old = ring.issue(Wish("bob", (Role.ADMIN,), None, (), past + timedelta(days=1)), "long ago").text
    ended = act("access", "whoami", key=old, SEATRIAL_CLOCK="2020-01-01T12:00:00Z")
    assert (ended.code, "expired" in ended.err) == (2, True)


def test_a_token_acts_at_the_command_line(act: Act, admin: str, tmp_path: Path) -> None:
    """SEATRIAL_KEY takes a token of the issuer that the settings name; half an issuer is a configuration error."""
    issuer = Issuer()
    (tmp_path / "issuer.json").write_bytes(issuer.jwks())
    named = {"SEATRIAL_JWT_ISSUER": ISSUER, "SEATRIAL_JWT_AUDIENCE": AUDIENCE}
    whole = {**named, "SEATRIAL_JWKS": str(tmp_path / "issuer.json")}
    token = issuer.token(datetime.now(UTC), "e1", sub="robot", roles=["viewer"])
    who = act("access", "whoami", "--json", key=token, **whole).json
    assert (who["name"], who["how"], who["may_act_as"]) == ("robot", "token e1", ["viewer"])
    assert act("rollout", "status", "demand", key=token, **whole).code == 0
    assert act("rollout", "hold", "demand", "--reason", "x", key=token, **whole).code == 1
    assert act("rollout", "status", "demand", key=token).code == 2
    ended = act("rollout", "status", "demand", key=token, **named)
    assert (ended.code, "SEATRIAL_JWKS" in ended.err) == (2, True)


def test_the_file_stands_in_for_a_ledger_that_is_away(act: Act, admin: str, yard: Any) -> None:
    """With the ledger's database unreadable a key is still known from the workspace's file, and a wrong one is not."""
    for path in Path(yard.settings.home).glob("ledger.db*"):
        path.unlink()
    (Path(yard.settings.home) / "ledger.db").mkdir()
    assert act("access", "whoami", key=admin).code == 0
    assert act("access", "whoami", key=admin[:-1] + "x").code == 2
    assert act("rollout", "status", "demand", key=admin).code == 3


def test_an_open_service_is_not_offered_to_the_network(
    act: Act, yard: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`serve --host` on another than loopback is refused while access is open, and nothing is started."""
    for host in ("0.0.0.0", "::", "10.0.0.7", "example.org"):
        ended = ran(monkeypatch, capsys, yard.environment(), ["serve", "--host", host])
        assert (ended.code, "SEATRIAL_ACCESS=required" in ended.err) == (2, True)


def test_open_access_leaves_everything_as_it_was(
    yard: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without access control the local user is an admin by the name of the settings; keys can be prepared."""
    environment = {**yard.environment(), "SEATRIAL_ACTOR": "lea"}
    who = ran(monkeypatch, capsys, environment, ["access", "whoami", "--json"]).json
    assert (who["access"], who["name"], who["roles"]) == ("open", "lea", ["admin"])
    made = ran(monkeypatch, capsys, environment, ["access", "issue", "--owner", "erp", "--role", "caller", "--json"])
    assert json.loads(made.out)["issued"].endswith("by lea")
