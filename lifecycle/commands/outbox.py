"""Events out: `seatrial outbox ...`."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import DryRun, Json

if TYPE_CHECKING:
    from contracts.settings import Settings
    from registry.dispatch import Passed
    from registry.sql_outbox import Delivery

outbox_app = typer.Typer(no_args_is_help=True, help="Events for others: what waits, what was delivered, what died.")
_PAUSE = 2.0
_HEADINGS = ("when (UTC)", "model", "what", "version", "state", "tries", "next try (UTC)", "id", "why it failed")


class Which(StrEnum):
    """How far an event got."""

    pending = "pending"
    delivered = "delivered"
    dead = "dead"


Target = Annotated[str | None, typer.Option(help="Only this target of events.yaml.")]


@outbox_app.command("list")
def list_events(
    state: Annotated[Which | None, typer.Option(help="Only events in this state.")] = None,
    target: Target = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many, for each target.")] = 50,
    json_output: Json = False,
) -> None:
    """What waits for each target, what it has, and what died; with why the last attempt failed."""
    import shutil

    from lifecycle.ledger_lines import fitted
    from lifecycle.sending import load_targets, opened
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.dispatch import wanted_by
    from registry.sql_outbox import State

    settings = Workspace().settings
    targets = load_targets(settings, target)
    if not targets:
        emit(_nothing(settings), json_output=json_output)
        return
    with opened(settings) as outbox:
        found = {
            one: (outbox.counts(wanted_by(one)), outbox.listing(wanted_by(one), State(state) if state else None, limit))
            for one in targets
        }
    if json_output:
        plain = {
            one.name: {"kind": one.kind, **counts, "events": [_facts(d) for d in events]}
            for one, (counts, events) in found.items()
        }
        emit({"targets": plain}, json_output=True)
        return
    for one, (counts, events) in found.items():
        told = ", ".join(f"{number} {name}" for name, number in counts.items())
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
        lines = fitted([_cells(d) for d in events], width, _HEADINGS) if events else []
        sys.stdout.write("\n".join([f"{one.name} ({one.kind}): {told}", *lines]) + "\n")


@outbox_app.command("send")
def send(
    target: Target = None,
    watch: Annotated[float, typer.Option(min=0, max=86_400, help="Go on for so many seconds; 0: one pass.")] = 0.0,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Send what is due, in each model's order; for a scheduler, every minute or with --watch.

    A target that is down does not keep the others waiting; its events are tried again later (docs/events.md). Ends with
    exit code 1 when an event died and a person has to look, with 3 when a target is down.
    """
    from contracts.times import SystemClock
    from lifecycle.sending import dispatcher, load_targets
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace
    from registry.dispatch import Passed, wanted_by

    ws = Workspace()
    targets = load_targets(ws.settings, target)
    if not targets:
        emit(_nothing(ws.settings), json_output=json_output)
        return
    done = {one.name: Passed() for one in targets}
    # Sending happens in real time, also beside a rehearsal whose clock stands.
    with dispatcher(ws.settings, targets, SystemClock()) as sending, progress_bar(json_output=json_output) as progress:
        until = time.monotonic() + watch
        while not dry_run:
            for name, passed in sending.send(progress).items():
                done[name] += passed
            if time.monotonic() + _PAUSE > until:
                break
            time.sleep(_PAUSE)
        left = {one.name: sending.outbox.counts(wanted_by(one)) for one in targets}
    result = {name: _told(passed, left[name]) for name, passed in done.items()}
    emit({"dry_run": dry_run, **({"targets": result} if json_output else result)}, json_output=json_output)
    raise typer.Exit(_code(done.values()))


@outbox_app.command("retry")
def retry(
    event_ids: Annotated[list[str] | None, typer.Argument(help="Ids of dead events, as the list shows them.")] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="Every dead event.")] = False,
    target: Target = None,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Bring dead events back, once their cause is mended; `seatrial outbox send` then tries them again."""
    from contracts.errors import UnknownName, UsageError
    from contracts.times import SystemClock
    from lifecycle.sending import load_targets, opened
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.dispatch import wanted_by
    from registry.sql_outbox import State

    if bool(event_ids) == all_dead:
        raise UsageError(
            "outbox retry: wanted ids of dead events, or --all-dead; see seatrial outbox list --state dead"
        )
    ws = Workspace()
    with opened(ws.settings) as outbox:
        targets = load_targets(ws.settings, target)
        dead = {one.name: outbox.listing(wanted_by(one), State.DEAD, 1_000_000) for one in targets}
        known = {delivery.event_id for found in dead.values() for delivery in found}
        for event_id in event_ids or ():
            if event_id not in known:
                raise UnknownName("dead event", event_id, known)
        wished = set(event_ids or known)
        chosen = {name: [d.event_id for d in found if d.event_id in wished] for name, found in dead.items()}
        if not dry_run:
            for name, ids in chosen.items():
                outbox.retry(name, ids, SystemClock().now())
    emit({"dry_run": dry_run, "will_be_tried_again": chosen}, json_output=json_output)


def _nothing(settings: Settings) -> dict[str, Any]:
    why = "names no target" if settings.events.is_file() else "is not there"
    return {"targets": {}, "nothing_to_do": f"{settings.events} {why}: no events go out (docs/events.md)"}


def _told(passed: Passed, left: dict[str, int]) -> dict[str, Any]:
    told: dict[str, Any] = {"delivered": passed.delivered, "failed": passed.failed, "died": passed.dead}
    told |= {"waiting": left["pending"], "dead": left["dead"]}
    return told | ({"why": passed.words} if passed.words else {})


def _code(done: Any) -> int:
    passes: list[Passed] = list(done)
    if any(passed.dead for passed in passes):
        return 1
    return 3 if any(passed.failed for passed in passes) else 0


def _facts(delivery: Delivery) -> dict[str, Any]:
    from contracts.times import iso

    return {
        "id": delivery.event_id,
        "type": delivery.type,
        "model": delivery.model,
        "version": delivery.event.get("subject", ""),
        "revision": delivery.revision,
        "at": iso(delivery.at),
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "next_at": iso(delivery.next_at) if delivery.next_at and delivery.state.value == "pending" else None,
        "changed_at": iso(delivery.changed_at) if delivery.changed_at else None,
        "last_error": delivery.last_error,
    }


def _cells(delivery: Delivery) -> tuple[str, ...]:
    """One event's cells under _HEADINGS."""
    waits = delivery.state.value == "pending"
    what = delivery.type.removeprefix("org.seatrial.model.").removesuffix(".v1")
    return (
        f"{delivery.at:%Y-%m-%d %H:%M}",
        delivery.model,
        what,
        str(delivery.event.get("subject", "-")),
        delivery.state.value,
        str(delivery.attempts),
        f"{delivery.next_at:%Y-%m-%d %H:%M:%S}" if waits and delivery.next_at else "-",
        delivery.event_id,
        delivery.last_error or "-",
    )
