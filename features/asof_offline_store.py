"""Feast offline store over Parquet: rows out are rows in, and no value that was not known at a row's moment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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

from contracts.errors import InputInvalid, RowGuarantee, UnknownName
from contracts.times import utc
from features.asof import NEVER, microseconds
from features.parquet_source import Kept, ParquetSources, newest_first, taken

ENTITY_TIME = "event_timestamp"
_sources = ParquetSources()
_log = logging.getLogger(__name__)


class AsofOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store:` of feature_store.yaml."""

    type: Literal["features.asof_offline_store.AsofOfflineStore"] = "features.asof_offline_store.AsofOfflineStore"


@dataclass(frozen=True)
class _ViewPlan:
    """What one view contributes: where its rows are, how they are joined, and the columns that come out."""

    name: str
    path: Path
    keys: Mapping[str, str]
    event: str
    known: str | None
    ttl: timedelta | None
    outputs: Mapping[str, str]
    types: Mapping[str, pa.DataType]


class AsofRetrievalJob(RetrievalJob):
    """A retrieval that is done when its result is asked for."""

    def __init__(
        self,
        work: Callable[[], pa.Table],
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
        rows: pd.DataFrame | None = None,
    ) -> None:
        """Args:
        work: makes the result.
        full_feature_names: whether features carry their view's name.
        on_demand: Feast's on-demand views to compute on the result.
        metadata: what was asked.
        rows: the caller's rows, which `to_df` gives back as they are, with the features beside them.
        """
        self._work = work
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)
        self._metadata = metadata
        self._rows = rows

    @property
    def full_feature_names(self) -> bool:
        """Whether features carry their view's name."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Feast's on-demand views to compute on the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked."""
        return self._metadata

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """The result as a frame: the caller's rows with their own types, order and index, and the features."""
        table = self.to_arrow(validation_reference=validation_reference, timeout=timeout)
        if self._rows is None:
            frame: pd.DataFrame = table.to_pandas()
            return frame
        mine = [name for name in self._rows.columns if name in table.column_names]
        added: pd.DataFrame = table.drop_columns(mine).to_pandas()
        return pd.concat([self._rows, added.set_axis(self._rows.index, axis=0)], axis=1)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._work()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._work().to_pandas()
        return frame

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Not offered.

        Raises:
            InputInvalid: always; write the frame with `to_df().to_parquet(...)`.
        """
        raise InputInvalid("persist", "a result taken with to_df() or to_arrow()", "a saved dataset")


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
            full_feature_names: name columns view__feature.
            filter_by_created_timestamp: ignored: what was not known at a row's moment is never used.

        Raises:
            InputInvalid: no frame was given, a join key is missing, or a column would have a feature's name.
            TimeInvalid: a time without a zone, or missing.
            RowGuarantee: rows out are not rows in (never seen; checked all the same).
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise InputInvalid("get_historical_features", "a DataFrame of rows", type(entity_df).__name__)
        rows = entity_df
        moment = _moment_column(rows)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        wanted, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        plans = [_plan(config, view, names, full_feature_names) for view, names in wanted.items()]
        _check_names(rows, plans)
        stamps = pd.DatetimeIndex(rows[moment]) if len(rows) else None
        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[str(name) for name in rows.columns if name != moment],
            min_event_timestamp=None if stamps is None else stamps.min().to_pydatetime(),
            max_event_timestamp=None if stamps is None else stamps.max().to_pydatetime(),
        )
        return AsofRetrievalJob(
            lambda: _joined(rows, moment, plans),
            full_feature_names=full_feature_names,
            on_demand=on_demand,
            metadata=metadata,
            rows=rows,
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

        A late or corrected row of an older event is among them, so that incremental materialisation cannot miss it.
        """
        times = (timestamp_field, created_timestamp_column or None)
        columns = [*join_key_columns, *feature_name_columns]

        def work() -> pa.Table:
            table = _usable(_path(config, data_source), columns, times, (start_date, end_date))
            ordered = newest_first(table, *times)
            firsts = ordered.select(join_key_columns).to_pandas().duplicated().to_numpy()
            return ordered.filter(pa.array(~firsts))

        return AsofRetrievalJob(work)

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
        return AsofRetrievalJob(lambda: _usable(_path(config, data_source), columns, times, (start_date, end_date)))


def _moment_column(rows: pd.DataFrame) -> str:
    if ENTITY_TIME in rows.columns:
        return ENTITY_TIME
    times = [str(name) for name in rows.columns if pd.api.types.is_datetime64_any_dtype(rows[name])]
    if len(times) != 1:
        raise InputInvalid("get_historical_features", f"a column {ENTITY_TIME!r}", f"time columns {times or 'none'}")
    return times[0]


def _path(config: Any, source: Any) -> Path:
    if not isinstance(source, FileSource):
        raise InputInvalid("offline store", "a FileSource of Parquet", type(source).__name__)
    return Path(FileSource.get_uri_for_file_path(config.repo_path, source.path))


def _plan(config: Any, view: Any, features: list[str], full_names: bool) -> _ViewPlan:
    source = view.batch_source
    shown = view.projection.name_alias or view.name
    columns = {field.name: feast_value_type_to_pa(field.dtype.to_value_type()) for field in view.features}
    stored = {new: old for old, new in (source.field_mapping or {}).items()}
    alias = view.projection.join_key_map
    joins = [column.name for column in view.entity_columns]
    return _ViewPlan(
        name=shown,
        path=_path(config, source),
        keys={stored.get(name, name): alias.get(name, name) for name in joins},
        event=source.timestamp_field,
        known=source.created_timestamp_column or None,
        ttl=view.ttl,
        outputs={f"{shown}__{name}" if full_names else name: stored.get(name, name) for name in features},
        types={stored.get(name, name): kind for name, kind in columns.items()},
    )


def _check_names(rows: pd.DataFrame, plans: list[_ViewPlan]) -> None:
    for plan in plans:
        for key in plan.keys.values():
            if key not in rows.columns:
                raise UnknownName(f"join key of view {plan.name}", key, [str(name) for name in rows.columns])
        for output in plan.outputs:
            if output in rows.columns:
                raise InputInvalid("rows", "no column with a feature's name", f"{output!r}", hint="rename it")


def _joined(rows: pd.DataFrame, moment: str, plans: list[_ViewPlan]) -> pa.Table:
    table = pa.Table.from_pandas(rows, preserve_index=False)
    as_of = rows[moment]
    for plan in plans:
        asked = rows[list(plan.keys.values())].set_axis(list(plan.keys), axis=1)
        source = _sources.read(plan.path, _columns([*plan.keys, *plan.outputs.values()], plan.event, plan.known))
        places = _places(source, plan, asked, as_of)
        for output, stored in plan.outputs.items():
            column = pa.nulls(len(rows), plan.types[stored]) if source is None else taken(source.table[stored], places)
            table = table.append_column(output, column)
    if table.num_rows != len(rows):
        raise RowGuarantee("get_historical_features", len(rows), table.num_rows)
    return table


def _places(source: Kept | None, plan: _ViewPlan, asked: pd.DataFrame, as_of: pd.Series[Any]) -> Any:
    if source is None:
        _log.info("view %s has no rows yet in %s", plan.name, plan.path)
        return np.full(len(asked), -1, np.int64)
    return source.index(list(plan.keys), plan.event, plan.known).lookup(asked, as_of, plan.ttl)


def _columns(columns: list[str], event: str, known: str | None) -> list[str]:
    return list(dict.fromkeys([*columns, event, *([known] if known else [])]))


def _usable(
    path: Path, columns: list[str], times: tuple[str, str | None], span: tuple[datetime | None, datetime | None]
) -> pa.Table:
    """Rows whose max(event time, known) lies in the span, ends included; without known-at, whose event time does."""
    event, known = times
    names = _columns(columns, event, known)
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
