"""Feast as the API of the features: its objects from our declarations, training sets and online reads through it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.declarations import Declarations, Service, fact_columns, join_keys, view_columns
from contracts.errors import ConfigInvalid, InputInvalid, RowGuarantee, UnknownName
from contracts.settings import Settings
from features.facts import fact_values
from features.gold import GoldStore
from features.materialize import Materialized, materialize
from features.online_rows import OnlineFeatures
from features.online_stores import feast_online, open_online

if TYPE_CHECKING:
    from feast import FeatureStore

_ROW = "__row"
_METRICS_FOLDERS = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")
_OPEN_DOOR = "INTRA_COMMUNICATION_BASE64"


def _import_feast() -> None:
    """Import Feast without what importing it does to Prometheus.

    Feast points prometheus_client of the whole process, and of every child, at a folder shared between processes; our
    counters would then add up over handlers. The client is imported first, and the environment put back.
    """
    import prometheus_client  # noqa: F401

    before = {name: os.environ.get(name) for name in _METRICS_FOLDERS}
    import feast  # noqa: F401

    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)


def feast_objects(declarations: Declarations, gold: Path) -> list[Any]:
    """Feast's objects for the declarations.

    Args:
        declarations: views and services.
        gold: folder with one folder of Parquet parts a view.

    Returns:
        An Entity a join key, a FeatureView a view (on a FileSource with event_time, and known_at as created
        timestamp), a FeatureService a service with its hash as a tag.
    """
    _import_feast()
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, String

    names = dict.fromkeys(key for view in declarations.views.values() for key in join_keys(view))
    entities = {name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in names}
    views: dict[str, Any] = {}
    for name, view in declarations.views.items():
        keys = join_keys(view)
        source = FileSource(
            name=f"{name}_gold",
            path=str((gold / name).absolute()),
            timestamp_field="event_time",
            created_timestamp_column="known_at",
        )
        fields = [Field(name=key, dtype=String) for key in keys]
        fields += [Field(name=column, dtype=Float64) for column in view_columns(view)]
        views[name] = FeatureView(
            name=name,
            entities=[entities[key] for key in keys],
            ttl=view.ttl,
            schema=fields,
            source=source,
            tags={"kind": view.kind, "event": view.event},
        )
    services = [
        FeatureService(
            name=name, features=[views[view] for view in service.views], tags={"hash": declarations.service_hash(name)}
        )
        for name, service in declarations.services.items()
    ]
    return [*entities.values(), *views.values(), *services]


class FeatureRepo:
    """The features of one workspace: applied to Feast, read as training sets, brought online, read online.

    Feast is imported by the calls that need it: `materialize` and `online` do without.
    """

    def __init__(self, settings: Settings, declarations: Declarations, *, gold: GoldStore | None = None) -> None:
        """Args:
        settings: names the workspace.
        declarations: views and services.
        gold: the caller's gold store, when it has one open already; shares its cache.
        """
        self.declarations = declarations
        self._settings = settings
        self._gold = gold or GoldStore(settings.lake / "gold")

    @cached_property
    def online(self) -> OnlineFeatures:
        """The online store of the workspace."""
        return open_online(self._settings, self.declarations)

    @cached_property
    def feast(self) -> FeatureStore:
        """Feast's own store object over the workspace's registry.

        Raises:
            ConfigInvalid: the environment holds Feast's shared-secret door; it must not be open here.
        """
        if os.environ.get(_OPEN_DOOR):
            hint = "unset it: who knows it passes Feast's authentication"
            raise ConfigInvalid("environment", _OPEN_DOOR, "nothing", "a value", hint=hint)
        _import_feast()
        from feast import FeatureStore, RepoConfig

        return FeatureStore(config=RepoConfig(**_repo_config(self._settings, self.declarations.project)))

    def apply(self) -> None:
        """Make Feast's registry say what the declarations say; views no longer declared go. Idempotent."""
        _import_feast()
        from feast import Entity, FeatureService, FeatureView

        (self._settings.home / "feast").mkdir(parents=True, exist_ok=True)
        for name in self.declarations.views:
            self._gold.folder(name).mkdir(parents=True, exist_ok=True)
        objects = feast_objects(self.declarations, self._gold.root)
        listed: list[tuple[Any, Any]] = [
            (FeatureService, self.feast.list_feature_services),
            (FeatureView, self.feast.list_feature_views),
            (Entity, self.feast.list_entities),
        ]
        gone = []
        for kind, list_all in listed:
            kept = {item.name for item in objects if isinstance(item, kind)}
            gone += [item for item in list_all() if item.name not in kept and item.name != "__dummy"]
        self.feast.apply(objects, objects_to_delete=gone, partial=False)

    def training_set(self, service: str, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with every feature of a service, as known at each row's moment.

        Args:
            service: name of a feature service.
            rows: `row_id` (unique), `as_of` (with a zone), the join keys, and the fields that the service's facts need.

        Returns:
            The rows, same order and index, with `<view>__<column>` (float64) for each view and the fact columns; given
            facts stay where they were, as float64 or text.

        Raises:
            UnknownName: no such service, or a join key is missing.
            InputInvalid: a row id twice, or a column that has a feature's name.
            TimeInvalid: an `as_of` without a zone or missing.
            RowGuarantee: rows out are not rows in.
        """
        declared = self._service(service)
        for needed in ("row_id", "as_of"):
            if needed not in rows.columns:
                raise UnknownName("column", needed, [str(name) for name in rows.columns])
        if rows["row_id"].duplicated().any():
            raise InputInvalid("rows", "each row_id once", repr(rows["row_id"][rows["row_id"].duplicated()].iloc[0]))
        outputs = self.feature_columns(service)
        taken = [name for name in outputs if name in rows.columns]
        if taken:
            raise InputInvalid("rows", "no column with a feature's name", repr(taken[0]), hint="rename it")
        features = self._historical(service, declared, rows)
        facts = fact_values(declared.facts, _arrays(rows))
        given = {name: facts.pop(name) for name in _given(declared)}
        clash = [name for name in facts if name in rows.columns]
        if clash:
            raise InputInvalid("rows", "no column with a fact's name", repr(clash[0]), hint="rename it")
        columns = {name: features[name].to_numpy(np.float64) for name in outputs} | facts
        return pd.concat([rows.assign(**given), pd.DataFrame(columns, index=rows.index)], axis=1)

    def feature_columns(self, service: str) -> tuple[str, ...]:
        """`<view>__<column>` of each view of a service, in order."""
        views = self.declarations.views
        return tuple(f"{view}__{name}" for view in self._service(service).views for name in view_columns(views[view]))

    def materialize(self, until: datetime, *, full: bool = False) -> dict[str, Materialized]:
        """Bring what is new in gold and was known by `until` online. See `features.materialize`."""
        clock = self._settings.make_clock()
        return materialize(self.declarations, self._gold, self.online, until, full=full, clock=clock)

    def online_features(self, service: str, entity_rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
        """The newest values through Feast's get_online_features, for comparing and for clients of Feast.

        Args:
            service: name of a feature service.
            entity_rows: join keys of each row.

        Returns:
            The join keys and `<view>__<column>` (float64, NaN where there is no value), in order. No age, no status.
        """
        self._service(service)
        rows = [dict(row) for row in entity_rows]
        feast_service = self.feast.get_feature_service(service, allow_cache=True)
        answer = self.feast.get_online_features(feast_service, rows, full_feature_names=True).to_dict()
        keys = list(rows[0]) if rows else []
        values = {name: pd.array(answer[name], dtype="Float64") for name in self.feature_columns(service)}
        numbers = {name: column.to_numpy(np.float64, na_value=np.nan) for name, column in values.items()}
        return pd.DataFrame({key: [row[key] for row in rows] for key in keys} | numbers)

    def _service(self, name: str) -> Service:
        if name not in self.declarations.services:
            raise UnknownName("feature service", name, self.declarations.services)
        return self.declarations.services[name]

    def _historical(self, service: str, declared: Service, rows: pd.DataFrame) -> pd.DataFrame:
        keys = list(dict.fromkeys(key for view in declared.views for key in join_keys(self.declarations.views[view])))
        for key in keys:
            if key not in rows.columns:
                raise UnknownName(f"join key of service {service}", key, [str(name) for name in rows.columns])
        asked = rows[keys].reset_index(drop=True)
        asked["event_timestamp"] = rows["as_of"].to_numpy() if rows["as_of"].dt.tz is None else rows["as_of"].array
        asked[_ROW] = np.arange(len(rows))
        feast_service = self.feast.get_feature_service(service, allow_cache=True)
        answer: pd.DataFrame = self.feast.get_historical_features(
            asked, feast_service, full_feature_names=True, filter_by_created_timestamp=True
        ).to_df()
        if len(answer) != len(rows) or not np.array_equal(answer[_ROW].to_numpy(), asked[_ROW].to_numpy()):
            raise RowGuarantee(f"training set of {service}", len(rows), len(answer))
        return answer


def online_columns(declarations: Declarations, service: str) -> dict[str, tuple[str, ...]]:
    """The value columns of each view of a service, as `OnlineStore.read` wants them."""
    return {view: view_columns(declarations.views[view]) for view in declarations.services[service].views}


def _given(service: Service) -> set[str]:
    """Facts that are fields of the rows themselves."""
    return {name for facts in service.facts if facts.kind == "given" for name in fact_columns(facts)}


def _arrays(rows: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """Columns as the facts want them: times as datetime64[us] in UTC, the rest as it is."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in rows.columns:
        column = rows[name]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = column.dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[us]")
        arrays[str(name)] = column.to_numpy()
    return arrays


def _repo_config(settings: Settings, project: str) -> dict[str, Any]:
    """What features/repo/feature_store.yaml says, for these settings."""
    return {
        "project": project,
        "provider": "local",
        "registry": str((settings.home / "feast" / "registry.db").absolute()),
        "offline_store": {
            "type": "features.asof_offline_store.AsofOfflineStore",
            "index_path": str((settings.home / "index").absolute()),
        },
        "online_store": feast_online(settings),
        "batch_engine": {"type": "features.arrow_engine.ArrowComputeEngine"},
        "entity_key_serialization_version": 3,
        "coerce_tz_aware": False,
    }
