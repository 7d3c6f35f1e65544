"""The landing zone: append-only Parquet parts of checked events, and a quarantine for rows that failed, with reasons.

One batch is one landing part and, when rows failed, one quarantine part of the same name. The landing part is
written last and is what makes the batch count: a quarantine part without it is invisible until the batch comes again.
Rows that a person releases from quarantine land as a batch of their own; see `features.quarantine`.
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
from features.checks import Checked, check, shown, text_frame
from features.frames import FrameBuffer, frame_of, table_of
from features.odcs_checks import flags
from features.scd2 import gap_flags, interval_faults

PART_FORMAT = 1
_META = b"seatrial"
_DUPLICATE = "event_id: wanted an id that was not used before"


@dataclass(frozen=True)
class Receipt:
    """What became of one batch. rows_in = landed + quarantined; `reasons`: first broken rule -> rows, their sum is
    `quarantined`; `already`: the same batch was here before and nothing was done now; `released`: so many of rows_in
    came out of quarantine, where an earlier receipt counted them already."""

    kind: str
    source: str
    batch: str
    rows_in: int
    landed: int
    quarantined: int
    reasons: dict[str, int] = field(default_factory=dict)
    already: bool = False
    released: int = 0


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
        self._receipts: dict[tuple[str, str], Receipt] = {}
        self._turn = threading.RLock()
        self._turns = 0

    @property
    def root(self) -> Path:
        """The lake's folder."""
        return self._root

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
        with self.writing():
            stream = self._stream(kind)
            if batch in stream.stems:
                return replace(_receipt(stream.folder / f"{stream.stems[batch]}.parquet"), already=True)
            good, bad, rules = _judge(kind, frame, rejected, stream, checked)
            counts = dict(Counter(rules).most_common())
            receipt = Receipt(kind, source, batch, rows_in, len(good), len(bad), counts)
            self._write(stream, receipt, good, bad)
        return receipt

    def judge(self, kind: str, frame: pd.DataFrame) -> Checked:
        """What would land of a frame now and what would be refused; nothing is written."""
        good, bad, rules = _judge(kind, frame, None, self._stream(kind), passed=False)
        return Checked(good, bad, tuple(rules))

    def land_released(self, kind: str, frame: pd.DataFrame, *, source: str, batch: str) -> Receipt:
        """Land rows that were in quarantine and that `judge` has just passed, within the same `writing`.

        Args:
            kind: an event kind.
            frame: canonical events, all of which passed.
            source: system that they came from.
            batch: the release's id; the same again changes nothing.
        """
        with self.writing():
            stream = self._stream(kind)
            if batch in stream.stems:
                return replace(_receipt(stream.folder / f"{stream.stems[batch]}.parquet"), already=True)
            rows = len(frame)
            receipt = Receipt(kind, source, batch, rows, rows, 0, released=rows)
            self._write(stream, receipt, frame, frame.iloc[:0])
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
        folder = self._root / "quarantine" / kind
        parts = [folder / part.name for part, _ in self.parts(kind)]
        tables = [_read_part(part) for part in parts if part.is_file()]
        names = ("reason", "source", "batch", *event_contract(kind).names)
        schema = pa.schema([(name, pa.string()) for name in names])
        frame: pd.DataFrame = pa.concat_tables([schema.empty_table(), *tables]).to_pandas(ignore_metadata=True)
        return frame

    def flags(self, kind: str) -> pd.DataFrame:
        """Landed rows that a business check finds odd (they count all the same): event_id, field, rule, flag."""
        rows = self.read(kind)
        found = flags(kind, rows)
        return pd.concat([found, gap_flags(rows)], ignore_index=True) if kind == "attribute" else found

    def receipts(self, kind: str) -> tuple[Receipt, ...]:
        """What became of every batch of a kind, oldest first; their landed rows follow each other in `read`."""
        return tuple(receipt for _, receipt in self.parts(kind))

    def parts(self, kind: str) -> tuple[tuple[Path, Receipt], ...]:
        """The landed parts of a kind, oldest first, with their receipts; their rows are not read."""
        event_contract(kind)
        folder = self._root / "landing" / kind
        names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
        found = []
        for name in names:
            if name.endswith(".parquet"):
                if (kind, name) not in self._receipts:
                    self._receipts[kind, name] = _receipt(folder / name)
                found.append((folder / name, self._receipts[kind, name]))
        return tuple(found)

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
    def writing(self) -> Iterator[None]:
        """Hold off all other writers of this lake, in any process; may be nested."""
        self._root.mkdir(parents=True, exist_ok=True)
        with self._turn:
            if self._turns:
                yield
                return
            with (self._root / ".landing.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._turns += 1
                try:
                    yield
                finally:
                    self._turns -= 1


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
    kind: str, frame: pd.DataFrame, rejected: pd.DataFrame | None, stream: _Stream, passed: bool
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Rows to land, rows to quarantine as text with `reason`, and the first broken rule of each of the latter."""
    checked = Checked(frame.reset_index(drop=True), pd.DataFrame(), ()) if passed else check(kind, frame)
    good, bad, rules = checked.good, [checked.bad], list(checked.rule)
    ids = good["event_id"]
    again = ids.duplicated().to_numpy()
    if not stream.ids.isdisjoint(ids):
        again |= ids.isin(stream.ids).to_numpy()
    if again.any():
        repeated = good[again]
        reasons = [f"{_DUPLICATE}, got {shown(name)} [unique]" for name in repeated["event_id"]]
        bad.append(text_frame(kind, repeated, reasons))
        rules += [_DUPLICATE] * len(repeated)
        good = good[~again].reset_index(drop=True)
    if kind == "attribute":
        good, contradicting = _apart(kind, good, interval_faults(good, stream.buffer.frame()))
        bad.append(contradicting)
        rules += [reason.split(", got ")[0] for reason in contradicting["reason"]]
    if rejected is not None and len(rejected):
        reasons = rejected["reason"].astype(str).tolist()
        bad.insert(0, text_frame(kind, rejected, reasons))
        rules = [reason.split(", got ")[0] for reason in reasons] + rules
    return good, pd.concat([part for part in bad if len(part)] or bad[:1], ignore_index=True), rules


def _apart(kind: str, rows: pd.DataFrame, reasons: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows without a reason against them, and the others as quarantine text."""
    wrong = np.array([bool(reason) for reason in reasons], dtype=bool)
    return rows[~wrong].reset_index(drop=True), text_frame(kind, rows[wrong], [reason for reason in reasons if reason])


def _checksum(kind: str, source: str, frame: pd.DataFrame, rejected: pd.DataFrame | None) -> str:
    """Hash of a batch's content; row order matters, column order, index and the words of refusals do not."""
    digest = hashlib.sha256(repr((PART_FORMAT, kind, source)).encode())
    for part in (frame, rejected):
        names = () if part is None or part.empty else sorted({*map(str, part.columns)} - {"reason"})
        for name in names:
            digest.update(repr(name).encode("utf-8", "backslashreplace"))
            digest.update(_column_bytes(part[name]))  # type: ignore[index]
    return digest.hexdigest()[:32]


def _column_bytes(series: pd.Series[Any]) -> bytes:
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        return b"time" + series.to_numpy(dtype="datetime64[us]").tobytes()
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "f":
        return b"number" + (series.to_numpy(dtype="float64") + 0.0).tobytes()
    return repr(series.tolist()).encode("utf-8", "backslashreplace")
