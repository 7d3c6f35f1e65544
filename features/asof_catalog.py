"""As-of indexes on disk, by source: built when asked, extended when rows land, never used for other content.

Below `folder`, a source (its path, join keys and time columns) has a folder with `index.json`, which says of every
segment which row groups of which files it holds, and the segments. Segments are in the order of the source's rows. A
segment is used only while its files are the very ones that it was built from; from the first that is not, the rest is
built anew. New files become a new segment, merged with its predecessor when that is not at least twice as large, so
that there are few of them. The manifest is replaced in one move, under a lock; what it does not name is removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import InputInvalid
from features.asof import Int64, Keys
from features.asof_picks import Picks
from features.asof_segments import Segment, build_segment
from features.parquet_source import RowGroups, Stamp, listings, row_groups

FORMAT = 1
BYTES_A_ROW = 160  # of a row's keys, times, codes and order while its segment is built, measured
DEFAULT_LIMIT = 4 << 30


@dataclass(frozen=True)
class SourceKey:
    """One way to join one source: its file or folder, join keys, event-time and known-at columns."""

    path: Path
    keys: tuple[str, ...]
    event: str
    known: str | None

    @property
    def name(self) -> str:
        """Folder name of its index."""
        text = json.dumps([str(self.path), list(self.keys), self.event, self.known])
        return f"{self.path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class _Part:
    """A segment's place in the manifest: its folder's name, what it holds, and how it is opened."""

    name: str
    groups: tuple[RowGroups, ...]
    opened: dict[str, Any]

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)


class Indexed:
    """A source through its index on disk."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Args:
        segments: in the order of the source's rows.
        """
        self._segments = list(segments)
        self._starts = np.cumsum([0, *(segment.rows for segment in segments)])

    def find(self, keys: Keys, moment: Int64, ttl: timedelta | None) -> Int64:
        """Place of the newest row known at each moment over all segments, -1 where there is none.

        Of the segments' answers the latest event wins, then the latest known, then the later segment: what one index
        over all rows would say.
        """
        if len(self._segments) == 1:
            return self._segments[0].find(keys, moment, ttl)
        best = np.full(len(moment), -1, np.int64)
        event, known = (np.full(len(moment), np.iinfo(np.int64).min) for _ in range(2))
        for segment, start in zip(self._segments, self._starts, strict=False):
            places = segment.find(keys, moment, ttl)
            rows = np.flatnonzero(places >= 0)
            happened, learnt = segment.times(places[rows])
            wins = (happened > event[rows]) | ((happened == event[rows]) & (learnt >= known[rows]))
            won = rows[wins]
            best[won], event[won], known[won] = start + places[won], happened[wins], learnt[wins]
        return best

    def columns(self, names: Sequence[str], places: Int64) -> list[pa.Array]:
        """Values of columns at `places`, null where a place is -1; the types stay.

        Raises:
            InputInvalid: a column that the source does not have.
        """
        known = sorted({column for segment in self._segments for column in segment.columns})
        for name in names:
            if name not in known:
                raise InputInvalid("as-of index", f"a column {name!r}", f"columns {', '.join(known)}")
        if len(self._segments) == 1:
            picks = Picks(places)
            return [picks.of(self._segments[0].column(name)) for name in names]
        holder = np.searchsorted(self._starts, places, side="right") - 1
        order = np.argsort(holder, kind="stable")
        cuts = np.searchsorted(holder[order], np.arange(len(self._segments) + 1))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        own = [
            Picks(places[order[start:end]] - first)
            for start, end, first in zip(cuts, cuts[1:], self._starts, strict=False)
        ]
        put_back = Picks(back)
        return [put_back.of(self._together(name, own, int(cuts[0]))) for name in names]

    def _together(self, name: str, own: Sequence[Picks], missing: int) -> pa.Array:
        """A column's values: nulls for what was not found, then what each segment has for its own rows."""
        parts = [pa.nulls(missing)]
        for segment, picks in zip(self._segments, own, strict=True):
            parts.append(picks.of(segment.column(name)) if name in segment.columns else pa.nulls(len(picks)))
        tables = [pa.table({name: part}) for part in parts]
        return pa.concat_tables(tables, promote_options="permissive")[name].combine_chunks()


class IndexCatalog:
    """The indexes below one folder.

    Any number of reading processes; builders of one source take turns by a file lock.
    """

    def __init__(self, folder: Path, memory_limit: int = DEFAULT_LIMIT) -> None:
        """Args:
        folder: where indexes are kept; made when the first is built.
        memory_limit: bytes that building may take; a larger source becomes several segments. One row group of the
            source is the least that is read at once (about 320 bytes a row).
        """
        self._folder = Path(folder)
        self._cap = max(memory_limit // (2 * BYTES_A_ROW), 1)

    def ready(self, source: SourceKey) -> Indexed | None:
        """The index of a source when it is there for exactly the files that are there now; None otherwise."""
        for files in listings(source.path):
            parts = _fitting(self._manifest(source), files)
            if not files or sum(len(part.groups) for part in parts) == 0 or _rest(parts, files):
                return None
            opened = self._opened(source, parts)
            if opened is not None:
                return opened
        return None

    def build(self, source: SourceKey) -> Indexed | None:
        """The index of a source, built or extended where it has to be; None while the source has no file.

        Raises:
            InputInvalid, TimeInvalid: the source cannot be indexed; DependencyDown: the disk is full or fails.
        """
        found = self.ready(source)
        if found is not None:
            return found
        for files in listings(source.path):
            if not files:
                return None
            try:
                with self._alone(source):
                    parts = self._extended(source, files)
                opened = self._opened(source, parts)
            except FileNotFoundError:
                continue
            if opened is not None:
                return opened
        return None

    def size(self, source: SourceKey) -> int:
        """Bytes that a source's index takes on disk."""
        home = self._folder / source.name
        return sum(file.stat().st_size for file in home.rglob("*") if file.is_file())

    def _extended(self, source: SourceKey, files: tuple[Stamp, ...]) -> list[_Part]:
        home = self._folder / source.name
        kept = _fitting(self._manifest(source), files)
        fresh = row_groups(_rest(kept, files))
        while kept and fresh and kept[-1].rows < 2 * sum(group.rows for group in fresh):
            if kept[-1].rows + sum(group.rows for group in fresh) > self._cap:
                break
            fresh = [*kept.pop().groups, *fresh]
        for groups in _split(fresh, self._cap):
            name = hashlib.sha256(json.dumps(groups).encode()).hexdigest()[:16]
            opened = build_segment(home / name, groups, source.keys, source.event, source.known)
            kept.append(_Part(name, tuple(groups), opened))
        _replace_json(home / "index.json", _as_json(source, kept))
        named = {part.name for part in kept}
        for entry in home.iterdir():
            if entry.is_dir() and entry.name not in named:
                shutil.rmtree(entry, ignore_errors=True)
        return kept

    def _manifest(self, source: SourceKey) -> list[_Part]:
        try:
            found = json.loads((self._folder / source.name / "index.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return []
        if found.get("format") != FORMAT:
            return []
        return [
            _Part(
                part["name"], tuple(RowGroups(Stamp(*group[0]), *group[1:]) for group in part["groups"]), part["opened"]
            )
            for part in found["parts"]
        ]

    def _opened(self, source: SourceKey, parts: list[_Part]) -> Indexed | None:
        """The parts as one index; None when a builder took one away meanwhile."""
        segments = [
            Segment(**{**part.opened, "folder": self._folder / source.name / part.name, "keys": source.keys})
            for part in parts
        ]
        return Indexed(segments) if all(segment.folder.is_dir() for segment in segments) else None

    @contextmanager
    def _alone(self, source: SourceKey) -> Iterator[None]:
        home = self._folder / source.name
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _fitting(parts: list[_Part], files: tuple[Stamp, ...]) -> list[_Part]:
    """The first parts, as far as they hold exactly the first of these files, in their order."""
    listed = [group for part in parts for group in part.groups]
    held = list(dict.fromkeys(group.file for group in listed))
    fit = 0
    while fit < min(len(held), len(files)) and held[fit] == files[fit]:
        fit += 1
    good = set(held[:fit])
    kept: list[_Part] = []
    for part in parts:
        if any(group.file not in good for group in part.groups):
            break
        kept.append(part)
    # a file that was cut between two parts must be held to its end
    while kept and len(kept) < len(parts) and kept[-1].groups[-1].file == parts[len(kept)].groups[0].file:
        kept.pop()
    return kept


def _rest(parts: list[_Part], files: tuple[Stamp, ...]) -> tuple[Stamp, ...]:
    held = {group.file for part in parts for group in part.groups}
    return tuple(file for file in files if file not in held)


def _split(groups: list[RowGroups], cap: int) -> Iterator[list[RowGroups]]:
    """Consecutive row groups in bundles of at most `cap` rows; a single larger row group is a bundle of its own."""
    bundle: list[RowGroups] = []
    for group in groups:
        if bundle and sum(held.rows for held in bundle) + group.rows > cap:
            yield bundle
            bundle = []
        bundle.append(group)
    if bundle:
        yield bundle


def _as_json(source: SourceKey, parts: list[_Part]) -> dict[str, Any]:
    said = {"path": str(source.path), "keys": list(source.keys), "event": source.event, "known": source.known}
    listed = [{"name": part.name, "groups": part.groups, "opened": part.opened} for part in parts]
    return {"format": FORMAT, "source": said, "parts": listed}


def _replace_json(path: Path, value: dict[str, Any]) -> None:
    unfinished = path.with_name(f"_{path.name}.{os.getpid()}")
    with unfinished.open("w") as sink:
        json.dump(value, sink)
        sink.flush()
        os.fsync(sink.fileno())
    unfinished.replace(path)
