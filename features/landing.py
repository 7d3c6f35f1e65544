"""The landing zone: append-only Parquet parts of checked events, and a quarantine for rows that failed, with reasons.

One batch is one landing part and, when rows failed, one quarantine part of the same name. The landing part is
written last and is what makes the batch count: a quarantine part without it is invisible until the batch comes again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import DependencyDown, InputInvalid
from contracts.events import event_contract
from contracts.times import utc
from features.checks import Checked, check, flags, shown, text_frame
from features.frames import FrameBuffer, frame_of, table_of

PART_FORMAT = 1
_META = b"seatrial"
_DUPLICATE = "event_id: wanted an id that was not used before"


@dataclass(frozen=True)
class Receipt:
    """What became of one batch. rows_in = landed + quarantined; `reasons`: first broken rule -> rows, their sum is
    `quarantined`; `already`: the same batch was here before and nothing was done now."""

    kind: str
    source: str
    batch: str
    rows_in: int
    landed: int
    quarantined: int
    reasons: dict[str, int] = field(default_factory=dict)
    already: bool = False


class _Stream:
    """The landed parts of one kind as they are in memory."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.folder = folder
        self.stems: dict[str, str] = {}
        self.order = 0
        self.buffer = FrameBuffer(kind)
        self.ids: set[str] = set()
        self.newest: dict[Any, pd.DataFrame] = {}

    def refresh(self) -> None:
        """Read the parts that came since the last time, oldest first."""
        if not self.folder.is_dir():
            return
        names = [name for name in os.listdir(self.folder) if name.endswith(".parquet")]  # noqa: PTH208
        if len(names) == len(self.stems):
            return
        for stem in sorted(name.removesuffix(".parquet") for name in names):
            if stem.partition("-")[2] not in self.stems:
                self.add(stem, frame_of(_read_part(self.folder / f"{stem}.parquet")))

    def add(self, stem: str, frame: pd.DataFrame) -> None:
        """Take in one part."""
        order, _, batch = stem.partition("-")
        self.stems[batch] = stem
        self.order = max(self.order, int(order))
        self.buffer.extend(frame)
        self.ids.update(frame["event_id"].tolist())
        self.newest.clear()


class Landing:
    """Landed and quarantined events under `root` (`root/landing/<kind>`, `root/quarantine/<kind>`).

    Any number of readers and writers, in any number of processes: writers take turns by a file lock.

    Args:
        root: the lake's folder (Settings.lake); made when the first batch lands.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root)
        self._streams: dict[str, _Stream] = {}
        self._turn = threading.RLock()

    def append(
        self,
        kind: str,
        frame: pd.DataFrame,
        *,
        source: str,
        rejected: pd.DataFrame | None = None,
        checked: bool = False,
    ) -> Receipt:
        """Check a batch, land what passes, quarantine the rest with reasons. The same batch again changes nothing.

        Args:
            kind: an event kind.
            frame: events of that kind; canonical dtypes are checked fastest.
            source: system that the batch came from.
            rejected: rows of the same batch that a reader had to refuse: `reason` and the fields' values as text.
            checked: the frame is canonical and came out of `checks.check` already; only event ids are looked at.

        Raises:
            InputInvalid: a column that the kind does not have; nothing was written.
        """
        batch = _checksum(kind, source, frame, rejected)
        rows_in = len(frame) + (0 if rejected is None else len(rejected))
        if rows_in == 0:
            return Receipt(kind, source, batch, 0, 0, 0)
        with self._writing():
            stream = self._stream(kind)
            if batch in stream.stems:
                return replace(_receipt(stream.folder / f"{stream.stems[batch]}.parquet"), already=True)
            good, bad, rules = _judge(kind, frame, rejected, stream.ids, checked)
            counts = dict(Counter(rules).most_common())
            receipt = Receipt(kind, source, batch, rows_in, len(good), len(bad), counts)
            self._write(stream, receipt, good, bad)
        return receipt

    def read(self, kind: str, *, known_by: datetime | None = None) -> pd.DataFrame:
        """Every landed version in landing order, canonical; callers must not write into the frame.

        Args:
            kind: an event kind.
            known_by: only what was known at that moment (known_at <= known_by).
        """
        buffer = self._stream(kind).buffer
        frame = buffer.frame()
        if known_by is None or frame.empty:
            return frame
        moment = np.datetime64(utc(known_by, "known_by").replace(tzinfo=None), "us")
        known = frame["known_at"].to_numpy(dtype="datetime64[us]")
        if buffer.in_order:
            return frame.iloc[: int(np.searchsorted(known, moment, side="right"))]
        return frame[known <= moment]

    def latest(self, kind: str, known_by: datetime | None = None) -> pd.DataFrame:
        """The newest version of each event by its natural key: latest known_at, then landed last.

        Returns:
            canonical events ordered by known_at, with a fresh index.
        """
        stream = self._stream(kind)
        moment = None if known_by is None else utc(known_by, "known_by")
        if moment not in stream.newest:
            keys = list(event_contract(kind).natural_key)
            rows = self.read(kind, known_by=moment)
            if not stream.buffer.in_order:
                rows = rows.sort_values("known_at", kind="stable")
            stream.newest = {moment: rows.drop_duplicates(keys, keep="last").reset_index(drop=True)}
        return stream.newest[moment]

    def quarantined(self, kind: str) -> pd.DataFrame:
        """Refused rows: reason, source, batch, and every field of the kind as the text that stood there."""
        stream = self._stream(kind)
        folder = self._root / "quarantine" / kind
        parts = [folder / f"{stem}.parquet" for stem in sorted(stream.stems.values())]
        tables = [_read_part(part) for part in parts if part.is_file()]
        names = ("reason", "source", "batch", *event_contract(kind).names)
        schema = pa.schema([(name, pa.string()) for name in names])
        frame: pd.DataFrame = pa.concat_tables([schema.empty_table(), *tables]).to_pandas(ignore_metadata=True)
        return frame

    def flags(self, kind: str) -> pd.DataFrame:
        """Landed rows that a business check finds odd (they count all the same): event_id, flag."""
        return flags(kind, self.read(kind))

    def receipts(self, kind: str) -> tuple[Receipt, ...]:
        """What became of every batch of a kind, oldest first."""
        stream = self._stream(kind)
        return tuple(_receipt(stream.folder / f"{stem}.parquet") for stem in sorted(stream.stems.values()))

    def kinds(self) -> tuple[str, ...]:
        """Kinds of which a batch has landed."""
        folder = self._root / "landing"
        if not folder.is_dir():
            return ()
        return tuple(sorted(item.name for item in folder.iterdir() if any(item.glob("*.parquet"))))

    def _stream(self, kind: str) -> _Stream:
        event_contract(kind)
        with self._turn:
            stream = self._streams.get(kind)
            if stream is None:
                stream = self._streams[kind] = _Stream(kind, self._root / "landing" / kind)
            stream.refresh()
        return stream

    def _write(self, stream: _Stream, receipt: Receipt, good: pd.DataFrame, bad: pd.DataFrame) -> None:
        stem = f"{stream.order + 1:08d}-{receipt.batch}"
        meta = {_META: json.dumps({"format": PART_FORMAT, "receipt": receipt.__dict__}).encode()}
        quarantine = self._root / "quarantine" / receipt.kind
        if len(bad):
            for left_behind in quarantine.glob(f"*-{receipt.batch}.parquet"):
                left_behind.unlink()
            bad.insert(1, "source", receipt.source)
            bad.insert(2, "batch", receipt.batch)
            schema = pa.schema([(name, pa.string()) for name in bad.columns])
            write_part(quarantine / f"{stem}.parquet", pa.Table.from_pandas(bad, schema=schema, preserve_index=False))
        write_part(stream.folder / f"{stem}.parquet", table_of(receipt.kind, good).replace_schema_metadata(meta))
        stream.add(stem, good)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        with self._turn, (self._root / ".landing.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write_part(path: Path, table: pa.Table) -> None:
    """Write a Parquet file so that it is there whole or not at all, whatever happens: temp, fsync, rename, fsync.

    Raises:
        DependencyDown: the disk is full or fails; the unfinished file is removed.
    """
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as sink:
            pq.write_table(table, sink, compression="zstd")
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(unfinished, path)  # noqa: PTH105
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise DependencyDown(f"the disk under {path.parent}", str(error)) from error


def _read_part(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path, memory_map=False).read()
    except (pa.ArrowException, OSError) as error:
        raise InputInvalid(str(path), "a readable Parquet part", str(error).splitlines()[0]) from None


def _receipt(path: Path) -> Receipt:
    meta = pq.ParquetFile(path).schema_arrow.metadata or {}
    return Receipt(**json.loads(meta[_META])["receipt"])


def _judge(
    kind: str, frame: pd.DataFrame, rejected: pd.DataFrame | None, used: set[str], passed: bool
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Rows to land, rows to quarantine as text with `reason`, and the first broken rule of each of the latter."""
    checked = Checked(frame.reset_index(drop=True), pd.DataFrame(), ()) if passed else check(kind, frame)
    good, bad, rules = checked.good, [checked.bad], list(checked.rule)
    ids = good["event_id"]
    again = ids.duplicated().to_numpy()
    if not used.isdisjoint(ids):
        again |= ids.isin(used).to_numpy()
    if again.any():
        repeated = good[again]
        bad.append(text_frame(kind, repeated, [f"{_DUPLICATE}, got {shown(name)}" for name in repeated["event_id"]]))
        rules += [_DUPLICATE] * len(repeated)
        good = good[~again].reset_index(drop=True)
    if rejected is not None and len(rejected):
        reasons = rejected["reason"].astype(str).tolist()
        bad.insert(0, text_frame(kind, rejected, reasons))
        rules = [reason.split(", got ")[0] for reason in reasons] + rules
    return good, pd.concat([part for part in bad if len(part)] or bad[:1], ignore_index=True), rules


def _checksum(kind: str, source: str, frame: pd.DataFrame, rejected: pd.DataFrame | None) -> str:
    """Hash of a batch's content; column order and index do not matter, row order does."""
    digest = hashlib.sha256(repr((PART_FORMAT, kind, source)).encode())
    for part in (frame, rejected):
        for name in sorted(map(str, part.columns)) if part is not None and len(part) else ():
            digest.update(repr(name).encode("utf-8", "backslashreplace"))
            digest.update(_column_bytes(part[name]))  # type: ignore[index]
    return digest.hexdigest()[:32]


def _column_bytes(series: pd.Series[Any]) -> bytes:
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        return b"time" + series.to_numpy(dtype="datetime64[us]").tobytes()
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "f":
        return b"number" + (series.to_numpy(dtype="float64") + 0.0).tobytes()
    return repr(series.tolist()).encode("utf-8", "backslashreplace")
