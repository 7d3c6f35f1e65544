"""Which role a command needs: one table, held against every command before it runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from contracts.errors import Forbidden, Unauthenticated, UnknownName, UsageError
from registry.access import Principal, Role, may


class About(Enum):
    """What a command is about: the model that it names (all of them when it names none), every model, or no model."""

    NAMED = "named"
    EVERY = "every"
    NONE = "none"


@dataclass(frozen=True)
class Needs:
    """What a command needs; `role` None lets everybody run it; `first`: also the first key's maker, who has none."""

    role: Role | None
    about: About = About.NAMED
    first: bool = False


def _named(role: Role, *paths: str) -> dict[str, Needs]:
    return {path: Needs(role) for path in paths}


def _every(role: Role, *paths: str) -> dict[str, Needs]:
    return {path: Needs(role, About.EVERY) for path in paths}


COMMANDS: Mapping[str, Needs] = {
    **_named(Role.VIEWER, "backtest", "card", "compare", "features freshness", "features skew"),
    **_named(Role.VIEWER, "alarm list", "ledger log", "ledger verify", "policy replay", "rollout status", "stockout"),
    **_every(Role.VIEWER, "doctor", "environment list", "features audit", "features bench", "features series"),
    **_every(Role.VIEWER, "outbox list", "policy check", "policy diff", "quarantine list", "quarantine show", "replay"),
    **_named(Role.TRAINER, "train", "tune", "monitor"),
    **_every(Role.TRAINER, "ingest", "features apply", "features materialize", "quarantine discard"),
    **_every(Role.TRAINER, "quarantine release", "shadow"),
    **_named(Role.APPROVER, "rollout approve"),
    **_named(Role.PROMOTER, "rollout start", "rollout advance", "rollout rollback", "rollout hold", "rollout resume"),
    **_named(Role.PROMOTER, "rollout reject", "rollout stop", "rollout release", "alarm override"),
    **_named(Role.PROMOTER, "environment carry", "environment pack"),
    **_every(Role.PROMOTER, "environment take", "outbox retry", "outbox send", "reconcile", "serve"),
    # Whoever changes the rules could do without the approvals that they ask for.
    **_named(Role.ADMIN, "policy adopt", "ledger export"),
    **_every(Role.ADMIN, "access list", "access revoke", "access rotate", "demo", "ledger restore"),
    "access issue": Needs(Role.ADMIN, About.EVERY, first=True),
    "access whoami": Needs(None, About.NONE),
    "forecast": Needs(Role.VIEWER, About.NONE),
    "schema": Needs(None, About.NONE),
}


def commands_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command below a command group with its path in words, like `rollout start`."""
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), command
        return
    for name, part in below.items():
        yield from commands_of(part, (*path, name))


def guard(command: Any) -> Any:
    """The command group with every command held against the table, and its actor named, before it runs."""
    for path, one in commands_of(command):
        one.callback = _guarded(path, one.callback)
    return command


def _guarded(path: str, run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def checked(*args: Any, **given: Any) -> Any:
        from lifecycle.acting import acting_as

        who = _admitted(path, given)
        if who is None:
            return run(*args, **given)
        with acting_as(who):
            return run(*args, **{**given, **as_oneself(path, who, given)})

    return checked


def _admitted(path: str, given: Mapping[str, Any]) -> Principal | None:
    """Who runs the command, None when it needs nobody; raises as `admit`."""
    from contracts.environments import resolved
    from contracts.settings import Settings
    from lifecycle.acting import first_of_all, who_acts

    needs = COMMANDS.get(path)
    if needs is not None and needs.role is None:
        return None
    settings = resolved(Settings())
    try:
        who = who_acts(settings)
    except Unauthenticated:
        first = first_of_all(settings) if needs is not None and needs.first else None
        if first is None:
            raise
        return first
    admit(who, path, needs, given)
    return who


def admit(who: Principal, path: str, needs: Needs | None, given: Mapping[str, Any]) -> None:
    """Let somebody run a command, or refuse.

    Args:
        who: runs it.
        path: of the command.
        needs: what the table says, None when it says nothing: nobody may run it.
        given: the command's parameters; `model` names what it is about.

    Raises:
        Forbidden: the role is missing, or the command is not in the table.
        UnknownName: a model that who runs it may not see; said as of one that does not exist.
    """
    if needs is None:
        raise Forbidden(who.name, f"run `{path}`", "in lifecycle/commands/roles.py, where it is not declared,")
    if needs.role is None:
        return
    model = str(given.get("model") or "").replace("-", "_") if needs.about is About.NAMED else ""
    every = needs.about is About.EVERY or (needs.about is About.NAMED and not model)
    # A chain that is about no model says who may do what: for those who may say it.
    role = Role.ADMIN if model.startswith("_") else needs.role
    permission = may(who, role, model=model or None, every_model=every)
    if permission.hidden:
        raise UnknownName("model", str(given["model"]), who.models or ())
    if not permission.allowed:
        raise Forbidden(who.name, f"run `{path}`", f"{role} of every model" if every else role.value)


def as_oneself(path: str, who: Principal, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that say who acts and in which role, made those of the principal; nothing while access is open.

    Raises:
        UsageError: somebody wants to approve in another's name. Forbidden: in a role that is not theirs.
    """
    if path != "rollout approve" or who.how == "local":
        return {}
    if given["approver"] != who.name:
        raise UsageError(f"--by: wanted {who.name!r}, whose key or token this is, got {given['approver']!r}")
    theirs, role = (*who.titles, *(role.value for role in who.roles)), given["role"]
    if role and role not in theirs:
        raise Forbidden(who.name, f"approve as {role}", str(role))
    if not role and not who.titles:
        return {"role": Role.APPROVER.value}
    return {} if role or len(who.titles) != 1 else {"role": who.titles[0]}
