"""The quarantine: what was refused and why, and what people decided about it. Nothing is ever taken away.

Refused rows stay in their part as they came. Decisions are parts of their own below `root/resolutions/<kind>`: a row is
open until it is released or discarded. A release takes rows through the checks again and lands them as a batch; its
resolution part is written first and counts only once that batch has landed, so that after a crash the rows are open
still and the same call completes.

A released row becomes known at the moment of its release, or at its own known_at when that is later: nobody could use
it before, so no decision of before may see it in a training set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.canonical import content_hash
from contracts.errors import UnknownName, UsageError
from contracts.times import iso, utc
from features.checks import Checked, shown
from features.landing import Landing, write_part
from features.text_rows import Corrections, corrected, typed

RESOLUTION_FORMAT = 1
SAMPLE = 3
_META = b"seatrial"
_ONCE = "event_id: wanted an id that no other row of the release has"
_NOTE = ("batch", "row", "outcome", "reason")


@dataclass(frozen=True)
class Group:
    """Rows of one kind and source that broke the same rule first; counts by what became of them since."""

    group: str
    kind: str
    source: str
    rule: str
    open: int
    released: int
    discarded: int
    first_batch: str
    last_batch: str
    sample: tuple[str, ...]


@dataclass(frozen=True)
class Account:
    """Where the rows of a kind are: rows_in = landed + quarantined + discarded; `released` are among the landed."""

    kind: str
    rows_in: int
    landed: int
    quarantined: int
    discarded: int
    released: int

    @property
    def balanced(self) -> bool:
        """True when no row is unaccounted for."""
        return self.rows_in == self.landed + self.quarantined + self.discarded


@dataclass(frozen=True)
class Resolved:
    """What a release or discard did. `refused`: id -> reason of rows that failed again and stay; `already`: rows that
    had been released or discarded before."""

    rows: int
    refused: dict[str, str]
    already: int
    at: datetime


class Quarantine:
    """The quarantine of one lake.

    Args:
        landing: where rows landed and were refused, and where released rows land.
    """

    def __init__(self, landing: Landing) -> None:
        self._landing = landing

    def rows(self, kind: str) -> pd.DataFrame:
        """Every row of a kind that was ever refused, in the order of landing.

        Returns:
            id (`<batch>-<row>`), group, state (open | released | discarded), rule, reason (the newest one), source,
            batch, row, and the kind's fields as the text that stood there.
        """
        found = self._landing.quarantined(kind)
        found.insert(3, "row", found.groupby("batch", sort=False).cumcount().astype("int64"))
        notes = self._notes(kind)
        if len(notes):
            found = found.merge(notes.rename(columns={"reason": "later"}), on=["batch", "row"], how="left")
            again = (found["outcome"] == "refused").to_numpy()
            found["reason"] = found["reason"].where(~again, found["later"])
            state = found["outcome"].where(found["outcome"].notna() & ~again, "open").to_numpy(dtype=object)
            found = found.drop(columns=["outcome", "later"])
        else:
            state = np.full(len(found), "open", dtype=object)
        rule = _rule(found["reason"])
        names = {pair: group_id(kind, *pair) for pair in set(zip(found["source"], rule, strict=True))}
        groups = [names[pair] for pair in zip(found["source"], rule, strict=True)]
        found.insert(0, "id", found["batch"] + "-" + found["row"].astype(str))
        found.insert(1, "group", np.array(groups, dtype=object))
        found.insert(2, "state", state)
        found.insert(3, "rule", rule)
        return found

    def groups(self, kinds: Sequence[str] | None = None) -> tuple[Group, ...]:
        """Refused rows by kind, source and rule; the groups with most open rows first."""
        found: list[Group] = []
        for kind in self._landing.kinds() if kinds is None else kinds:
            for name, rows in self.rows(kind).groupby("group", sort=False):
                found.append(_group(str(name), kind, rows))
        return tuple(sorted(found, key=lambda group: (-group.open, group.kind, group.group)))

    def account(self, kind: str) -> Account:
        """Where all rows of a kind are."""
        receipts = self._landing.receipts(kind)
        released = sum(receipt.released for receipt in receipts)
        discarded = int((self._notes(kind)["outcome"] == "discarded").sum())
        return Account(
            kind=kind,
            rows_in=sum(receipt.rows_in for receipt in receipts) - released,
            landed=sum(receipt.landed for receipt in receipts),
            quarantined=sum(receipt.quarantined for receipt in receipts) - released - discarded,
            discarded=discarded,
            released=released,
        )

    def open_rows(self, kind: str) -> dict[str, int]:
        """Batch -> refused rows in it that nobody has decided about; batches without any are left out."""
        refused = {receipt.batch: receipt.quarantined for receipt in self._landing.receipts(kind)}
        notes = self._notes(kind)
        done = notes.loc[notes["outcome"] != "refused", "batch"].value_counts()
        return {batch: rows - int(done.get(batch, 0)) for batch, rows in refused.items() if rows > done.get(batch, 0)}

    def find(self, group: str) -> tuple[str, str]:
        """Kind and full name of the group that a name or the beginning of one means.

        Raises:
            UnknownName: no such group, or more than one.
        """
        known = {item.group: item.kind for item in self.groups()}
        chosen = [name for name in known if name.startswith(group)] if group else []
        if len(chosen) != 1:
            raise UnknownName("quarantine group", group, known)
        return known[chosen[0]], chosen[0]

    def release(
        self,
        kind: str,
        *,
        group: str | None = None,
        events: Sequence[str] | None = None,
        corrections: Corrections | None = None,
        actor: str,
        why: str,
        now: datetime,
        dry_run: bool = False,
    ) -> Resolved:
        """Take rows through the checks again and land those that pass, known from now on.

        Args:
            kind: an event kind.
            group: only rows of this group.
            events: only rows with one of these event ids or row ids.
            corrections: row id -> field -> the text to take instead (None: nothing); then only these rows.
            actor, why: who decided and the reason, kept with the rows.
            now: the moment of the release.
            dry_run: say what would happen and write nothing.

        Raises:
            UsageError: neither a group nor ids, or a row that is not in the selection.
            UnknownName: a correction of a field that the kind does not have.
        """
        with self._landing.writing():
            chosen, already = self._open(kind, group, events, corrections)
            released, refused = 0, dict[str, str]()
            for source, rows in chosen.groupby("source", sort=False):
                passed, failed = self._again(kind, rows, corrections or {}, now)
                released, refused = released + len(passed.good), refused | failed
                if not dry_run:
                    note = {"action": "release", "actor": actor, "why": why, "at": iso(now)}
                    self._land(kind, str(source), rows, passed.good, failed, note)
        return Resolved(released, refused, already, now)

    def discard(
        self,
        kind: str,
        *,
        group: str | None = None,
        events: Sequence[str] | None = None,
        actor: str,
        why: str,
        now: datetime,
        dry_run: bool = False,
    ) -> Resolved:
        """Mark rows as refused for good; they stay readable. Arguments and errors as in `release`."""
        with self._landing.writing():
            chosen, already = self._open(kind, group, events, None)
            if len(chosen) and not dry_run:
                note = {"action": "discard", "actor": actor, "why": why, "at": iso(now), "lands": ""}
                self._write(kind, chosen.assign(outcome="discarded"), note)
        return Resolved(len(chosen), {}, already, now)

    def history(self, kind: str) -> tuple[dict[str, Any], ...]:
        """Every resolution that counts, oldest first: action, actor, why, at, and rows by outcome."""
        found = []
        for table, note in self._parts(kind):
            counts = pd.Series(table["outcome"].to_pylist()).value_counts()
            said = {name: note[name] for name in ("action", "actor", "why", "at")}
            found.append(said | {"rows": {str(name): int(count) for name, count in counts.items()}})
        return tuple(found)

    def _open(
        self, kind: str, group: str | None, events: Sequence[str] | None, corrections: Corrections | None
    ) -> tuple[pd.DataFrame, int]:
        """Open rows that were asked for, and how many of those asked for are decided already."""
        if group is None and not events and not corrections:
            raise UsageError("quarantine: name a group, or the ids of rows")
        rows = self.rows(kind)
        if group is not None:
            rows = rows[rows["group"] == group]
        if events:
            unknown = sorted(set(events) - set(rows["event_id"]) - set(rows["id"]))
            if unknown:
                raise UnknownName("quarantined row", unknown[0], [*rows["event_id"].dropna().head(1000), *rows["id"]])
            rows = rows[rows["event_id"].isin(list(events)) | rows["id"].isin(list(events))]
        if corrections is not None:
            unknown = sorted(set(corrections) - set(rows["id"]))
            if unknown:
                raise UsageError(f"corrections: {unknown[0]!r} is no row of what is to be released")
            rows = rows[rows["id"].isin(list(corrections))]
        still = rows["state"] == "open"
        return rows[still].reset_index(drop=True), int((~still).sum())

    def _again(
        self, kind: str, rows: pd.DataFrame, corrections: Corrections, now: datetime
    ) -> tuple[Checked, dict[str, str]]:
        """The rows through parsing and checks; what passed, and the reasons of the others by row id."""
        texts = corrected(kind, rows, corrections)
        parsed, reasons = typed(kind, texts)
        whole = np.array([not reason for reason in reasons], dtype=bool)
        known = parsed["known_at"]
        parsed["known_at"] = known.where(known.isna() | (known > utc(now, "now")), utc(now, "now")).astype(known.dtype)
        ids = rows["id"].to_numpy(dtype=object)
        names = parsed["event_id"]
        repeats = whole & names.notna().to_numpy() & names.where(whole).duplicated().to_numpy()
        for place in np.flatnonzero(repeats).tolist():
            reasons[place] = f"{_ONCE}, got {shown(names.iat[place])}"
        refused = {ids[place]: reason for place, reason in enumerate(reasons) if reason}
        tried = whole & ~repeats
        passed = self._landing.judge(kind, parsed[tried].reset_index(drop=True))
        return passed, refused | _reasons(passed.bad, names[tried].tolist(), ids[tried].tolist())

    def _land(
        self,
        kind: str,
        source: str,
        rows: pd.DataFrame,
        good: pd.DataFrame,
        refused: dict[str, str],
        note: dict[str, Any],
    ) -> None:
        fresh = rows["id"].map(refused)
        outcome = np.where(fresh.isna(), "released", "refused")
        noted = rows.assign(outcome=outcome, reason=fresh.where(fresh.notna(), rows["reason"]))
        # a row that breaks the same rule again is where it was
        noted = noted[(noted["outcome"] == "released") | (_rule(noted["reason"]) != rows["rule"])]
        if noted.empty:
            return
        batch = content_hash([kind, source, note, noted["id"].tolist()])[:32] if len(good) else ""
        self._write(kind, noted, note | {"lands": batch})
        if batch:
            self._landing.land_released(kind, good, source=source, batch=batch)

    def _write(self, kind: str, rows: pd.DataFrame, note: dict[str, Any]) -> None:
        folder = self._folder(kind)
        landed = {receipt.batch for receipt in self._landing.receipts(kind)}
        order = 0
        for part in sorted(folder.glob("*.parquet")):
            order = int(part.name.partition("-")[0])
            if not _counts(_note_of(part), landed):
                part.unlink()  # left behind by a release that was killed before its rows landed
        types = [pa.string(), pa.int64(), pa.string(), pa.string()]
        table = pa.table({name: pa.array(rows[name], kind_) for name, kind_ in zip(_NOTE, types, strict=True)})
        said = {_META: json.dumps({"format": RESOLUTION_FORMAT, **note}).encode()}
        digest = content_hash([kind, note, rows["id"].tolist()])[:16]
        write_part(folder / f"{order + 1:08d}-{digest}.parquet", table.replace_schema_metadata(said))

    def _folder(self, kind: str) -> Path:
        return self._landing.root / "resolutions" / kind

    def _parts(self, kind: str) -> list[tuple[pa.Table, dict[str, Any]]]:
        parts = sorted(self._folder(kind).glob("*.parquet"))
        if not parts:
            return []
        landed = {receipt.batch for receipt in self._landing.receipts(kind)}
        found = []
        for part in parts:
            try:
                note = _note_of(part)
            except FileNotFoundError:
                continue  # left behind by a killed release, and swept away since it was listed
            if _counts(note, landed):
                found.append((pq.ParquetFile(part).read(), note))
        return found

    def _notes(self, kind: str) -> pd.DataFrame:
        """The newest note on each row that has one: batch, row, outcome, reason."""
        frames = [table.to_pandas(ignore_metadata=True) for table, _ in self._parts(kind)]
        if not frames:
            return pd.DataFrame({name: pd.Series(dtype="int64" if name == "row" else object) for name in _NOTE})
        newest: pd.DataFrame = pd.concat(frames, ignore_index=True).drop_duplicates(["batch", "row"], keep="last")
        return newest


def group_id(kind: str, source: str, rule: str) -> str:
    """The short name of a group: the same rows of the same source are the same group tomorrow."""
    return content_hash([kind, source, rule])[:8]


def _rule(reasons: pd.Series[Any]) -> pd.Series[Any]:
    """The first broken rule of each reason, without the value."""
    return reasons.map(lambda reason: reason.partition(", got ")[0])


def _reasons(bad: pd.DataFrame, names: list[str | None], ids: list[str]) -> dict[str, str]:
    """Row id -> reason of refused rows, found by their event id (there once) or, without one, by their order."""
    nameless = iter([row for name, row in zip(names, ids, strict=True) if not isinstance(name, str)])
    rows = {name: row for name, row in zip(names, ids, strict=True) if isinstance(name, str)}
    pairs = bad[["event_id", "reason"]].itertuples(index=False)
    return {rows[name] if isinstance(name, str) else next(nameless): reason for name, reason in pairs}


def _group(name: str, kind: str, rows: pd.DataFrame) -> Group:
    states = rows["state"].value_counts()
    shown_first = rows[rows["state"] == "open"] if "open" in states else rows
    return Group(
        group=name,
        kind=kind,
        source=str(rows["source"].iat[0]),
        rule=str(rows["rule"].iat[0]),
        open=int(states.get("open", 0)),
        released=int(states.get("released", 0)),
        discarded=int(states.get("discarded", 0)),
        first_batch=str(rows["batch"].iat[0]),
        last_batch=str(rows["batch"].iat[-1]),
        sample=tuple(
            f"{shown(event)}: {reason}"
            for event, reason in shown_first[["event_id", "reason"]].head(SAMPLE).itertuples(index=False)
        ),
    )


def _note_of(part: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((pq.ParquetFile(part).schema_arrow.metadata or {})[_META])
    return note


def _counts(note: Mapping[str, Any], landed: set[str]) -> bool:
    """A release counts once its rows have landed; a discard counts as it stands."""
    return not note["lands"] or note["lands"] in landed
