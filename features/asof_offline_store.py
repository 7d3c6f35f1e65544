"""Feast offline store over Parquet: rows out are rows in, and no value that was not known at a row's moment."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel
from feast.type_map import feast_value_type_to_pa
from feast.utils import _get_requested_feature_views_to_features_dict
from pydantic import field_validator

from contracts.errors import InputInvalid
from contracts.times import utc
from features.asof import NEVER, microseconds
from features.asof_catalog import BYTES_A_ROW, IndexCatalog, SourceKey
from features.asof_retrieval import AsofRetrievalJob, Join, Source, TableJob, ViewPlan
from features.asof_rows import AskedRows
from features.parquet_source import InMemory, ParquetSources, newest_first, rows_and_width, source_files

WORTH_INDEXING = 200_000
MOST_AT_ONCE = 262_144
_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_sources = ParquetSources()


class AsofOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store:` of feature_store.yaml.

    `index_path`: folder for indexes; without one none is kept on disk. `index`: auto (use what is there, build for
    sources of 200,000 rows or more), always or never. `memory_limit`: like 2GB; what a join may hold at once beyond
    the caller's own rows: larger sources and results lie on disk. `engine`: local, or dask, ray, spark through Fugue.
    """

    type: Literal["features.asof_offline_store.AsofOfflineStore"] = "features.asof_offline_store.AsofOfflineStore"
    index_path: str | None = None
    index: Literal["auto", "always", "never"] = "auto"
    memory_limit: str = "4GB"
    engine: Literal["local", "dask", "ray", "spark"] = "local"

    @field_validator("memory_limit")
    @classmethod
    def _is_size(cls, text: str) -> str:
        memory_bytes(text)
        return text


def memory_bytes(text: str) -> int:
    """A size like 512MB or 2GB in bytes.

    Raises:
        ValueError: it is not such a text.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(KB|MB|GB|TB)\s*", text.upper())
    if not found or float(found[1]) == 0:
        raise ValueError(f"a size like 512MB or 2GB, not {text!r}")
    return int(float(found[1]) * _UNITS[found[2]])


class AsofOfflineStore(OfflineStore):
    """Point-in-time joins by `features.asof`, over Parquet files or folders.

    For each row and view: the newest row of the view with event_time <= moment, known (created timestamp) by the
    moment, and not older than the view's ttl (the edge belongs to it). The cut at what was known is always on.
    """

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = True,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Features for the rows of `entity_df`: as many rows, in their order, duplicates and missing values kept.

        Args:
            entity_df: join keys and `event_timestamp` (or one single time column) with a zone; other columns come back.
                A text is the path of a Parquet file or folder with such rows, read in pieces.
            full_feature_names: name columns view__feature.
            filter_by_created_timestamp: ignored: what was not known at a row's moment is never used.

        Raises:
            InputInvalid: no rows were given, a join key is missing, or a column would have a feature's name.
            TimeInvalid: a time without a zone, or missing.
            RowGuarantee: rows out are not rows in (never seen; checked all the same).
        """
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        wanted, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        plans = [_plan(config, view, names, full_feature_names) for view, names in wanted.items()]
        asked = _asked(config, entity_df)
        join = _join(config.offline_store, asked, plans)
        join.check()
        first, last = asked.range()
        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[name for name in asked.columns if name != asked.moment],
            min_event_timestamp=first,
            max_event_timestamp=last,
        )
        repo = Path(config.repo_path) if config.repo_path else None
        return AsofRetrievalJob(
            join, full_feature_names=full_feature_names, on_demand=on_demand, metadata=metadata, repo=repo
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each key among those that became usable (happened and known) from start to end.

        A late or corrected row of an older event is among them, so that incremental materialisation cannot miss it. A
        row with a missing part of its key is not: nobody could ask for it.
        """
        times = (timestamp_field, created_timestamp_column or None)
        columns = [*join_key_columns, *feature_name_columns]

        def work() -> pa.Table:
            table = _usable(_path(config, data_source), columns, times, (start_date, end_date))
            for name in join_key_columns:
                table = table.filter(table[name].is_valid())
            ordered = newest_first(table, *times)
            firsts = ordered.select(join_key_columns).to_pandas().duplicated().to_numpy()
            return ordered.filter(pa.array(~firsts))

        return TableJob(work)

    @staticmethod
    def pull_all_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows that became usable (happened and known) from start to end, both ends included."""
        columns = [*join_key_columns, *feature_name_columns]
        times = (timestamp_field, created_timestamp_column or None)
        return TableJob(lambda: _usable(_path(config, data_source), columns, times, (start_date, end_date)))


def build_indexes(config: Any, feature_views: Sequence[Any]) -> dict[str, int]:
    """Build or extend the index of every view's source.

    Args:
        config: Feast's RepoConfig, with `offline_store.index_path`.
        feature_views: Feast's views.

    Returns:
        bytes on disk by view; 0 for a view without rows.

    Raises:
        InputInvalid: no `index_path` is set, or a source cannot be indexed.
    """
    store = config.offline_store
    if not store.index_path:
        raise InputInvalid("offline store", "index_path, a folder for indexes", "none")
    catalog = IndexCatalog(Path(store.index_path), memory_bytes(store.memory_limit))
    sizes = {}
    for view in feature_views:
        plan = _plan(config, view, [field.name for field in view.features], False)
        source = _key(plan)
        sizes[plan.name] = catalog.size(source) if catalog.build(source) else 0
    return sizes


def _asked(config: Any, rows: pd.DataFrame | str | None) -> AskedRows:
    if isinstance(rows, pd.DataFrame):
        return AskedRows(rows, None)
    if isinstance(rows, str):
        path = Path(config.repo_path or ".") / rows
        if path.exists():
            return AskedRows(None, path)
    got = f"{rows!r}" if isinstance(rows, str) else type(rows).__name__
    raise InputInvalid("get_historical_features", "a DataFrame of rows, or the path of a Parquet file of them", got)


def _path(config: Any, source: Any) -> Path:
    if not isinstance(source, FileSource):
        raise InputInvalid("offline store", "a FileSource of Parquet", type(source).__name__)
    return Path(FileSource.get_uri_for_file_path(config.repo_path, source.path))


def _plan(config: Any, view: Any, features: list[str], full_names: bool) -> ViewPlan:
    source = view.batch_source
    shown = view.projection.name_alias or view.name
    columns = {field.name: feast_value_type_to_pa(field.dtype.to_value_type()) for field in view.features}
    stored = {new: old for old, new in (source.field_mapping or {}).items()}
    alias = view.projection.join_key_map
    joins = [column.name for column in view.entity_columns]
    return ViewPlan(
        name=shown,
        path=_path(config, source),
        keys={stored.get(name, name): alias.get(name, name) for name in joins},
        event=source.timestamp_field,
        known=source.created_timestamp_column or None,
        ttl=view.ttl,
        outputs={f"{shown}__{name}" if full_names else name: stored.get(name, name) for name in features},
        types={stored.get(name, name): kind for name, kind in columns.items()},
    )


def _key(plan: ViewPlan) -> SourceKey:
    return SourceKey(plan.path, tuple(plan.keys), plan.event, plan.known)


def _opener(store: AsofOfflineStoreConfig, plans: Sequence[ViewPlan]) -> Callable[[ViewPlan], Source | None]:
    """How a view's source is opened: through its index, or read whole into memory where no index is worth building."""
    limit = memory_bytes(store.memory_limit) // max(len(plans), 1)  # all sources of a join are open together
    folder = None if store.index == "never" or not store.index_path else Path(store.index_path)
    borrowed: list[tempfile.TemporaryDirectory[str]] = []
    building = threading.Lock()  # one index at a time, or the limit would hold for each of several

    def opened(plan: ViewPlan) -> Source | None:
        files = source_files(plan.path)
        sizes = [rows_and_width(file) for file in files]
        rows = sum(count for count, _ in sizes)
        wide = max((width for _, width in sizes), default=0)
        if folder is not None:
            catalog = IndexCatalog(folder, memory_bytes(store.memory_limit))
            if store.index == "always" or rows >= WORTH_INDEXING:
                with building:
                    return catalog.build(_key(plan))
            ready = catalog.ready(_key(plan))
            if ready is not None:
                return ready
        if rows * (wide + BYTES_A_ROW) > limit:
            with building:
                if not borrowed:
                    borrowed.append(tempfile.TemporaryDirectory(prefix="seatrial-index-"))
                return IndexCatalog(Path(borrowed[0].name), memory_bytes(store.memory_limit)).build(_key(plan))
        kept = _sources.read(plan.path, plan.source_columns, dictionaries=tuple(plan.keys))
        return None if kept is None else InMemory(kept, tuple(plan.keys), plan.event, plan.known)

    return opened


def _join(store: AsofOfflineStoreConfig, asked: AskedRows, plans: Sequence[ViewPlan]) -> Join:
    """The join in pieces; a result of more than half the memory limit lies on disk."""
    limit = memory_bytes(store.memory_limit)
    width = 8 * sum(len(plan.outputs) for plan in plans) + 32 * len(asked.columns)
    most = MOST_AT_ONCE if store.engine == "local" else max(len(asked), 1)
    piece = max(min(limit // (4 * (width + BYTES_A_ROW)), most), 1_000)
    on_disk = len(asked) * width > limit // 2
    return Join(asked, plans, _opener(store, plans), piece, on_disk=on_disk, engine=store.engine)


def _usable(
    path: Path, columns: list[str], times: tuple[str, str | None], span: tuple[datetime | None, datetime | None]
) -> pa.Table:
    """Rows whose max(event time, known) lies in the span, ends included; without known-at, whose event time does."""
    event, known = times
    read = [*columns, event] if known is None else [*columns, event, known]
    names = list(dict.fromkeys(read))
    found = _sources.read(path, names)
    if found is None:
        text, moment = pa.string(), pa.timestamp("us", "UTC")
        return pa.table({name: pa.array([], moment if name in times else text) for name in names})
    table = found.table
    when = microseconds(table[event], event, round_up=True)
    keep = when != NEVER
    if known is not None:
        learnt = microseconds(table[known], known, round_up=True)
        when, keep = np.maximum(when, learnt), keep & (learnt != NEVER)
    start, end = ((None if limit is None else microseconds([utc(limit)], "span")[0]) for limit in span)
    keep &= (start is None or when >= start) & (end is None or when <= end)
    return table.filter(pa.array(keep))
