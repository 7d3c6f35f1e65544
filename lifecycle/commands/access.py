"""Who may do what: `seatrial access ...`."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json
from registry.access import Role

if TYPE_CHECKING:
    from registry.access import KeyEntry, Principal
    from registry.keys import Issued, KeyRing

access_app = typer.Typer(no_args_is_help=True, help="Keys and roles: who may look, train, approve, promote, ask.")
Owner = Annotated[str, typer.Option(help="The person or program that acts with the key; the ledger names it.")]
Roles = Annotated[list[Role], typer.Option("--role", help="What the key is for; may be repeated.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Only these models; every one when left out.")]
Titles = Annotated[
    list[str] | None,
    typer.Option("--title", help="What the organisation calls the owner; a policy's gate.approvals.by names titles."),
]
Expires = Annotated[str, typer.Option(help="How long the key holds, like 90d or 12h.")]
Why = Annotated[str, typer.Option("--reason", help="Why, in a sentence; it goes into the ledger.")]
Prefix = Annotated[str, typer.Argument(help="The key's eight characters between st_ and the next _.")]


@access_app.command("issue")
def issue(
    owner: Owner,
    role: Roles,
    model: Models = None,
    title: Titles = None,
    expires: Expires = "90d",
    reason: Why = "issued by hand",
    json_output: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Issue a key; its text is printed this once and kept nowhere."""
    from lifecycle.acting import clock
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.keys import Wish

    ws = Workspace()
    ring = ws.keys
    roles = tuple(known for known in Role if known in role)
    models, titles = tuple(name.replace("-", "_") for name in model or ()) or None, tuple(title or ())
    wish = Wish(owner, roles, models, titles, clock().now() + _lasting(expires))
    if dry_run:
        ring.check(wish)
        said = {"owner": owner, "roles": list(roles), "models": list(models or ["every one"])}
        emit(
            {"dry_run": True, "would_issue": {**said, "until": f"{wish.expires_at:%Y-%m-%d}"}}, json_output=json_output
        )
        return
    made = ring.issue(wish, reason)
    unknown = [name for name in models or () if name not in ws.policies]
    note = {"note": f"no policy here is of {', '.join(unknown)}: look at the spelling"} if unknown else {}
    _told_once(made, note, json_output=json_output)


@access_app.command("list")
def list_keys(
    everything: Annotated[bool, typer.Option("--all", help="Also keys that do not hold any more.")] = False,
    json_output: Json = False,
) -> None:
    """Keys by prefix: whose, what for, until when, issued by whom; never a secret."""
    from lifecycle.acting import clock
    from lifecycle.terminal import emit

    ring, now = _ring(), clock().now()
    ring.project()
    known = ring.known().keys.values()
    shown = [entry for entry in known if everything or entry.state(now) == "active"]
    if json_output:
        keys = [_said(entry) | _ended(entry) | {"state": entry.state(now)} for entry in shown]
        emit({"keys": keys, "of": len(known)}, json_output=True)
        return
    _table([(entry, entry.state(now)) for entry in shown], len(known))


def _table(shown: list[tuple[KeyEntry, str]], of: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("key", no_wrap=True)  # what `revoke` asks for
    for name in ("owner", "roles", "models", "titles", "until", "issued", "state"):
        table.add_column(name, overflow="fold")
    for entry, state in shown:
        said = _said(entry)
        models = "every one" if entry.models is None else ", ".join(entry.models)
        ended = str(_ended(entry).get("revoked", ""))
        cells = [entry.prefix, entry.owner, ", ".join(entry.roles), models, ", ".join(entry.titles)]
        cells += [said["until"], said["issued"], f"{state} {ended}".strip()]
        table.add_row(*(Text(cell) for cell in cells))
    console = Console()
    console.print(table)
    console.print(f"{len(shown)} of {of} keys; --all shows those that ended too")


@access_app.command("revoke")
def revoke(prefix: Prefix, reason: Why, json_output: Json = False, dry_run: DryRun = False) -> None:
    """End a key; a service refuses it a tenth of a second later, a command at once."""
    from lifecycle.terminal import emit

    ring = _ring()
    if dry_run:
        emit({"dry_run": True, "would_revoke": _said(ring.may_revoke(prefix, ring.known()))}, json_output=json_output)
        return
    entry = ring.revoke(prefix, reason)
    emit(_said(entry) | _ended(entry), json_output=json_output)


@access_app.command("rotate")
def rotate(
    prefix: Prefix,
    keep: Annotated[str, typer.Option(help="How long the old key still holds, like 1h; 0s ends it now.")] = "1h",
    expires: Expires = "90d",
    reason: Why = "rotated",
    json_output: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Replace a key by a new one for the same owner, roles and models; its text is printed this once."""
    from lifecycle.acting import clock
    from lifecycle.terminal import emit

    ring, kept = _ring(), _lasting(keep)
    until = clock().now() + _lasting(expires)
    if dry_run:
        old = ring.replaceable(prefix)
        emit({"dry_run": True, "would_replace": _said(old), "old_holds": keep}, json_output=json_output)
        return
    made = ring.rotate(prefix, keep=kept, expires_at=until, reason=reason)
    _told_once(made, {"replaces": prefix, "old_holds": keep}, json_output=json_output)


@access_app.command("whoami")
def whoami(json_output: Json = False) -> None:
    """Whom the ledger will name, what they may do, and on which models."""
    from contracts.environments import resolved
    from contracts.settings import Settings
    from lifecycle.acting import who_acts
    from lifecycle.terminal import emit

    settings = resolved(Settings())
    emit({"access": settings.access, **_described(who_acts(settings))}, json_output=json_output)


def _told_once(made: Issued, more: dict[str, Any], *, json_output: bool) -> None:
    """Print a new key: the only place where a secret is shown."""
    from lifecycle.terminal import emit

    said = {**_said(made.entry), **more, "keep": "store the key now: it is kept nowhere and cannot be shown again"}
    if json_output:
        emit({"key": made.text, **said}, json_output=True)
        return
    sys.stdout.write(f"{made.text}\n")  # a table would break it at the terminal's width
    sys.stdout.flush()
    emit(said, json_output=False)


def _ring() -> KeyRing:
    from lifecycle.workspace import Workspace

    return Workspace().keys


def _lasting(text: str) -> timedelta:
    from contracts.errors import UsageError
    from contracts.times import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"wanted {error}, got {text!r}") from None


def _described(who: Principal) -> dict[str, Any]:
    from registry.access import IMPLIED

    held = {implied for role in who.roles for implied in IMPLIED[role]}
    return {
        "name": who.name,
        "how": f"{who.how} {who.credential}".strip(),
        "roles": [role.value for role in who.roles],
        "may_act_as": [role.value for role in Role if role in held],
        "titles": list(who.titles),
        "models": "every one" if who.models is None else list(who.models),
    }


def _said(entry: KeyEntry) -> dict[str, Any]:
    return {
        "prefix": entry.prefix,
        "owner": entry.owner,
        "roles": [role.value for role in entry.roles],
        "models": "every one" if entry.models is None else list(entry.models),
        "titles": list(entry.titles),
        "issued": f"{entry.issued_at:%Y-%m-%d %H:%M} by {entry.issued_by}",
        "until": f"{entry.expires_at:%Y-%m-%d %H:%M}",
    }


def _ended(entry: KeyEntry) -> dict[str, Any]:
    if entry.revoked_at is None:
        return {}
    return {"revoked": f"{entry.revoked_at:%Y-%m-%d %H:%M} by {entry.revoked_by}: {entry.revoked_because}"}
