"""Gold: the rows of every feature view, as append-only Parquet parts in one folder a view, cached part by part."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.canonical import canonical_json, sha256_hex
from contracts.errors import InputInvalid
from contracts.times import utc

TIME = "datetime64[us, UTC]"
_PART = re.compile(r"^(\d{8})-(\d{8})-([0-9a-f]{16})\.parquet$")
_NOTE = b"seatrial.built"
_LINEAGE = "_lineage"


@dataclass(frozen=True)
class Place:
    """How far a view's rows go, in the order in which they were appended.

    `lineage` is new when a view is begun anew; "" for views of the first release, until they are appended to. `order`
    is the number of the last part.
    """

    lineage: str
    order: int


@dataclass(frozen=True)
class _Part:
    first: int
    last: int
    digest: str

    @property
    def file(self) -> str:
        return f"{self.first:08d}-{self.last:08d}-{self.digest}.parquet"


@dataclass(frozen=True)
class _Held:
    frame: pd.DataFrame
    oldest: np.datetime64
    newest: np.datetime64
    note: dict[str, Any] | None


class GoldStore:
    """Feature view rows below one folder; one writer at a time, any number of readers.

    A part is immutable and named by the order numbers it covers and its content. Many small parts are merged into
    one now and then, so that readers of the folder open few files; a part that lies inside a merged one is void. The
    newest part is never merged, so that who has read all but it (see `appended`) need not read the others again.
    """

    def __init__(self, root: Path, *, merge_at: int = 64, merge_below: int = 20_000, durable: bool = True) -> None:
        """Args:
        root: the folder; made on the first append.
        merge_at: number of parts of fewer than `merge_below` rows at which they are merged.
        merge_below: rows from which a part is left alone.
        durable: False leaves it to the operating system when a part reaches the disk, for throw-away workspaces.
        """
        self.root = Path(root)
        self._merge_at = merge_at
        self._merge_below = merge_below
        self._durable = durable
        self._held: dict[tuple[str, str], _Held] = {}

    def folder(self, view: str) -> Path:
        """Where a view's parts are; may not exist yet."""
        return self.root / view

    def views(self) -> tuple[str, ...]:
        """Names of the views that have a folder."""
        return tuple(sorted(path.name for path in self.root.iterdir() if path.is_dir())) if self.root.is_dir() else ()

    def append(self, view: str, frame: pd.DataFrame, *, note: dict[str, Any] | None = None) -> bool:
        """Add rows as one part, whole or not at all.

        Args:
            view: name of the view.
            frame: join keys (text), event_time, known_at (datetime64[us, UTC]), value columns (float64).
            note: what the build says of itself (JSON values), kept with the part; see `built`.

        Returns:
            True when something was written: False for no rows, or when the very same part is there.

        Raises:
            InputInvalid: event_time or known_at is absent, or not UTC with microseconds.
        """
        _checked(view, frame)
        if frame.empty:
            return False
        parts = self._parts(view)
        data = _encoded(frame, note)
        digest = sha256_hex(data)[:16]
        if any(part.digest == digest for part in parts):
            return False
        order = parts[-1].last + 1 if parts else 1
        part = _Part(order, order, digest)
        self._begin(view, anew=not parts)
        self._write(view, part, data)
        self._hold(view, part, frame, note)
        self._merge([*parts, part], view)
        return True

    def read(self, view: str, after: datetime | None = None, until: datetime | None = None) -> pd.DataFrame:
        """Rows of a view with known_at in (after, until], in the order in which they were appended.

        Args:
            view: name of the view; without any rows the frame is empty and has only the two time columns.
            after: exclusive lower end, with a zone; None for no end.
            until: inclusive upper end, with a zone; None for no end.
        """
        low = None if after is None else _plain(utc(after, "after"))
        high = None if until is None else _plain(utc(until, "until"))
        held = [held for _, held in self._all(view)]
        return _together([_cut(part, low, high) for part in held], held)

    def appended(
        self, view: str, seen: Place | None, after: datetime | None, until: datetime
    ) -> tuple[pd.DataFrame, Place]:
        """What somebody who has read up to `seen` and `after` has not, of what was known by `until`.

        Args:
            view: name of the view.
            seen: how far the view went when it was read last; None for never, and another lineage counts as never.
            after: up to when the parts up to `seen` were read, by known_at; None for not at all.
            until: inclusive upper end of known_at, with a zone.

        Returns:
            Rows of parts appended since with known_at <= until, however early they were known, and rows of the parts
            that were seen with known_at in (after, until]; and how far the view goes now.
        """
        lineage = self._lineage(view)
        known = seen is not None and after is not None and seen.lineage == lineage
        low, high = None if after is None else _plain(utc(after, "after")), _plain(utc(until, "until"))
        parts = self._all(view)
        end = parts[-1][0].last if parts else 0
        # numbers that end before what was seen: not the parts that were read
        done = seen.order if known and seen is not None and seen.order <= end else 0
        cuts = [_cut(held, low if part.last <= done else None, high) for part, held in parts]
        return _together(cuts, [held for _, held in parts]), Place(lineage, end)

    def last_tick(self, view: str) -> datetime | None:
        """The newest known_at among a view's rows, or None without rows."""
        newest = [held.newest for _, held in self._all(view)]
        return pd.Timestamp(max(newest), tz="UTC").to_pydatetime() if newest else None

    def cut(self, view: str, keep_until: datetime | None, *, note: dict[str, Any] | None = None) -> None:
        """Take away the rows with known_at after `keep_until`; None takes away all. For rebuilding what they said."""
        kept = None if keep_until is None else self.read(view, until=keep_until)
        old = self._parts(view)
        if kept is not None and len(kept):
            data = _encoded(kept, note)
            # it covers the numbers of what it stands for: what is appended next is new to all readers
            part = _Part(old[0].first, old[-1].last, sha256_hex(data)[:16])
            self._write(view, part, data)
            self._hold(view, part, kept, note)
            old = [void for void in self._listed(view) if void != part]
        else:
            (self.folder(view) / _LINEAGE).unlink(missing_ok=True)
        self._drop(view, old)

    def built(self, view: str) -> dict[str, Any] | None:
        """The note that came with a view's newest part, or None."""
        parts = self._parts(view)
        return self._load(view, parts[-1]).note if parts else None

    def _lineage(self, view: str) -> str:
        try:
            return (self.folder(view) / _LINEAGE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _begin(self, view: str, *, anew: bool) -> None:
        """Give a view the name of its sequence of parts, a new one when it has no parts."""
        file = self.folder(view) / _LINEAGE
        if anew or not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f"{_LINEAGE}.{os.getpid()}")
            temporary.write_text(os.urandom(8).hex(), encoding="utf-8")
            temporary.replace(file)

    def _listed(self, view: str) -> list[_Part]:
        folder = self.folder(view)
        if not folder.is_dir():
            return []
        found = [_PART.match(entry.name) for entry in os.scandir(folder)]
        return [_Part(int(match[1]), int(match[2]), match[3]) for match in found if match]

    def _parts(self, view: str) -> list[_Part]:
        parts = sorted(self._listed(view), key=lambda part: (part.first, -part.last))
        live: list[_Part] = []
        for part in parts:
            if not live or part.last > live[-1].last:
                live.append(part)
        return live

    def _all(self, view: str) -> list[tuple[_Part, _Held]]:
        for _ in range(4):
            try:
                return [(part, self._load(view, part)) for part in self._parts(view)]
            except FileNotFoundError:
                # another process merged parts between our listing and our reading
                continue
        return [(part, self._load(view, part)) for part in self._parts(view)]

    def _load(self, view: str, part: _Part) -> _Held:
        held = self._held.get((view, part.file))
        if held is None:
            table = pq.ParquetFile(self.folder(view) / part.file, memory_map=False).read()
            note = (table.schema.metadata or {}).get(_NOTE)
            held = self._hold(view, part, table.to_pandas(), None if note is None else json.loads(note))
        return held

    def _hold(self, view: str, part: _Part, frame: pd.DataFrame, note: dict[str, Any] | None) -> _Held:
        known = _known(frame)
        held = _Held(frame, known.min(), known.max(), note)
        self._held[view, part.file] = held
        return held

    def _write(self, view: str, part: _Part, data: bytes) -> None:
        folder = self.folder(view)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"_{part.file}.{os.getpid()}"
        with temporary.open("wb") as file:
            file.write(data)
            if self._durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(folder / part.file)

    def _merge(self, parts: list[_Part], view: str) -> None:
        small: list[_Part] = []
        if len(parts) < self._merge_at:
            return
        for part in reversed(parts[:-1]):
            if len(self._load(view, part).frame) >= self._merge_below:
                break
            small.insert(0, part)
        if len(small) + 1 < self._merge_at:
            return
        merged = pd.concat([self._load(view, part).frame for part in small], ignore_index=True)
        note = self._load(view, small[-1]).note
        data = _encoded(merged, note)
        part = _Part(small[0].first, small[-1].last, sha256_hex(data)[:16])
        self._write(view, part, data)
        self._hold(view, part, merged, note)
        self._drop(view, small)

    def _drop(self, view: str, parts: list[_Part]) -> None:
        for part in parts:
            (self.folder(view) / part.file).unlink(missing_ok=True)
            self._held.pop((view, part.file), None)


def _together(cuts: list[pd.DataFrame | None], held: list[_Held]) -> pd.DataFrame:
    found = [frame for frame in cuts if frame is not None and len(frame)]
    if not found:
        columns = next((part.frame.iloc[:0] for part in held), None)
        return _no_rows() if columns is None else columns.copy()
    return found[0].reset_index(drop=True) if len(found) == 1 else pd.concat(found, ignore_index=True)


def _no_rows() -> pd.DataFrame:
    return pd.DataFrame({"event_time": pd.Series(dtype=TIME), "known_at": pd.Series(dtype=TIME)})


def _checked(view: str, frame: pd.DataFrame) -> None:
    for column in ("event_time", "known_at"):
        got = str(frame[column].dtype) if column in frame.columns else "no such column"
        if got != TIME:
            raise InputInvalid(f"rows of view {view}", f"{column} as {TIME}", got)


def _plain(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "us")


def _known(frame: pd.DataFrame) -> npt.NDArray[np.datetime64]:
    return frame["known_at"].to_numpy(dtype="M8[us]")


def _cut(held: _Held, low: np.datetime64 | None, high: np.datetime64 | None) -> pd.DataFrame | None:
    if (low is None or held.oldest > low) and (high is None or held.newest <= high):
        return held.frame
    if (low is not None and held.newest <= low) or (high is not None and held.oldest > high):
        return None
    known = _known(held.frame)
    keep = np.ones(len(known), dtype=bool)
    if low is not None:
        keep &= known > low
    if high is not None:
        keep &= known <= high
    return held.frame[keep]


def _encoded(frame: pd.DataFrame, note: dict[str, Any] | None) -> bytes:
    columns = {
        str(name): pa.array(column.to_numpy(), type=pa.string()) if column.dtype == object else pa.array(column)
        for name, column in frame.items()
    }
    table = pa.table(columns)
    if note is not None:
        table = table.replace_schema_metadata({_NOTE: canonical_json(note).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="lz4", use_dictionary=False)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded
