"""Gold rows into the online store, from where the last run ended; no Feast on this path."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from contracts.declarations import Declarations, join_keys, view_columns
from contracts.errors import UnknownName
from contracts.times import utc
from features.gold import GoldStore
from features.online import OnlineStore


def materialize(
    declarations: Declarations,
    gold: GoldStore,
    online: OnlineStore,
    until: datetime,
    *,
    views: Iterable[str] | None = None,
    full: bool = False,
) -> dict[str, int]:
    """Bring what became known by `until` into the online store.

    Rows and the moment up to which they are in are written in one transaction, so a crash leaves the store as it was,
    and a store that was deleted is filled from the beginning.

    Args:
        declarations: names the views and their keys.
        gold: rows of the views.
        online: where they go; rows older than what it holds are left out.
        until: inclusive, with a zone; a moment before the last run's does nothing.
        views: only these; None for all.
        full: from the beginning, for rows landed late with a known_at before the last run.

    Returns:
        Rows really written a view.

    Raises:
        UnknownName: `views` names a view that is not declared.
    """
    chosen = list(declarations.views) if views is None else list(views)
    found, marks = {}, {}
    for name in chosen:
        if name not in declarations.views:
            raise UnknownName("feature view", name, declarations.views)
        after = None if full else online.mark(name)
        if after is not None and after >= utc(until, "until"):
            continue
        rows = gold.read(name, after, until)
        if len(rows):
            view = declarations.views[name]
            keys = join_keys(view)
            found[name] = (keys, rows[[*keys, "event_time", "known_at", *view_columns(view)]])
            marks[name] = until
    written = online.write_views(found, marks) if found else {}
    return {name: written.get(name, 0) for name in chosen}
