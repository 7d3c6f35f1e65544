"""Feast's online interface to our stores, so that Feast's own calls work on the data that is served."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import metrics
from feast.infra.online_stores.online_store import OnlineStore as FeastOnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.online_response import OnlineResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from feast.type_map import python_values_to_proto_values
from feast.types import Float64
from feast.value_type import ValueType
from pydantic import field_validator

from contracts.errors import InputInvalid
from contracts.times import Clock, SetClock, SystemClock, parse_time
from features.asof import microseconds
from features.online import OnlineStore
from features.online_answer import ColumnResponse, Shown
from features.online_request import Plan, Plans, asked_view, columns_of, keys_of, part_of, parts_of
from features.online_response import NOT_FOUND, PRESENT, given, named, results, statuses
from features.online_rows import Key, OnlineFeatures, Part, Rows, check_times, instant, moment_of

Written = list[tuple[Any, dict[str, Any], datetime, datetime | None]]
Read = list[tuple[datetime | None, dict[str, Any] | None]]


class GuardedOnlineStore(FeastOnlineStore):
    """Feast's calls on a store of ours.

    Writes go through the guard: an older row never replaces a newer one, in whatever order they come. Reads honour the
    view's ttl: a row past it has null values, its event time, and in `get_online_features` the status OUTSIDE_MAX_AGE;
    a row that has not happened yet, or is not known yet, is not found. Values may be of any type of Feast's; join keys
    text, whole numbers, bytes or timestamps.
    """

    _store: OnlineFeatures | None = None

    def __init__(self) -> None:
        """Feast makes a store without arguments, and opens it by the configuration of the first call."""
        self._plans = Plans()

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads and writes may be awaited; they are over in less than a hop to a thread takes."""
        return SupportedAsyncMethods(read=True, write=True)

    @abstractmethod
    def _made(self, config: Any) -> OnlineFeatures:
        """The store that a configuration names."""

    def online_write_batch(self, config: Any, table: Any, data: Written, progress: Callable[[int], Any] | None) -> None:
        """Write rows; in one transaction where the store has them.

        Raises:
            InputInvalid: a join key that cannot be kept, or an infinite number.
        """
        if data:
            keys = [_key(table, dict(zip(row[0].join_keys, row[0].entity_values, strict=True))) for row in data]
            event = np.array([instant(_aware(row[2])) for row in data], np.int64)
            known = np.array([instant(_aware(row[3] or row[2])) for row in data], np.int64)
            values = {field.name: [row[1].get(field.name) for row in data] for field in table.features}
            numbers = [field.name for field in table.features if field.dtype == Float64]
            floats = {name: _floats(table.name, name, values[name]) for name in numbers}
            encoded = {
                name: [b"" if value is None else value.SerializeToString() for value in column]
                for name, column in values.items()
                if name not in floats
            }
            self._opened(config).put(table.name, _rows(table, keys, event, known, floats, encoded))
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: Any, table: Any, data: Written, progress: Callable[[int], Any] | None
    ) -> None:
        """As `online_write_batch`."""
        self.online_write_batch(config, table, data, progress)

    def write_arrow(self, config: Any, table: Any, rows: pa.Table) -> None:
        """Write rows of an Arrow table with the columns of a view's source, mapped to the view's names.

        Raises:
            InputInvalid: a join key that cannot be kept, a missing time, or an infinite number.
        """
        source = table.batch_source
        event = microseconds(rows[source.timestamp_field], source.timestamp_field)
        created = source.created_timestamp_column
        known = microseconds(rows[created], created) if created else event
        check_times(table.name, event, known)
        types = {column.name: column.dtype.to_value_type() for column in table.entity_columns}
        parts = [_parts(name, types[name], rows[name]) for name in table.join_keys]
        keys = list(zip(*parts, strict=True))
        floats, encoded = {}, {}
        for field in table.features:
            column = rows[field.name]
            if field.dtype == Float64:
                floats[field.name] = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
                _refuse_infinite(table.name, field.name, floats[field.name])
            else:
                values = python_values_to_proto_values(column.to_numpy(), field.dtype.to_value_type())
                encoded[field.name] = [value.SerializeToString() for value in values]
        self._opened(config).put(table.name, _rows(table, keys, event, known, floats, encoded))

    def online_read(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> Read:
        """Event time and values of each key: (None, None) where there is no row, null values past the view's ttl."""
        names = requested_features or [field.name for field in table.features]
        keys = [_key(table, dict(zip(one.join_keys, one.entity_values, strict=True))) for one in entity_keys]
        block = self._opened(config).block(table.name, table.join_keys, keys, names)
        found: Read = []
        status = statuses(block, instant(self._clock(config).now()), table.ttl)
        protos = [[Value.FromString(raw) for raw in column] for column in block.values()]
        for place, said in enumerate(status.tolist()):
            if said == NOT_FOUND:
                found.append((None, None))
                continue
            columns = zip(names, protos, strict=True)
            values = {name: column[place] if said == PRESENT else Value() for name, column in columns}
            found.append((moment_of(int(block.event[place])), values))
        return found

    async def online_read_async(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> Read:
        """As `online_read`."""
        return self.online_read(config, table, entity_keys, requested_features)

    def get_online_features(
        self,
        config: Any,
        features: Any,
        entity_rows: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Feast's answer, made from one block of rows a view and parsed once.

        Requests with on-demand views, request data, precomputed services or Feast's metrics take Feast's own way.

        Raises:
            InputInvalid: entity rows with different keys, or a join key of a type that cannot be kept.
            UnknownName: a join key is not given.
        """
        special = include_feature_view_version_metadata or not entity_rows or metrics._config.online_features
        plan = None
        if not special:
            plan = self._plans.plan(registry, project, features, full_feature_names, self._build_feature_types)
        given_columns = columns_of(entity_rows) if plan is not None else {}
        if plan is None or not given_columns.keys() <= plan.key_types.keys():
            return super().get_online_features(
                config=config,
                features=features,
                entity_rows=entity_rows,
                registry=registry,
                project=project,
                full_feature_names=full_feature_names,
                include_feature_view_version_metadata=include_feature_view_version_metadata,
            )
        return self._answered(config, plan, given_columns)

    async def get_online_features_async(self, *args: Any, **kwargs: Any) -> OnlineResponse:
        """As `get_online_features`."""
        return self.get_online_features(*args, **kwargs)

    def _answered(self, config: Any, plan: Plan, columns: Mapping[str, Sequence[Any]]) -> OnlineResponse:
        moment, store = instant(self._clock(config).now()), self._opened(config)
        parts, content, shown = {}, [named((*columns, *plan.shown))], []
        for name, values in columns.items():
            parts[name], encoded = parts_of(name, plan.key_types[name], values)
            content.append(given(encoded))
        for view in plan.views:
            block = store.block(view.name, view.keys, keys_of(view, parts), view.columns)
            shown.append(Shown(view.shown, block, statuses(block, moment, view.ttl)))
            content.append(results(block, shown[-1].status))
        return ColumnResponse(b"".join(content), columns, shown, plan.types)

    def _read_features_per_fv(
        self,
        config: Any,
        grouped_refs: list[tuple[Any, list[str]]],
        join_key_values: Mapping[str, Sequence[Any]],
        entity_name_to_join_key_map: Mapping[str, str],
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Feast's own seam for reading a request's views, for the requests that take Feast's way."""
        moment = instant(self._clock(config).now())
        for table, names in grouped_refs:
            view = asked_view(table, names, full_feature_names)
            parts = {name: [part_of(name, value) for value in values] for name, values in join_key_values.items()}
            block = self._opened(config).block(view.name, view.keys, keys_of(view, parts), view.columns)
            status = statuses(block, moment, view.ttl)
            online_features_response.metadata.feature_names.val.extend(view.shown)
            if include_feature_view_version_metadata:
                _tell_version(table, online_features_response.metadata.feature_view_metadata)
            online_features_response.MergeFromString(results(block, status))
            present = int((status == PRESENT).sum())
            metrics.track_feature_statuses(view.name, present * len(names), (len(status) - present) * len(names))

    async def _read_features_per_fv_async(self, *args: Any, **kwargs: Any) -> None:
        self._read_features_per_fv(*args, **kwargs)

    def update(
        self,
        config: Any,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Take away the rows of views that are no more; called by `feast apply`."""
        for table in tables_to_delete:
            self._forget(config, table)

    def teardown(self, config: Any, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Take away the rows of all views; called by `feast teardown`."""
        for table in tables:
            self._forget(config, table)

    def _forget(self, config: Any, table: Any) -> None:
        self._opened(config).forget(table.name)

    def _opened(self, config: Any) -> OnlineFeatures:
        if self._store is None:
            self._store = self._made(config)
        return self._store

    def _clock(self, config: Any) -> Clock:
        at = config.online_store.clock
        return SetClock(parse_time(at, "online_store.clock")) if at else SystemClock()


class EmbeddedOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store:` of feature_store.yaml. `path`: the store's folder, absolute; `clock`: a fixed "now", for
    rehearsals; `durable`: a write is on the disk when it returns."""

    type: Literal["features.embedded_online_store.EmbeddedOnlineStore"] = (
        "features.embedded_online_store.EmbeddedOnlineStore"
    )
    path: str
    clock: str = ""
    durable: bool = True

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        # an unset variable stays in Feast's YAML as ${SEATRIAL_HOME}
        if not Path(path).is_absolute():
            raise ValueError(f"an absolute folder, not {path!r}; set SEATRIAL_HOME to one")
        return path


class EmbeddedOnlineStore(GuardedOnlineStore):
    """Feast's calls on `features.online.OnlineStore`."""

    def _made(self, config: Any) -> OnlineFeatures:
        return OnlineStore(Path(config.online_store.path), durable=config.online_store.durable)


def _rows(
    table: Any,
    keys: Sequence[Key],
    event: npt.NDArray[np.int64],
    known: npt.NDArray[np.int64],
    floats: Mapping[str, npt.NDArray[np.float64]],
    encoded: Mapping[str, Sequence[bytes]],
) -> Rows:
    numbers = np.column_stack(list(floats.values())) if floats else np.empty((len(keys), 0))
    return Rows(tuple(table.join_keys), keys, event, known, tuple(floats), numbers, encoded)


def _key(table: Any, values: Mapping[str, Any]) -> Key:
    found = tuple(part_of(name, values[name]) for name in table.join_keys)
    if None in found:
        raise InputInvalid(f"key of view {table.name}", "a value in every join key", "a null")
    return found  # type: ignore[return-value]


def _parts(name: str, kind: ValueType, column: pa.ChunkedArray) -> list[Part | None]:
    values: list[Part | None] = column.to_pylist()
    if kind is ValueType.STRING and pa.types.is_string(column.type):
        return values
    return parts_of(name, kind, values)[0]


def _floats(view: str, name: str, values: Sequence[Any]) -> npt.NDArray[np.float64]:
    found = np.full(len(values), np.nan)
    for place, value in enumerate(values):
        if value is None or (kind := value.WhichOneof("val")) is None:
            continue
        if kind != "double_val":
            raise InputInvalid(f"view {view}", f"a double in {name!r}", kind)
        found[place] = value.double_val
    _refuse_infinite(view, name, found)
    return found


def _refuse_infinite(view: str, name: str, values: npt.NDArray[np.float64]) -> None:
    if np.isinf(values).any():
        raise InputInvalid(f"rows of view {view}", f"finite numbers or null in {name!r}", "infinity")


def _tell_version(table: Any, told: Any) -> None:
    name = table.projection.name_alias or table.projection.name
    if name not in [entry.name for entry in told]:
        told.add(name=name, version=getattr(table, "current_version_number", 0) or 0)


def _aware(moment: datetime) -> datetime:
    # Feast hands over naive times that mean UTC
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
