"""Who takes part in the point-in-time benchmark: each prepares what it needs and gives back the query to be timed.

All answer the same question: for each row the newest source row with event_time <= moment and known_at <= moment, not
older than the view's ttl. All end with columns in memory (Arrow, or Polars, which is Arrow inside).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.point_in_time_data import MICROSECOND, SOURCES, Folder, Source, frame

Query = Callable[[], Any]
OURS = "features.asof_offline_store.AsofOfflineStore"


def feast_repo(home: Path, folder: Folder, offline: dict[str, Any], sources: Sequence[Source] = SOURCES) -> Any:
    """A Feast repository in `home` over the benchmark's sources, applied.

    Args:
        offline: what feature_store.yaml says of the offline store.

    Returns:
        Feast's store object.
    """
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64, String

    home.mkdir(parents=True, exist_ok=True)
    online = {"type": "sqlite", "path": str(home / "online.db")}
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(home / "registry.db"),
        offline_store=offline,
        online_store=online,
        entity_key_serialization_version=3,
        coerce_tz_aware=False,
    )
    store = FeatureStore(config=config)
    names = dict.fromkeys(key for source in sources for key in source.keys)
    entities = {name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in names}
    views = []
    for source in sources:
        types = {f"{source.name}_whole": Int64, f"{source.name}_text": String}
        fields = [Field(name=key, dtype=String) for key in source.keys]
        fields += [Field(name=name, dtype=types.get(name, Float64)) for name in source.features]
        file = FileSource(
            name=f"{source.name}_file",
            path=str(folder.source(source.name).absolute()),
            timestamp_field="event_time",
            created_timestamp_column="known_at",
        )
        keys = [entities[key] for key in source.keys]
        ttl = source.ttl or timedelta(0)
        views.append(FeatureView(name=source.name, entities=keys, ttl=ttl, schema=fields, source=file))
    store.apply([*entities.values(), *views])
    return store


def feast_query(store: Any, folder: Folder) -> Query:
    """`get_historical_features` of all features for the questions, the cut at known_at on."""
    rows = frame(folder)
    wanted = [f"{source.name}:{feature}" for source in SOURCES for feature in source.features]

    def query() -> pa.Table:
        return store.get_historical_features(rows, wanted, filter_by_created_timestamp=True).to_arrow()

    return query


def feast_duckdb(home: Path, folder: Folder) -> Query:
    """Feast's own DuckDB offline store."""
    return feast_query(feast_repo(home / "duckdb", folder, {"type": "duckdb"}), folder)


def feast_file(home: Path, folder: Folder) -> Query:
    """Feast's default offline store (pandas and Dask)."""
    return feast_query(feast_repo(home / "file", folder, {"type": "file"}), folder)


def ours_prepare(repo_dir: Path, folder: Folder, mode: str) -> Any:
    """Our offline store under Feast.

    Args:
        repo_dir: folder of the repository; the indexes lie in it.
        mode: "index" uses the indexes that `ours_build` left, "never" uses none.

    Returns:
        Feast's store object.
    """
    from features.asof_offline_store import AsofOfflineStoreConfig

    knobs = {"index": "never" if mode == "never" else "auto", "index_path": str((repo_dir / "index").absolute())}
    known = {name: value for name, value in knobs.items() if name in AsofOfflineStoreConfig.model_fields}
    return feast_repo(repo_dir, folder, {"type": OURS} | known)


def ours_build(home: Path, folder: Folder) -> tuple[Query, Path] | None:
    """Building the indexes of all views: the work to be timed, and the folder where they go.

    Returns:
        None while the store has no function for it.
    """
    from features import asof_offline_store

    store = ours_prepare(home / "ours-index", folder, "index")
    build = getattr(asof_offline_store, "build_indexes", None)
    if build is None:
        return None
    return lambda: build(store.config, store.list_feature_views()), home / "ours-index" / "index"


def ours_indexed(home: Path, folder: Folder) -> Query:
    """Our store, index present."""
    from features import asof_offline_store

    query = feast_query(ours_prepare(home / "ours-index", folder, "index"), folder)
    if not hasattr(asof_offline_store, "build_indexes"):
        query()  # an index that lives in memory only is present after the first question
    return query


def ours_plain(home: Path, folder: Folder) -> Query:
    """Our store without an index."""
    return feast_query(ours_prepare(home / "ours-never", folder, "never"), folder)


def _usable(folder: Folder, source: Source, features: Sequence[str]) -> Any:
    """Lazy Polars rows by the moment they become usable; a row that is then older than one of its key is no answer."""
    import polars as pl

    event, known = pl.col("event_time"), pl.col("known_at")
    rows = pl.scan_parquet(folder.source(source.name), row_index_name="place")
    rows = rows.select("place", *source.keys, "event_time", "known_at", *features)
    rows = rows.with_columns(usable_at=pl.max_horizontal(event, known)).sort("usable_at", "event_time", "known_at")
    return rows.filter(event >= event.cum_max().over(source.keys)).drop("known_at")


def _join(asked: Any, rows: Any, source: Source) -> Any:
    times = {"left_on": "event_timestamp", "right_on": "usable_at"}
    return asked.join_asof(rows, by=list(source.keys), strategy="backward", check_sortedness=False, **times)


def polars(home: Path, folder: Folder, *, engine: str = "in-memory") -> Query:
    """Polars alone, one lazy plan: scans of the needed columns, join_asof by keys, ttl after; the values ride along."""
    import polars as pl

    asked = pl.read_parquet(folder.questions)

    def query() -> Any:
        found = asked.lazy().sort("event_timestamp")
        for source in SOURCES:
            found = _join(found, _usable(folder, source, source.features), source)
            if source.ttl:
                fresh = pl.col("event_timestamp") - pl.col("event_time") <= source.ttl
                found = found.with_columns(pl.when(fresh).then(pl.col(name)).alias(name) for name in source.features)
            found = found.drop("event_time", "usable_at", "place", strict=False)
        return found.sort("row_id").collect(engine=engine)  # type: ignore[call-overload]

    return query


def polars_gather(home: Path, folder: Folder, *, engine: str = "in-memory") -> Query:
    """Polars alone, thriftier: join_asof over keys and times only, then the values of the found places are gathered."""
    import polars as pl

    asked = pl.read_parquet(folder.questions)

    def query() -> Any:
        ordered, columns = asked.sort("event_timestamp"), []
        for source in SOURCES:
            found = _join(ordered, _usable(folder, source, ()).collect(engine=engine), source)
            place = pl.col("place")
            if source.ttl:
                place = pl.when(pl.col("event_timestamp") - pl.col("event_time") <= source.ttl).then(place)
            places = found.select("row_id", place.alias("place")).sort("row_id")["place"]
            values = pl.read_parquet(folder.source(source.name), columns=list(source.features))
            columns += values.select(pl.all().gather(places)).get_columns()
        return asked.hstack(columns)

    return query


def duckdb_asof(home: Path, folder: Folder) -> Query:
    """DuckDB alone: one query with an ASOF join a view, over the same filtered rows."""
    import duckdb

    asked = pq.read_table(folder.questions)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("asked", asked)
    parts, joins, outputs = [], [], ["asked.row_id"]
    for source in SOURCES:
        name, keys = source.name, ", ".join(source.keys)
        parts.append(
            f"""{name} AS (SELECT {keys}, usable_at, event_time, {", ".join(source.features)} FROM (
                SELECT *, greatest(event_time, known_at) AS usable_at, max(event_time) OVER before AS newest,
                    lead(greatest(event_time, known_at)) OVER later AS next_at
                FROM read_parquet('{folder.source(name)}')
                WINDOW before AS (PARTITION BY {keys} ORDER BY greatest(event_time, known_at), event_time, known_at
                        ROWS UNBOUNDED PRECEDING),
                    later AS (PARTITION BY {keys} ORDER BY greatest(event_time, known_at), event_time, known_at))
                WHERE event_time >= newest AND next_at IS DISTINCT FROM usable_at)"""
        )
        same = " AND ".join(f"asked.{key} = {name}.{key}" for key in source.keys)
        joins.append(f"ASOF LEFT JOIN {name} ON {same} AND asked.event_timestamp >= {name}.usable_at")
        ttl = source.ttl // MICROSECOND if source.ttl else 0
        fresh = f"epoch_us(asked.event_timestamp) - epoch_us({name}.event_time) <= {ttl}"
        outputs += [
            f"CASE WHEN {fresh} THEN {name}.{feature} END AS {feature}" if ttl else f"{name}.{feature}"
            for feature in source.features
        ]
    text = f"WITH {', '.join(parts)} SELECT {', '.join(outputs)} FROM asked {' '.join(joins)} ORDER BY asked.row_id"
    return lambda: connection.sql(text).to_arrow_table()


CONTENDERS: dict[str, Callable[[Path, Folder], Query]] = {
    "ours, index present": ours_indexed,
    "ours, no index": ours_plain,
    "Polars join_asof": polars,
    "Polars join_asof, then gather": polars_gather,
    "DuckDB ASOF": duckdb_asof,
    "Feast duckdb": feast_duckdb,
    "Feast file": feast_file,
}


def as_table(result: Any) -> pa.Table:
    """A contender's result as an Arrow table."""
    return result if isinstance(result, pa.Table) else result.to_arrow()
