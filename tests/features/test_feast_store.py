"""Feast over the declared features: apply, training sets, materialisation, and parity of both online readings."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations, join_keys, load_declarations, view_columns
from contracts.errors import ConfigInvalid, InputInvalid, TimeInvalid, UnknownName
from contracts.settings import Settings
from features.feast_store import FeatureRepo, _repo_config, feast_objects
from features.gold import GoldStore

ROOT = Path(__file__).parents[2]
REPO = ROOT / "features" / "repo"
START = datetime(2026, 1, 1, tzinfo=UTC)


def gold_rows(declarations: Declarations, view: str, keys: list[tuple[str, ...]], days: int) -> pd.DataFrame:
    """A row a key and day; each value says key, day and column, and every third day's is missing in the last column."""
    names = view_columns(declarations.views[view])
    found = []
    for place, key in enumerate(keys):
        for day in range(days):
            values = [place * 1000 + day * 10 + number / 100 for number in range(len(names))]
            values[-1] = np.nan if day % 3 == 2 else values[-1]
            found.append((*key, pd.Timestamp(START) + pd.Timedelta(days=day), *values))
    frame = pd.DataFrame(found, columns=[*join_keys(declarations.views[view]), "event_time", *names])
    frame["event_time"] = frame["event_time"].astype("datetime64[us, UTC]")
    return frame.assign(known_at=frame["event_time"])


@pytest.fixture(scope="module")
def declared() -> Declarations:
    return load_declarations(REPO)


@pytest.fixture
def repo(tmp_path: Path, declared: Declarations) -> FeatureRepo:
    """An applied workspace with ten days of gold for two shipments' keys; one weather row is late, one restated."""
    settings = Settings(home=tmp_path)
    gold = GoldStore(settings.lake / "gold")
    keys = {
        "carrier_rates": [("UA",), ("DL",)],
        "lane_rates": [("EWR", "ORD"), ("JFK", "LAX")],
        "carrier_lane_rates": [("UA", "EWR", "ORD"), ("DL", "JFK", "LAX")],
        "origin_rates": [("EWR",), ("JFK",)],
    }
    for view, some in keys.items():
        gold.append(view, gold_rows(declared, view, some, 10))
    weather = gold_rows(declared, "origin_weather", [("EWR",)], 3)
    weather.loc[1, "known_at"] += pd.Timedelta(hours=5)
    restated = weather.iloc[[0]].assign(temperature=-7.0, known_at=weather["known_at"].iloc[0] + pd.Timedelta(hours=3))
    weather = pd.concat([weather, restated], ignore_index=True)
    gold.append("origin_weather", weather.astype({"known_at": "datetime64[us, UTC]"}))
    made = FeatureRepo(settings, declared, gold=gold)
    made.apply()
    return made


def shipments(*hours: float, carrier: str = "UA") -> pd.DataFrame:
    """Shipments EWR to ORD decided so many hours after the start, as the population gives them."""
    as_of = (pd.Timestamp(START) + pd.to_timedelta(pd.Series(hours), unit="h")).astype("datetime64[us, UTC]")
    frame = pd.DataFrame({"row_id": [f"r{i}" for i in range(len(hours))], "as_of": as_of, "carrier": carrier})
    times = {"scheduled_at": as_of + pd.Timedelta(hours=2), "promised_at": as_of + pd.Timedelta(hours=6)}
    return frame.assign(origin="EWR", destination="ORD", distance_km=1000.0, label=0.0, label_known_at=as_of, **times)


@pytest.mark.slow
def test_feast_apply_works_from_the_repository_folder(tmp_path: Path):
    """`feast apply` in features/repo makes the registry in the workspace, as the declarations say."""
    feast = Path(sys.executable).parent / "feast"
    environment = os.environ | {"SEATRIAL_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([feast, "apply"], cwd=REPO, env=environment, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    repo = FeatureRepo(Settings(home=tmp_path), load_declarations(REPO))
    assert {view.name for view in repo.feast.list_feature_views()} == set(repo.declarations.views)
    service = repo.feast.get_feature_service("demand_v1")
    assert service.tags["hash"] == repo.declarations.service_hash("demand_v1")


def test_the_yaml_file_and_the_code_configure_feast_alike(tmp_path: Path, monkeypatch):
    """feature_store.yaml in a workspace says what FeatureRepo says."""
    import yaml

    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path))
    said = yaml.safe_load(os.path.expandvars((REPO / "feature_store.yaml").read_text()))
    assert said == _repo_config(Settings(home=tmp_path), "seatrial")


def test_an_unset_home_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch):
    """Feast's own reading of feature_store.yaml names SEATRIAL_HOME; no folder called ${SEATRIAL_HOME} appears."""
    from feast.repo_config import FeastConfigError, load_repo_config

    monkeypatch.delenv("SEATRIAL_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FeastConfigError, match="set SEATRIAL_HOME"):
        load_repo_config(REPO, REPO / "feature_store.yaml")
    assert list(tmp_path.iterdir()) == []


def test_apply_again_drops_only_what_is_not_declared(repo: FeatureRepo, declared: Declarations, tmp_path: Path):
    """A second apply keeps the objects; with a view less declared, the view and its service go."""
    repo.apply()
    assert len(repo.feast.list_feature_views()) == len(declared.views)
    fewer = declared.model_copy(
        update={
            "views": {name: view for name, view in declared.views.items() if name != "price_history"},
            "services": {"late_delivery_v1": declared.services["late_delivery_v1"]},
        }
    )
    again = FeatureRepo(Settings(home=tmp_path), fewer)
    again.apply()
    assert {view.name for view in again.feast.list_feature_views()} == set(fewer.views)
    assert [service.name for service in again.feast.list_feature_services()] == ["late_delivery_v1"]


def test_join_keys_keep_their_declared_order(declared: Declarations, repo: FeatureRepo):
    """The order of a view's keys survives Feast's registry: the online store's keys depend on it."""
    for name, view in declared.views.items():
        assert tuple(repo.feast.get_feature_view(name).join_keys) == join_keys(view)
    assert len(feast_objects(declared, Path("gold"))) == 6 + 8 + 2


def test_a_training_set_has_the_rows_that_were_asked_for(repo: FeatureRepo):
    """Order, index, duplicates in all but the id, unknown keys and other columns stay; features and facts follow."""
    rows = pd.concat([shipments(50, 26, 50), shipments(50, carrier="ZZ").assign(row_id="z")])
    rows.index = pd.Index([7, 7, 1, 0])
    found = repo.training_set("late_delivery_v1", rows)
    pd.testing.assert_frame_equal(found[rows.columns], rows)
    assert found["carrier_rates__late_rate_1"].fillna(-1).tolist() == [20.0, 10.0, 20.0, -1]
    assert found["lane_rates__late_rate_1"].tolist() == [20.0, 10.0, 20.0, 20.0]
    added = [name for name in found.columns if name not in rows.columns]
    assert added[: len(repo.feature_columns("late_delivery_v1"))] == list(repo.feature_columns("late_delivery_v1"))
    assert found["planned_hours"].tolist() == [4.0] * 4
    assert {str(found[name].dtype) for name in repo.feature_columns("late_delivery_v1")} == {"float64"}


def test_a_training_set_sees_corrections_and_late_rows_only_when_known(repo: FeatureRepo):
    """The restated temperature appears after 3 hours, the late row of day 2 at its hour 5, and none after 12 hours."""
    found = repo.training_set("late_delivery_v1", shipments(2, 4, 12.01, 26, 29, 49, 61))
    values = found["origin_weather__temperature"].fillna(-1).tolist()
    assert values == [0.0, -7.0, -1, -1, 10.0, 20.0, -1]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda rows: rows.assign(row_id="same"), InputInvalid, "each row_id once"),
        (lambda rows: rows.drop(columns="origin"), UnknownName, "'origin'"),
        (lambda rows: rows.assign(carrier_rates__n_1=1.0), InputInvalid, "carrier_rates__n_1"),
        (lambda rows: rows.assign(lead_hours=1.0), InputInvalid, "lead_hours"),
        (lambda rows: rows.assign(as_of=rows["as_of"].dt.tz_localize(None)), TimeInvalid, "as_of"),
    ],
)
def test_rows_that_cannot_be_answered_are_refused(repo: FeatureRepo, change, error, words):
    """The refusal names what is wrong with the rows."""
    with pytest.raises(error, match=words):
        repo.training_set("late_delivery_v1", change(shipments(50, 51)))


def test_an_unknown_service_suggests_the_nearest(repo: FeatureRepo):
    """A misspelt service is refused with the right one."""
    with pytest.raises(UnknownName, match="late_delivery_v1"):
        repo.training_set("late_delivery_v2", shipments(1))


def test_materialising_goes_on_where_it_ended(repo: FeatureRepo):
    """Each run brings what became known since the last; the same moment or an earlier one brings nothing."""
    first = repo.materialize(START + timedelta(days=4))
    assert first["carrier_rates"].written == 2
    assert {found.considered for found in repo.materialize(START + timedelta(days=4)).values()} == {0}
    assert {found.considered for found in repo.materialize(START).values()} == {0}
    assert repo.materialize(START + timedelta(days=5))["carrier_rates"] == (2, 2, 0, 0)
    read = repo.online.read("carrier_rates", ("late_rate_1",), ("UA",), START + timedelta(days=5), timedelta(hours=36))
    assert (read.status, read.values, read.age_s) == ("present", {"late_rate_1": 50.0}, 0.0)


def test_a_deleted_online_store_is_filled_from_the_beginning(repo: FeatureRepo, tmp_path: Path, declared: Declarations):
    """How far it was filled is kept in the store itself, so that both go together."""
    repo.materialize(START + timedelta(days=9))
    repo.online.close()
    for file in (tmp_path / "online").iterdir():
        file.unlink()
    assert (
        FeatureRepo(Settings(home=tmp_path), declared).materialize(START + timedelta(days=9))["lane_rates"].written == 2
    )


@pytest.mark.usefixtures("repo")
def test_what_is_served_is_what_training_sees(tmp_path: Path, declared: Declarations):
    """Feast's get_online_features, the embedded store and the offline join give the same values for the same moment."""
    now = START + timedelta(days=9)
    repo = FeatureRepo(Settings(home=tmp_path, clock=now.isoformat()), declared)
    repo.materialize(now)
    rows = shipments(9 * 24)
    keys = [
        {"carrier": "UA", "origin": "EWR", "destination": "ORD"},
        {"carrier": "ZZ", "origin": "EWR", "destination": "X"},
    ]
    online = repo.online_features("late_delivery_v1", keys)
    offline = repo.training_set("late_delivery_v1", rows)
    for view in ("carrier_rates", "lane_rates", "carrier_lane_rates", "origin_rates"):
        declared = repo.declarations.views[view]
        columns = view_columns(declared)
        read = repo.online.read(view, columns, tuple(keys[0][key] for key in join_keys(declared)), now, declared.ttl)
        names = [f"{view}__{name}" for name in columns]
        served = [np.nan if value is None else value for value in read.values.values()]
        np.testing.assert_array_equal(online.loc[0, names].to_numpy(float), served)
        np.testing.assert_array_equal(offline.loc[0, names].to_numpy(float), served)
    assert np.isnan(online.loc[1, "carrier_rates__n_1"])
    assert not np.isnan(online.loc[1, "origin_rates__late_rate_1"])


def test_feast_itself_materialises_and_writes_into_the_same_store(repo: FeatureRepo, declared: Declarations):
    """Feast's materialize and write_to_online_store go through the guard: an older row changes nothing."""
    repo.feast.materialize(START, START + timedelta(days=9), feature_views=["carrier_rates"])
    found = repo.online.newest("carrier_rates", ("late_rate_1",), ("UA",))
    assert found is not None
    assert found[2] == {"late_rate_1": 90.0}
    older = gold_rows(declared, "carrier_rates", [("UA",)], 1)
    repo.feast.write_to_online_store("carrier_rates", older)
    assert repo.online.newest("carrier_rates", ("late_rate_1",), ("UA",)) == found
    newer = older.assign(**{name: older[name] + pd.Timedelta(days=20) for name in ("event_time", "known_at")})
    repo.feast.write_to_online_store("carrier_rates", newer)
    assert repo.online.newest("carrier_rates", ("late_rate_1",), ("UA",)) != found


def test_materialising_does_not_import_feast(tmp_path: Path):
    """The path of every tick and of serving stays free of Feast's import of five seconds."""
    program = (
        "import sys; from pathlib import Path; from datetime import datetime, UTC\n"
        "from contracts.settings import Settings; from contracts.declarations import load_declarations\n"
        "from features.feast_store import FeatureRepo\n"
        f"repo = FeatureRepo(Settings(home=Path({str(tmp_path)!r})), load_declarations(Path({str(REPO)!r})))\n"
        "repo.materialize(datetime(2026, 1, 1, tzinfo=UTC)); repo.online.mark('x')\n"
        "sys.exit('feast' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=100)
    assert ran.returncode == 0


def test_feasts_open_door_is_refused(tmp_path: Path, declared: Declarations, monkeypatch):
    """With Feast's shared secret in the environment nothing of Feast starts."""
    monkeypatch.setenv("INTRA_COMMUNICATION_BASE64", "c2VjcmV0")
    with pytest.raises(ConfigInvalid, match="INTRA_COMMUNICATION_BASE64"):
        FeatureRepo(Settings(home=tmp_path), declared).apply()
