"""`seatrial features freshness`: how far each source can be trusted now, and how old each view is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import Json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from features.source_watch import ViewAge
    from features.sources import SourceHealth
    from lifecycle.workspace import Workspace


def freshness(
    model: Annotated[str | None, typer.Option(help="Only the sources and views of this model.")] = None,
    json_output: Json = False,
) -> None:
    """Age, latency, completeness and refused rows of every source, its state, and the age of every view.

    Measured by the workspace's clock; in a demo's workspace that stands at the demo's end unless SEATRIAL_CLOCK says
    otherwise. Ends with exit code 1 when a source that a declared view needs is not safe for automation.
    """
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    now = ws.clock.now()
    service = ws.declarations.services[_service(ws, model)] if model else None
    names = service.views if service else tuple(ws.declarations.views)
    needed: set[str] = {ws.declarations.views[name].event for name in names}
    health = ws.sources.health(now, needed if model else None)
    ages = [age for age in ws.sources.views(now, ws.gold, _online(ws)) if age.view in names]
    unsafe = [source for source in health if source.kind in needed and not source.safe]
    if json_output:
        sources = [_source(source, needed) for source in health]
        views = [_view(age) for age in ages]
        emit({"at": now.isoformat(), "safe": not unsafe, "sources": sources, "views": views}, json_output=True)
    else:
        _tables(health, ages, now)
    raise typer.Exit(1 if unsafe else 0)


def _service(ws: Workspace, model: str) -> str:
    policy = ws.policy(model)
    ws.features_hash(policy)
    return policy.features


def _online(ws: Workspace) -> Any:
    """The online store, None while there is none: looking at ages makes no store."""
    return ws.online if ws.settings.online_url or (ws.settings.online / "data.mdb").exists() else None


def _source(source: SourceHealth, needed: set[str]) -> dict[str, Any]:
    return {
        "source": source.source or None,
        "kind": source.kind,
        "state": source.state.words,
        "needed": source.needed and source.kind in needed,
        "rows": source.rows,
        "newest_event": _iso(source.newest_event),
        "newest_known": _iso(source.newest_known),
        "age_s": _seconds(source.age),
        "event_age_s": _seconds(source.event_age),
        "latency_p50_s": _seconds(source.latency_p50),
        "latency_p95_s": _seconds(source.latency_p95),
        "completeness": source.completeness,
        "refused_last": source.refused_last,
        "refused_recent": source.refused_recent,
        "gaps": [[start.isoformat(), end.isoformat()] for start, end in source.gaps],
        "reasons": list(source.reasons),
    }


def _view(age: ViewAge) -> dict[str, Any]:
    return {
        "view": age.view,
        "newest_row": _iso(age.newest_row),
        "row_age_s": _seconds(age.row_age),
        "online_until": _iso(age.online_until),
        "online_age_s": _seconds(age.online_age),
    }


def _tables(health: Sequence[SourceHealth], ages: Sequence[ViewAge], now: datetime) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    sources = Table("source", "kind", "state", "age", "event age", "late 50/95%", "there", "refused", box=box.SIMPLE)
    for source in health:
        name = escape(source.source or "none") + ("" if source.needed else " (ended)")
        late = f"{_words(source.latency_p50)}/{_words(source.latency_p95)}"
        shares = (f"{source.completeness:.1%}", f"{source.refused_recent:.2%}")
        state = source.state.words.replace("_", " ")
        sources.add_row(name, source.kind, state, _words(source.age), _words(source.event_age), late, *shares)
    views = Table("view", "newest row", "age", "online until", "online age", box=box.SIMPLE)
    for age in ages:
        views.add_row(
            age.view, _short(age.newest_row), _words(age.row_age), _short(age.online_until), _words(age.online_age)
        )
    console = Console()
    console.print(f"{now:%Y-%m-%d %H:%M}Z", sources, views)
    for source in health:
        for reason in source.reasons if source.needed else ():
            console.print(f"{escape(source.source or 'none')} {source.kind}: {escape(reason)}", highlight=False)


def _short(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M}Z"


def _words(duration: timedelta | None) -> str:
    from features.sources import short

    return "never" if duration is None else short(duration)


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
