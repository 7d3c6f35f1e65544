"""Every command and every route says who may use it, and nothing is said of what is not there."""

from __future__ import annotations

import inspect
import sys

import pytest
import typer

from contracts.errors import Forbidden
from contracts.settings import Settings
from lifecycle.commands import app
from lifecycle.commands.roles import COMMANDS, About, commands_of, guard
from registry.access import Role
from serving.doors import BENTOML_DOORS, DOORS

PARTS = dict(commands_of(typer.main.get_command(app)))

# What would hurt most in the wrong hands, written out by hand.
PINNED = {
    Role.ADMIN: ("access issue", "access revoke", "access rotate", "ledger restore"),
    Role.PROMOTER: ("rollout start", "rollout advance", "rollout rollback", "rollout reject", "reconcile", "serve"),
    Role.APPROVER: ("rollout approve",),
    Role.TRAINER: ("train", "ingest", "quarantine release"),
}


def test_every_command_declares_its_role() -> None:
    """The table holds every command, also nested ones, and no other."""
    assert sorted(set(PARTS) - set(COMMANDS)) == []
    assert sorted(set(COMMANDS) - set(PARTS)) == []


def test_a_command_about_a_named_model_names_it() -> None:
    """A command that is about the model it names has a parameter of that name; one that is about none has not."""
    for path, needs in COMMANDS.items():
        parameters = {parameter.name for parameter in PARTS[path].params}
        if needs.about is About.NAMED:
            assert "model" in parameters, path
        elif needs.about is About.NONE:
            assert "model" not in parameters, path


def test_what_would_hurt_most_needs_what_it_should() -> None:
    """Roles of the commands that change who may do what, what serves, and what is learnt from."""
    for role, paths in PINNED.items():
        assert {path: COMMANDS[path].role for path in paths} == dict.fromkeys(paths, role)
    assert [path for path, needs in COMMANDS.items() if needs.role is None] == ["access whoami", "schema"]
    assert [path for path, needs in COMMANDS.items() if needs.first] == ["access issue"]
    approve = {parameter.name for parameter in PARTS["rollout approve"].params}
    assert {"approver", "role"} <= approve


def test_an_undeclared_command_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that nobody put into the table is refused before its function is called, also while access is open."""
    ran: list[str] = []
    other = typer.Typer()

    @other.command("status")
    def status() -> None:
        ran.append("status")

    @other.command("schema")
    def schema() -> None:
        ran.append("schema")

    monkeypatch.delenv("SEATRIAL_ACCESS", raising=False)
    assert Settings().access == "open"
    monkeypatch.setattr(sys, "argv", ["seatrial", "schema"])
    with pytest.raises(SystemExit):
        guard(typer.main.get_command(other))()
    monkeypatch.setattr(sys, "argv", ["seatrial", "status"])
    with pytest.raises(Forbidden, match=r"`status`.*not declared"):
        guard(typer.main.get_command(other))()
    assert ran == ["schema"]


def test_every_route_declares_its_role() -> None:
    """A door cannot be made without saying its role; what BentoML answers beside our app shows no model's facts."""
    for door in (*DOORS, *BENTOML_DOORS):
        assert door.role is None or isinstance(door.role, Role)
    assert inspect.signature(type(DOORS[0])).parameters["role"].default is inspect.Parameter.empty
    assert all(door.method == "GET" and door.role is None for door in BENTOML_DOORS)
    assert not {door.path for door in BENTOML_DOORS} & {door.path for door in DOORS}
