"""Our offline store against Feast's own: equal answers where theirs are right; where they are not, both are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import InputInvalid, TimeInvalid

feast = pytest.importorskip("feast")
pytest.importorskip("ibis")
START = pd.Timestamp("2026-03-01", tz="UTC")
DUCKDB, FILE, OURS = "duckdb", "file", "features.asof_offline_store.AsofOfflineStore"


def hours(values: Any) -> pd.Series:
    return (START + pd.to_timedelta(pd.Series(values, dtype="float64"), unit="h")).astype("datetime64[us, UTC]")


@dataclass(frozen=True)
class View:
    """A view over rows with event_time and known_at; `keys` by type, the rest are doubles."""

    rows: pd.DataFrame
    keys: Mapping[str, str]
    ttl: timedelta = timedelta(0)

    @property
    def features(self) -> list[str]:
        return [str(name) for name in self.rows.columns if name not in (*self.keys, "event_time", "known_at")]


def store(folder: Path, kind: str, views: Mapping[str, View], unit: str = "us") -> Any:
    """A Feast repository over the views with one of the offline stores."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64, String

    home = folder / kind.rpartition(".")[2]
    home.mkdir()
    online = {"type": "sqlite", "path": str(home / "online.db")}
    made = FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=str(home / "registry.db"),
            offline_store={"type": kind},
            online_store=online,
            coerce_tz_aware=False,
        )
    )
    value_types, types = {"text": ValueType.STRING, "whole": ValueType.INT64}, {"text": String, "whole": Int64}
    entities: dict[str, Any] = {}
    applied = []
    for name, view in views.items():
        path = home / f"{name}.parquet"
        times = dict.fromkeys(("event_time", "known_at"), f"datetime64[{unit}, UTC]")
        view.rows.astype(times).to_parquet(path, index=False)
        for key, kind_of_key in view.keys.items():
            entities.setdefault(key, Entity(name=key, join_keys=[key], value_type=value_types[kind_of_key]))
        fields = [Field(name=key, dtype=types[kind_of_key]) for key, kind_of_key in view.keys.items()]
        fields += [Field(name=feature, dtype=Float64) for feature in view.features]
        source = FileSource(
            name=f"{name}_file", path=str(path), timestamp_field="event_time", created_timestamp_column="known_at"
        )
        keys = [entities[key] for key in view.keys]
        applied.append(FeatureView(name=name, entities=keys, ttl=view.ttl, schema=fields, source=source))
    made.apply([*entities.values(), *applied])
    return made


def asked(made: Any, views: Mapping[str, View], rows: pd.DataFrame, **options: Any) -> pd.DataFrame:
    """Every feature of the views for the rows, as a frame."""
    wanted = [f"{name}:{feature}" for name, view in views.items() for feature in view.features]
    return made.get_historical_features(rows.copy(), wanted, **options).to_df()


def random_view(rng: np.random.Generator, name: str, keys: Mapping[str, Sequence[Any]], **options: Any) -> View:
    """400 rows on whole hours: ties, late and restated rows, exact duplicates, missing values, keys and known_at."""
    rows = pd.DataFrame({key: rng.choice(np.array(values, dtype=object), 400) for key, values in keys.items()})
    event = rng.integers(0, 96, 400)
    late = np.where(rng.random(400) < 0.4, rng.integers(1, 48, 400), 0)
    rows["event_time"], rows["known_at"] = hours(event), hours(event + late)
    # which of two rows with equal times wins is nowhere defined, unless they are copies of each other
    rows = rows.drop_duplicates([*keys, "event_time", "known_at"], ignore_index=True)
    rows[f"{name}_x"] = np.where(rng.random(len(rows)) < 0.1, np.nan, rng.normal(size=len(rows)))
    rows[f"{name}_n"] = np.arange(len(rows), dtype=float)
    rows.loc[rng.random(len(rows)) < 0.03, "known_at"] = pd.NaT
    rows = pd.concat([rows, rows.sample(40, random_state=1)], ignore_index=True).sample(frac=1, random_state=2)
    kinds = {key: "whole" if isinstance(values[0], int) else "text" for key, values in keys.items()}
    whole = {key: "Int64" for key, kind in kinds.items() if kind == "whole"}
    return View(rows.astype(whole).reset_index(drop=True), kinds, **options)


def equal(left: pd.Series, right: pd.Series) -> bool:
    return bool(((left == right) | (left.isna() & right.isna())).all())


@pytest.mark.parametrize("seed", range(4))
def test_random_cases_are_answered_as_feast_duckdb_answers_them(tmp_path: Path, seed: int):
    """600 rows, three views (text, whole-number pair, no ttl), ttl edges, late and duplicate rows, null keys: equal."""
    rng = np.random.default_rng(seed)
    letters = ["a", "b", "c", "d", None]
    views = {
        "v": random_view(rng, "v", {"k": letters}, ttl=timedelta(hours=12)),
        "w": random_view(rng, "w", {"p": [1, 11, 111], "q": [1, 11, 111]}, ttl=timedelta(days=1)),
        "u": random_view(rng, "u", {"k": letters, "p": [1, 11]}),
    }
    rows = pd.DataFrame({"k": rng.choice(np.array([*letters, "zz"], dtype=object), 600)})
    rows["p"], rows["q"] = rng.choice([1, 11, 111, 7], 600), rng.choice([1, 11, 111], 600)
    rows["event_timestamp"], rows["row"] = hours(rng.integers(0, 140, 600)), np.arange(600)
    theirs = asked(store(tmp_path, DUCKDB, views), views, rows, filter_by_created_timestamp=True)
    ours = asked(store(tmp_path, OURS, views), views, rows, filter_by_created_timestamp=True)
    assert ours["row"].tolist() == rows["row"].tolist()
    theirs = theirs.sort_values("row", ignore_index=True)
    assert theirs["row"].tolist() == rows["row"].tolist()
    for feature in ("v_x", "v_n", "w_x", "w_n", "u_x", "u_n"):
        assert 0 < ours[feature].isna().sum() < 600
        assert equal(ours[feature], theirs[feature]), feature


def one(name: str = "x", ttl: timedelta = timedelta(hours=10)) -> dict[str, View]:
    """Key a: 1 at hour 1, restated to 9 at hour 8; key b: 5 at hour 6; a row without a key: 7."""
    rows = pd.DataFrame({"k": ["a", "a", "b", None], name: [1.0, 9.0, 5.0, 7.0]})
    return {"v": View(rows.assign(event_time=hours([1, 1, 6, 1]), known_at=hours([1, 8, 6, 1])), {"k": "text"}, ttl)}


def questions(*pairs: tuple[str | None, float]) -> pd.DataFrame:
    return pd.DataFrame({"k": [key for key, _ in pairs], "event_timestamp": hours([hour for _, hour in pairs])})


def test_by_default_feast_duckdb_gives_a_value_before_it_was_known(tmp_path: Path):
    """At hour 4 nobody knew the restatement of hour 8: Feast's default gives it, ours does not."""
    views, rows = one(), questions(("a", 4.0))
    assert asked(store(tmp_path, DUCKDB, views), views, rows)["x"].tolist() == [9.0]
    assert asked(store(tmp_path, OURS, views), views, rows)["x"].tolist() == [1.0]


def test_a_feature_named_y_breaks_feast_duckdb(tmp_path: Path):
    """Its join drops every column that ends in _y; ours allows any name."""
    from ibis.common.exceptions import IbisTypeError

    views, rows = one("delay_y"), questions(("a", 4.0))
    with pytest.raises(IbisTypeError, match="delay_y"):
        asked(store(tmp_path, DUCKDB, views), views, rows)
    assert asked(store(tmp_path, OURS, views), views, rows)["delay_y"].tolist() == [1.0]


def test_a_column_of_the_rows_named_like_a_feature_breaks_feast_duckdb(tmp_path: Path):
    """Theirs fails in the middle of the query (the file store adds an `x__`); ours says before it what to rename."""
    from ibis.common.exceptions import IbisInputError

    views, rows = one(), questions(("a", 4.0)).assign(x=123.0)
    with pytest.raises(IbisInputError, match="Duplicate column name"):
        asked(store(tmp_path, DUCKDB, views), views, rows)
    assert "x__" in asked(store(tmp_path, FILE, views), views, rows).columns
    with pytest.raises(InputInvalid, match=r"'x'.*rename"):
        asked(store(tmp_path, OURS, views), views, rows)


def test_materialize_of_nanosecond_parquet_breaks_feast_duckdb(tmp_path: Path):
    """Theirs cannot bring nanosecond times online; ours can."""
    view, span = one()["v"], (START.to_pydatetime(), hours([9])[0].to_pydatetime())
    views = {"v": View(view.rows.dropna(subset="k"), view.keys, view.ttl)}
    theirs, ours = (store(tmp_path, kind, views, unit="ns") for kind in (DUCKDB, OURS))
    with pytest.raises(Exception, match="TIMESTAMPTZ_NS"):
        theirs.materialize(*span)
    ours.materialize(*span)
    assert ours.get_online_features(["v:x"], [{"k": "b"}]).to_dict()["x"] == [5.0]


def test_a_ttl_of_days_and_hours_breaks_feast_duckdb(tmp_path: Path):
    """Theirs cannot say 30 hours as an interval; ours can, the edge included."""
    views, rows = one(ttl=timedelta(hours=30)), questions(("b", 36.0), ("b", 36.001))
    with pytest.raises(ValueError, match="mixed units"):
        asked(store(tmp_path, DUCKDB, views), views, rows)
    assert asked(store(tmp_path, OURS, views), views, rows)["x"].fillna(-1).tolist() == [5.0, -1.0]


def test_feast_duckdb_takes_times_without_a_zone_for_utc(tmp_path: Path):
    """Theirs guesses; ours refuses."""
    views, rows = one(), questions(("a", 4.0))
    rows["event_timestamp"] = rows["event_timestamp"].dt.tz_localize(None)
    theirs = asked(store(tmp_path, DUCKDB, views), views, rows, filter_by_created_timestamp=True)
    assert theirs["x"].notna().all()
    with pytest.raises(TimeInvalid, match="zone"):
        asked(store(tmp_path, OURS, views), views, rows)


def test_feast_file_collapses_equal_rows(tmp_path: Path):
    """A question asked twice comes back once from theirs, twice from ours."""
    views, rows = one(), questions(("a", 4.0), ("b", 7.0), ("a", 4.0)).assign(row=[0, 1, 2])
    cut = {"filter_by_created_timestamp": True}
    assert len(asked(store(tmp_path, FILE, views), views, rows, **cut)) == 2
    found = asked(store(tmp_path, OURS, views), views, rows, **cut)
    assert found["row"].tolist() == [0, 1, 2]
    assert found["x"].tolist() == [1.0, 5.0, 1.0]


def test_feast_file_loses_rows_without_a_value_in_time(tmp_path: Path):
    """A key whose only values lie in the future or behind the ttl takes its row with it; ours keeps it, null."""
    views, rows = one(), questions(("b", 5.0), ("b", 30.0), ("b", 16.0), ("z", 5.0)).assign(row=[0, 1, 2, 3])
    cut = {"filter_by_created_timestamp": True}
    assert sorted(asked(store(tmp_path, FILE, views), views, rows, **cut)["row"]) == [2, 3]
    found = asked(store(tmp_path, OURS, views), views, rows, **cut)
    assert found["row"].tolist() == [0, 1, 2, 3]
    assert found["x"].fillna(-1).tolist() == [-1.0, -1.0, 5.0, -1.0]


def test_feast_file_matches_a_missing_key_to_a_source_row_without_one(tmp_path: Path):
    """Nobody knows whose value that is: theirs gives it, ours gives null, as Feast's DuckDB store does."""
    views, rows = one(), questions((None, 4.0), ("a", 4.0)).assign(row=[0, 1])
    cut = {"filter_by_created_timestamp": True}
    by_row = {
        kind: asked(store(tmp_path, kind, views), views, rows, **cut).set_index("row")["x"]
        for kind in (FILE, DUCKDB, OURS)
    }
    assert by_row[FILE][0] == 7.0
    assert np.isnan(by_row[DUCKDB][0])
    assert np.isnan(by_row[OURS][0])
    assert by_row[OURS][1] == 1.0


def test_feast_file_changes_the_order_of_rows(tmp_path: Path):
    """Theirs sorts by time; ours leaves rows where they were."""
    views, rows = one(), questions(("b", 8.0), ("a", 9.0), ("a", 2.0), ("b", 7.0)).assign(row=[0, 1, 2, 3])
    cut = {"filter_by_created_timestamp": True}
    assert asked(store(tmp_path, FILE, views), views, rows, **cut)["row"].tolist() != [0, 1, 2, 3]
    assert asked(store(tmp_path, OURS, views), views, rows, **cut)["row"].tolist() == [0, 1, 2, 3]
