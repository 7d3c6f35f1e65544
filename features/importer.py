"""From somebody's files, by their mapping, to landed events: stage everything, then land it as it became known.

A file that is broken, or that breaks a rule about whole deliveries, lands nothing: features stay as they were, and the
file stays where it is, to be mended and ingested again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from contracts.errors import InputInvalid, UnknownName, nearest
from contracts.events import event_contract
from contracts.mapping import Column, EventMapping, EventsFile
from contracts.times import utc
from features.checks import LINE, check, with_lines
from features.duckdb_rows import RowShaper
from features.frames import ARROW_TYPES, empty_frame, frame_of, pc
from features.gaps import fill_gaps
from features.landing import Landing, Receipt
from features.odcs_checks import Feed, breaches, relations
from features.parse import Parsed, columns_of, parse_column
from features.read_file import read_file

_PREPARED = "prepared_rows"


@dataclass(frozen=True)
class Staged:
    """A source's events, typed and in order, before they land.

    Attributes:
        source: the source system's name.
        batch: how much known_at time goes into one batch.
        events: kind -> canonical events that parsed and passed the checks, ordered by known_at, then event_id.
        rejected: kind -> the others: `reason` and the fields' values as text, in the order of `rejected_at`.
        rejected_at: kind -> known_at of the rejected rows (the kind's earliest where it did not parse).
        rows_in: kind -> rows that the mapping gave.
        filled: kind -> periods without demand that were added as zeros (`gaps: zero`).
        broken: kind -> contract rule (`quantity.minimum`) -> rows that break it.
    """

    source: str
    batch: timedelta
    events: dict[str, pd.DataFrame]
    rejected: dict[str, pd.DataFrame]
    rejected_at: dict[str, np.ndarray]
    rows_in: dict[str, int]
    filled: dict[str, int]
    broken: dict[str, Counter[str]] = field(default_factory=dict)
    _moments: dict[str, np.ndarray] = field(default_factory=dict)

    def moments(self, kind: str) -> np.ndarray:
        """known_at of the kind's events as rising datetime64[us] without zone."""
        if kind not in self._moments:
            self._moments[kind] = self.events[kind]["known_at"].to_numpy(dtype="datetime64[us]")
        return self._moments[kind]


@dataclass(frozen=True)
class _Part:
    good: pd.DataFrame
    bad: pd.DataFrame
    bad_at: np.ndarray
    filled: int
    broken: Counter[str]


def stage(mapping: EventsFile, path: Path, *, now: datetime | None = None) -> Staged:
    """Read the mapping's inputs and shape, parse and check every row of every event; nothing is written.

    Args:
        mapping: how the files become events.
        path: the file, or the folder with the inputs' files.
        now: when given, rows that became known over a day later are refused.

    Raises:
        InputInvalid: a file is missing, empty, broken or in another encoding; SQL fails; a column that the mapping
            names is not there (with the nearest one that is).
    """
    path = Path(path)
    plain = not mapping.prepare and not any(event.prepare for event in mapping.events)
    inputs = {name: read_file(reader, path, lines=reader.lines or plain) for name, reader in mapping.inputs.items()}
    parts: dict[str, list[_Part]] = {}
    with RowShaper(inputs, mapping.source_system) as shaper:
        shared_by = [event for event in mapping.events if not event.prepare]
        shared = shaper.select(_first_select(mapping), "prepare") if shared_by else None
        if shared is not None and "prepared" not in inputs:
            shaper.add("prepared", shared)
        for number, event in enumerate(mapping.events):
            rows = shaper.select(event.prepare, f"events.{number}.prepare") if event.prepare else shared
            assert rows is not None
            if event.where:
                shaper.add(_PREPARED, rows)
                rows = shaper.select(f"SELECT * FROM {_PREPARED} WHERE ({event.where})", f"events.{number}.where")
            parts.setdefault(event.kind, []).append(_parse_rows(mapping, event, rows, now))
    return _joined(mapping, parts)


def check_feeds(staged: Staged, landing: Landing, accept: Collection[str] = ()) -> None:
    """Compare every kind of a staged source with what has landed, by the contracts' rules about whole deliveries.

    Args:
        accept: rules that may be broken this time, as `kind.field.rule`: the change is real.

    Raises:
        InputInvalid: a rule is broken; names kind, field and rule.
        UnknownName: `accept` has a rule that no contract of the staged kinds has.
    """
    _check_accepted(staged, accept)
    found = []
    for kind, good in staged.events.items():
        keys = {where: _values_of(where, staged, landing) for where in relations(kind)}
        feed = Feed(kind, good, staged.rows_in[kind], staged.broken[kind])
        broken = breaches(feed, landing.read(kind), keys)
        found += [(f"{kind}.{breach.rule}", breach) for breach in broken if f"{kind}.{breach.rule}" not in accept]
    if found:
        name, first = found[0]
        also = f"; also broken: {', '.join(other for other, _ in found[1:])}" if len(found) > 1 else ""
        hint = f"nothing landed and the file stays where it is: mend it or its mapping, or accept {name} if it is true"
        raise InputInvalid(f"{staged.source}: {name}", first.wanted, first.got + also, hint=hint)


def land_slice(
    staged: Staged, landing: Landing, after: datetime | None, until: datetime | None, *, kinds: tuple[str, ...] = ()
) -> list[Receipt]:
    """Land what became known in (after, until]; one batch a kind, kinds without rows are skipped.

    Args:
        staged: from stage().
        landing: where to.
        after: exclusive; None for the beginning.
        until: inclusive; None for the end.
        kinds: only these kinds; none means all.
    """
    receipts = []
    for kind in kinds or tuple(staged.events):
        low, high = _between(staged.moments(kind), after, until)
        bad_low, bad_high = _between(staged.rejected_at[kind], after, until)
        if high > low or bad_high > bad_low:
            events, rejected = staged.events[kind].iloc[low:high], staged.rejected[kind].iloc[bad_low:bad_high]
            taken = landing.append(kind, events, source=staged.source, rejected=rejected, checked=True)
            receipts.append(taken)
    return receipts


def ingest(
    mapping: EventsFile,
    path: Path,
    landing: Landing,
    until: datetime | None = None,
    progress: Callable[[str, float], None] | None = None,
    *,
    now: datetime | None = None,
    accept: Collection[str] = (),
) -> list[Receipt]:
    """Stage a source, compare it with what has landed, and land it batch by batch, in the order of becoming known.

    A batch is what became known in one stretch of `mapping.batch`, counted from the epoch. With `until`, only whole
    batches that end by then land, so that a later call continues where this one stopped; ingesting again what has
    landed changes nothing.

    Args:
        progress: called with words and the share done in [0, 1].
        now: as in stage().
        accept: as in check_feeds().

    Returns:
        one receipt a batch and kind; over all of them, rows in = landed + quarantined.

    Raises:
        InputInvalid: the file is broken, or it breaks a rule about whole deliveries; nothing landed.
    """
    staged = stage(mapping, path, now=now)
    check_feeds(staged, landing, accept)
    receipts: list[Receipt] = []
    edges = _edges(staged, until)
    for number, edge in enumerate(edges):
        before = pd.Timestamp(edge, tz="UTC").to_pydatetime() - staged.batch
        receipts += land_slice(staged, landing, before, before + staged.batch)
        if progress is not None:
            progress(f"landed what was known by {before + staged.batch:%Y-%m-%d %H:%M}", (number + 1) / len(edges))
    return receipts


def _first_select(mapping: EventsFile) -> str:
    if mapping.prepare:
        return mapping.prepare
    if len(mapping.inputs) > 1:
        wanted, got = "prepare: a SELECT that joins the inputs", f"{len(mapping.inputs)} inputs and none"
        raise InputInvalid(mapping.source_system, wanted, got)
    return f"SELECT * FROM {next(iter(mapping.inputs))}"


def _check_accepted(staged: Staged, accept: Collection[str]) -> None:
    known = set()
    for kind in staged.events:
        contract = event_contract(kind)
        known |= {f"{kind}.{rule.named(column)}" for rule in contract.rules for column in contract.names}
    for name in accept:
        if name not in known:
            raise UnknownName("contract rule", name, known)


def _values_of(where: str, staged: Staged, landing: Landing) -> set[str]:
    """What stands in `kind.field`, landed or staged."""
    kind, _, name = where.partition(".")
    staged_too = set(staged.events[kind][name]) if kind in staged.events else set()
    return staged_too | set(landing.read(kind)[name])


def _parse_rows(mapping: EventsFile, event: EventMapping, rows: pa.Table, now: datetime | None) -> _Part:
    contract = event_contract(event.kind)
    _check_names(mapping, event, rows)
    specs = {"source_system": Column(value=mapping.source_system), **event.columns}
    parsed = {item.name: parse_column(rows, specs[item.name], item) for item in contract.fields if item.name in specs}
    columns = {item.name: pa.nulls(rows.num_rows, ARROW_TYPES[item.type]) for item in contract.fields}
    table = pa.table(columns | {name: cells.values for name, cells in parsed.items()})
    unread = np.zeros(rows.num_rows, dtype=bool)
    for cells in parsed.values():
        unread |= cells.bad
    if LINE in rows.column_names:
        table = table.append_column(LINE, pc.fill_null(rows.column(LINE).cast(pa.int64()), 0))
    checked = check(event.kind, frame_of(table.filter(pa.array(~unread))), now=now)
    good = checked.good
    if event.kind == "demand" and event.gaps == "zero":
        good = fill_gaps(good)
    refused = _as_read(event.kind, parsed, np.flatnonzero(unread), table)
    bad = pd.concat([part for part in (refused, checked.bad) if len(part)] or [checked.bad], ignore_index=True)
    unread_at = frame_of(table.select(["known_at"]).filter(pa.array(unread)))["known_at"]
    failed_at = pd.to_datetime(checked.bad["known_at"], format="ISO8601", errors="coerce", utc=True)
    moments = [times.to_numpy(dtype="datetime64[us]") for times in (unread_at, failed_at)]
    broken = Counter(
        {f"{name}.{cells.rule}": int(cells.bad.sum()) for name, cells in parsed.items() if cells.bad.any()}
    )
    return _Part(good, bad, np.concatenate(moments), len(good) - len(checked.good), broken + Counter(checked.broken))


def _check_names(mapping: EventsFile, event: EventMapping, rows: pa.Table) -> None:
    known = event_contract(event.kind).names
    for name, spec in event.columns.items():
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(known)}"
            raise InputInvalid(f"{mapping.source_system}: {event.kind}", "a field of that kind", repr(name), hint=hint)
        for source in columns_of(spec):
            if source not in rows.column_names:
                close = nearest(source, rows.column_names)
                hint = f"did you mean {close!r}?" if close else f"columns: {', '.join(rows.column_names)}"
                where = f"{mapping.source_system}: {event.kind}.{name}.schema"
                raise InputInvalid(where, "a column of the source", repr(source), hint=hint)


def _as_read(kind: str, parsed: dict[str, Parsed], rows: np.ndarray, table: pa.Table) -> pd.DataFrame:
    """The rows that did not parse: reasons, and what stood in the source for every field."""
    reasons: dict[int, list[str]] = {int(row): [] for row in rows}
    for name, cells in parsed.items():
        for row in np.flatnonzero(cells.bad).tolist():
            reasons[row].append(cells.reason(name, row))
    told = ["; ".join(found) for found in reasons.values()]
    if LINE in table.column_names:
        told = with_lines(told, table.column(LINE).take(pa.array(rows)).to_pylist())
    columns: dict[str, object] = {"reason": np.array(told, dtype=object)}
    for name in event_contract(kind).names:
        raw = pc.take(parsed[name].raw, pa.array(rows)).to_pandas() if name in parsed else None
        columns[name] = np.full(len(rows), None, dtype=object) if raw is None else raw.to_numpy(dtype=object)
    return pd.DataFrame(columns)


def _joined(mapping: EventsFile, parts: dict[str, list[_Part]]) -> Staged:
    staged = Staged(mapping.source_system, mapping.batch, {}, {}, {}, {}, {})
    for kind, found in parts.items():
        goods = [part.good for part in found if len(part.good)]
        good = _ordered(pd.concat(goods, ignore_index=True) if goods else empty_frame(kind))
        bads = [part.bad for part in found if len(part.bad)] or [found[0].bad]
        bad, bad_at = pd.concat(bads, ignore_index=True), np.concatenate([part.bad_at for part in found])
        start = good["known_at"].iloc[0].to_datetime64() if len(good) else np.datetime64(0, "us")
        bad_at = np.where(np.isnat(bad_at), min([start, *bad_at[~np.isnat(bad_at)]]), bad_at).astype("datetime64[us]")
        names, reasons = (bad[name].fillna("").to_numpy(dtype=str) for name in ("event_id", "reason"))
        order = np.lexsort((reasons, names, bad_at))
        staged.events[kind], staged.rejected[kind] = good, bad.iloc[order].reset_index(drop=True)
        staged.rejected_at[kind] = bad_at[order]
        staged.filled[kind] = sum(part.filled for part in found)
        staged.broken[kind] = sum((part.broken for part in found), Counter())
        staged.rows_in[kind] = len(good) + len(bad) - staged.filled[kind]
    return staged


def _ordered(events: pd.DataFrame) -> pd.DataFrame:
    keys = pa.table({"known_at": pa.array(events["known_at"]), "event_id": pa.array(events["event_id"], pa.string())})
    order = pc.sort_indices(keys, sort_keys=[("known_at", "ascending"), ("event_id", "ascending")]).to_numpy()
    return events.take(order).reset_index(drop=True)


def _between(moments: np.ndarray, after: datetime | None, until: datetime | None) -> tuple[int, int]:
    low = 0 if after is None else int(np.searchsorted(moments, _moment(after), side="right"))
    high = len(moments) if until is None else int(np.searchsorted(moments, _moment(until), side="right"))
    return low, max(low, high)


def _moment(time: datetime) -> np.datetime64:
    return np.datetime64(utc(time).replace(tzinfo=None), "us")


def _edges(staged: Staged, until: datetime | None) -> np.ndarray:
    """Ends of the batches that hold anything, rising; those that end after `until` are left out."""
    moments = [staged.moments(kind) for kind in staged.events] + list(staged.rejected_at.values())
    step = int(staged.batch / timedelta(microseconds=1))
    numbers = -(-np.concatenate(moments).astype("datetime64[us]").astype(np.int64) // step)
    edges = np.unique(numbers) * step
    if until is not None:
        edges = edges[edges <= _moment(until).astype(np.int64)]
    return edges.astype("datetime64[us]")
